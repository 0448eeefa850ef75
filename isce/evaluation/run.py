"""One classifier through a suite: batches, progress, and a state file from which a killed evaluation goes on."""

from __future__ import annotations

import time
from pathlib import Path

from torch import Tensor, nn
from tqdm.auto import tqdm

from isce.attacks import Threat
from isce.attacks.checks import check_call, check_index
from isce.attacks.spec import AttackSpec
from isce.evaluation.job import Job
from isce.evaluation.outcome import Evaluation, Mask, Outcome
from isce.evaluation.state import RowKeys, State
from isce.losses import Objective
from isce.parameters.attack import AttackParameters


def evaluate(
    classifier: nn.Module,
    objective: Objective,
    images: Tensor,
    labels: Tensor,
    parameters: AttackParameters,
    *,
    index: Tensor | None = None,
    progress: bool = True,
    state: Path | str | None = None,
) -> Evaluation:
    """Run a suite against a classifier.

    Args:
        classifier: maps images to raw logits (N, K); runs on the device of its parameters; left as it was.
        objective: the objective it was trained with.
        images: (N, C, H, W), floating point in [0, 1].
        labels: (N,), int64 in [0, K).
        parameters: suite, norm, eps, seed and batch size.
        index: place of each image in its data set (N,), int64, which keys the randomness; default 0 to N - 1.
        progress: show a progress bar.
        state: file that keeps every finished row. A row is taken from there if the network, the images, the row itself,
            the images that it attacks and the code are the same, and it did not fail: so an interrupted evaluation goes
            on, one that ran out of memory too, and a suite that gained a row runs that row alone.

    A row fails where the package that runs it does, or runs out of time: what it broke until then stays broken, and it
    has no accuracy, see :meth:`Evaluation.results`. Any other failure, in this package or in the network, ends the
    evaluation.

    Returns:
        The outcome for every image. It doesn't depend on ``batch_size`` beyond float rounding, unless the classifier is
        batch-dependent.

    Raises:
        TypeError, ValueError: arguments that can't be used, see ``attacks.run``; before any work, also for a classifier
            without gradients under a suite with rows that need them.
        OSError: ``state`` is a folder, or can't be written; said before the first row.
        RuntimeError: inside ``torch.inference_mode()``; out of memory, with the remedy; or an attack of this package,
            or the network, failed: names the row and the error. Finished rows are kept in ``state``.
    """
    check_call(classifier, objective, images, labels)
    kept = State(state)
    job = Job(classifier, objective, images, labels, check_index(index, labels), parameters)
    keys = RowKeys(job) if kept.path else None
    clean = job.clean()
    standing, outcomes = dict[str, Mask](), dict[str, dict[str, Outcome]]()
    plan = _plan(parameters)
    with tqdm(total=sum(len(rows) for _, rows in plan), disable=not progress, unit="attack") as bar:
        for threat, rows in plan:
            left = standing.setdefault(threat.norm, clean.copy())
            found = outcomes.setdefault(threat.label, {})
            for spec in rows:
                bar.set_description(f"{spec.label} {threat.label}")
                name, stands = f"{threat.label}/{spec.label}", left if spec.survivors else clean
                key = keys.key(spec, threat, stands) if keys else ""
                outcome = kept.get(name, key)
                if outcome is None:
                    started = time.monotonic()
                    outcome = job.attack(spec, threat, stands, bar)
                    kept.add(name, key, outcome, time.monotonic() - started)
                found[spec.label] = outcome
                left &= ~found[spec.label].broken
                bar.update()
    kept.close()
    return Evaluation(clean, outcomes, job.batch_size)


def _plan(parameters: AttackParameters) -> list[tuple[Threat, list[AttackSpec]]]:
    """Every threat model with its rows: the grid of eps, then the rows that have one of their own, eps rising."""
    common = [row for row in parameters.suite.rows if row.threat is None]
    own: dict[Threat, list[AttackSpec]] = {}
    for row in parameters.suite.rows:
        if row.threat is not None:
            own.setdefault(row.threat, []).append(row)
    grid = [(Threat(parameters.norm, eps), common) for eps in parameters.eps] if common else []
    return grid + [(threat, own[threat]) for threat in sorted(own, key=lambda threat: (threat.norm, threat.eps))]
