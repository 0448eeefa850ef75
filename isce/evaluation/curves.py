"""Robust accuracy as eps grows, and as the attack is given more steps.

Both are evaluations with a suite of their own, so batches, batch-dependent classifiers, running out of memory and going
on after a kill are those of :func:`isce.evaluation.evaluate`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from isce.attacks.checks import check_call
from isce.attacks.spec import AttackSpec
from isce.data.sets import stratified
from isce.evaluation.run import evaluate
from isce.losses import Objective
from isce.parameters.attack import AttackParameters, Suite
from isce.strict import validate

#: An eps of a sweep from this share of the box's width on is the box: a last step of a per cent would say nothing.
NEAR = 0.99
STEPS = (10, 50, 200, 1000)


def curves(
    classifier: nn.Module,
    objective: Objective,
    images: Tensor,
    labels: Tensor,
    parameters: AttackParameters,
    *,
    index: Tensor,
    batch_size: int,
    folder: Path | str,
    progress: bool = True,
) -> dict[str, list[dict[str, Any]]]:
    """Both curves of an attack run, as its parameters ask for them (``parameters.curves``; without it none).

    Args:
        classifier: maps images to raw logits (N, K); left as it was.
        objective: the objective it was trained with.
        images: (N, C, H, W), floating point in [0, 1]; a stratified subset of them is attacked.
        labels: (N,), int64 in [0, K).
        parameters: of the attack run.
        index: place of each image in its data set (N,), int64.
        batch_size: images attacked at once.
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
    given = (classifier, objective, images[some], labels[some])

    def one(name: str, steps: int, eps: float) -> tuple[AttackParameters, dict[str, Any]]:
        row = AttackSpec(attack="matched", objective="margin", steps=steps)
        values = {"checkpoint": "", "suite": Suite(name=name, rows=[row]), "norm": parameters.norm, "eps": [eps]}
        values |= {"seed": parameters.seed, "batch_size": batch_size}
        more = {"index": index[some], "progress": progress, "state": Path(folder) / f"{name}.npz"}
        return validate(AttackParameters, values, name), more

    growing, to_sweep = one("sweep", plan.sweep_steps, parameters.eps[0])
    fixed, to_converge = one("convergence", 1, plan.convergence_eps)
    return {
        "sweep": sweep(*given, growing, **to_sweep),
        "convergence": convergence(*given, fixed, plan.convergence_steps, **to_converge),
    }


def sweep(
    classifier: nn.Module,
    objective: Objective,
    images: Tensor,
    labels: Tensor,
    parameters: AttackParameters,
    **more: Any,
) -> list[dict[str, Any]]:
    """Robust accuracy under one attack at growing eps, until nothing is left or eps is as wide as the box.

    An image that is broken at one eps stays broken at every larger one and isn't attacked again, so accuracy never
    rises along the sweep. A sweep that ends above 0 at the last eps, where any image may be shown, is a red flag.

    Args:
        classifier: maps images to raw logits (N, K); left as it was.
        objective: the objective it was trained with.
        images: (N, C, H, W), floating point in [0, 1].
        labels: (N,), int64 in [0, K).
        parameters: the attack is the first row of their suite; the sweep begins at their first eps, in units of pixel
            values in [0, 1], and every second eps is twice as large.
        more: ``index``, ``progress`` and ``state`` of :func:`evaluate`.

    Returns:
        One row for each eps: ``eps``, ``accuracy`` in [0, 1], ``correct`` of ``n`` images, Wilson 95% bounds ``low``
        and ``high``.

    Raises:
        TypeError, ValueError, RuntimeError: as :func:`evaluate`; the first eps is wider than the box.
    """
    check_call(classifier, objective, images, labels)
    eps = _grid(parameters.norm, parameters.eps[0], images[0].numel())
    row = parameters.suite.rows[0].model_copy(update={"survivors": True})
    grid = _changed(parameters, [row], eps)
    found = evaluate(classifier, objective, images, labels, grid, **more).results()["threats"]
    rows = [{"eps": e, **t["worst"]} for e, t in zip(eps, found.values(), strict=True)]
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
    budgets = _changed(parameters, specs, parameters.eps[:1])
    (outcome,) = evaluate(classifier, objective, images, labels, budgets, **more).results()["threats"].values()
    columns = ("accuracy", "correct", "n", "low", "high")
    return [{"steps": one.steps, **{name: outcome["attacks"][one.label][name] for name in columns}} for one in specs]


def _changed(parameters: AttackParameters, rows: list[AttackSpec], eps: list[float]) -> AttackParameters:
    suite = Suite(name="curve", rows=rows)
    return validate(AttackParameters, parameters.model_dump() | {"suite": suite, "eps": eps}, "curve")


def _grid(norm: str, start: float, pixels: int) -> list[float]:
    """``start`` and its multiples by powers of sqrt(2), up to the eps that is as wide as the box."""
    cap = 1.0 if norm == "linf" else math.sqrt(pixels)
    if not 0 < start <= cap:
        raise ValueError(f"start must lie in (0, {cap:g}], the width of the box in {norm}, got {start}")
    count = max(0, math.ceil(2 * math.log2(NEAR * cap / start)))
    return [start * 2 ** (k / 2) for k in range(count)] + [cap]
