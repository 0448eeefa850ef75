"""Robust accuracy as eps grows, looked up in an evaluation, and as an attack is given more steps.

The second is an evaluation of its own, so batches, batch-dependent classifiers, running out of memory and going on
after a kill are those of :func:`isce.evaluation.evaluate`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from isce.attacks.checks import check_call
from isce.attacks.spec import AttackSpec, about
from isce.attacks.threat import Threat
from isce.data.sets import stratified
from isce.evaluation.outcome import Evaluation
from isce.evaluation.run import evaluate
from isce.losses import Objective
from isce.parameters.attack import AttackParameters, Suite
from isce.strict import validate

#: An eps of a sweep from this share of the box's width on is the box: a last step of a per cent would say nothing.
NEAR = 0.99
STEPS = (10, 50, 250)


def curves(
    classifier: nn.Module,
    objective: Objective,
    images: Tensor,
    labels: Tensor,
    parameters: AttackParameters,
    evaluation: Evaluation,
    *,
    index: Tensor,
    folder: Path | str,
    progress: bool = True,
) -> dict[str, list[dict[str, Any]]]:
    """Both curves of an attack run, as its parameters ask for them (``parameters.curves``; without it none).

    The first is looked up in the evaluation: see :meth:`Evaluation.curve`. The second attacks anew.

    Args:
        classifier: maps images to raw logits (N, K); left as it was.
        objective: the objective it was trained with.
        images: (N, C, H, W), floating point in [0, 1]; a stratified subset of them is attacked anew.
        labels: (N,), int64 in [0, K).
        parameters: of the attack run.
        evaluation: what ``evaluate`` returned for these.
        index: place of each image in its data set (N,), int64.
        folder: for the files that keep finished rows.
        progress: show progress bars.

    Returns:
        ``{"sweep": rows, "convergence": rows}``, see :func:`sweep` and :func:`convergence`; empty without a plan.

    Raises:
        TypeError, ValueError, RuntimeError: as :func:`evaluate`.
    """
    check_call(classifier, objective, images, labels)
    plan = parameters.curves
    if plan is None:
        return {}
    few = min(plan.images, len(labels))
    some = stratified(labels, few)
    if len(some) != few:
        raise RuntimeError(f"curves are over {few} images, got {len(some)}")
    row = AttackSpec(attack="matched", objective="margin")
    values = {"checkpoint": "", "suite": Suite(name="convergence", rows=[row]), "norm": parameters.norm}
    values |= {"eps": [plan.convergence_eps], "seed": parameters.seed, "batch_size": evaluation.batch_size}
    fixed = validate(AttackParameters, values, "convergence")
    more = {"index": index[some], "progress": progress, "state": Path(folder) / "convergence.npz"}
    given = (classifier, objective, images[some], labels[some], fixed, plan.convergence_steps)
    return {"sweep": sweep(parameters, evaluation, images[0].numel()), "convergence": convergence(*given, **more)}


def sweep(parameters: AttackParameters, evaluation: Evaluation, pixels: int) -> list[dict[str, Any]]:
    """Look up robust accuracy at growing eps, until nothing is left or eps is as wide as the box.

    Without an attack in the suite that looks for the smallest change nothing is known beyond the largest eps that was
    attacked: the curve then ends there.

    Args:
        parameters: of the evaluation; the curve begins at half of their first eps and grows by the fourth root of 2.
        evaluation: what it found.
        pixels: values of an image.

    Returns:
        One row for each eps: ``eps``, ``accuracy`` in [0, 1], ``correct`` of ``n`` images, Wilson 95% bounds ``low``
        and ``high``.
    """
    norm, start = parameters.norm, parameters.eps[0] / 2
    minimal = any(about(row.attack).minimal and row.threat is None and not row.images for row in parameters.suite.rows)
    attacked = [eps for eps in parameters.eps if Threat(norm, eps).label in evaluation.outcomes]
    if not attacked:
        return []
    cap = (1.0 if norm == "linf" else math.sqrt(pixels)) if minimal else attacked[-1]
    count = max(0, math.ceil(4 * math.log2(NEAR * cap / start)))
    rows = evaluation.curve(norm, sorted({*(start * 2 ** (k / 4) for k in range(count)), *attacked, cap}))
    end = next((place for place, row in enumerate(rows) if row["correct"] == 0), len(rows))
    return rows[: end + 1]


def convergence(
    classifier: nn.Module,
    objective: Objective,
    images: Tensor,
    labels: Tensor,
    parameters: AttackParameters,
    steps: Sequence[int] = STEPS,
    **more: Any,
) -> list[dict[str, Any]]:
    """Robust accuracy under the same attack with more and more steps, each number of steps run from scratch.

    Every number of steps attacks every image that is classified right, also those that fewer steps broke: the row says
    what that budget does alone, and an accuracy that *rises* with the steps stays visible. The matched attack drops an
    image the step it falls, so there only the images that stand cost all steps; an attack without that costs the sum
    of ``steps`` for every image.

    Args:
        classifier: maps images to raw logits (N, K); left as it was.
        objective: the objective it was trained with.
        images: (N, C, H, W), floating point in [0, 1].
        labels: (N,), int64 in [0, K).
        parameters: the attack is the first row of their suite, at their first eps; its number of steps is not used.
        steps: numbers of steps, at least 1, rising strictly.
        more: ``index``, ``progress`` and ``state`` of :func:`evaluate`.

    Returns:
        One row for each number of steps: ``steps``, ``accuracy`` in [0, 1], ``correct`` of ``n`` images, Wilson 95%
        bounds ``low`` and ``high``.

    Raises:
        TypeError, ValueError, RuntimeError: as :func:`evaluate`; steps that don't rise, or that the attack can't take.
    """
    if not steps or sorted(set(steps)) != list(steps):
        raise ValueError(f"steps must rise strictly, got {list(steps)}")
    spec = parameters.suite.rows[0].model_copy(update={"survivors": False})
    specs = [validate(AttackSpec, spec.model_dump() | {"steps": n}, f"{spec.attack} with {n} steps") for n in steps]
    suite = Suite(name="curve", rows=specs)
    budgets = validate(AttackParameters, parameters.model_dump() | {"suite": suite, "eps": parameters.eps[:1]}, "curve")
    (outcome,) = evaluate(classifier, objective, images, labels, budgets, **more).results()["threats"].values()
    columns = ("accuracy", "correct", "n", "low", "high")
    return [{"steps": one.steps, **{name: outcome["attacks"][one.label][name] for name in columns}} for one in specs]
