"""One classifier through a suite: batches, progress, and a state file from which a killed evaluation goes on."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
from torch import Tensor, nn
from tqdm.auto import tqdm

from isce.attacks import Threat
from isce.attacks.checks import check_call, check_index
from isce.attacks.rejection import rejects
from isce.attacks.spec import AttackSpec, about
from isce.evaluation.job import Job
from isce.evaluation.outcome import Evaluation, Mask, Outcome
from isce.evaluation.randomised import FreshDraws
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

    Rows on survivors begin with the largest eps: an image that they leave standing there is spared at smaller ones.
    What stood in the larger ball stands in the smaller. They spare what ``parameters.certify`` proves, too.

    With ``parameters.draws`` a classifier that draws at random is evaluated as one, too, in ``Evaluation.randomised``;
    the suite sees it with the draws that it has.

    A row fails where the package that runs it does, or runs out of time: what it broke until then stays broken, and it
    has no accuracy, see :meth:`Evaluation.results`. Any other failure, in this package or in the network, ends the
    evaluation.

    An image that the classifier rejects counts as handled: a clean one as if it were right, an adversarial point as no
    success. That lifts all accuracies of a classifier that rejects much: which clean images it rejects stands beside
    them, see :meth:`Evaluation.results`.

    Args:
        classifier: maps images to raw logits (N, K), and to one more for rejection where it has ``rejects = True``;
            runs on the device of its parameters; left as it was.
        objective: the objective it was trained with.
        images: (N, C, H, W), floating point in [0, 1].
        labels: (N,), int64 in [0, K).
        parameters: suite, norm, eps, seed and batch size.
        index: place of each image in its data set (N,), int64, which keys the randomness; default 0 to N - 1.
        progress: show a progress bar.
        state: file that keeps every finished row. A row is taken from there if the network, the images, the row itself,
            the images that it attacks, semantics numbers and packages are the same, and the row did not fail: so an
            interrupted evaluation goes on, one that ran out of memory too, and a suite that gained a row runs that row
            alone. No row is taken for a network that can't be told from others.

    Returns:
        The outcome for every image. It doesn't depend on ``batch_size`` beyond float rounding, unless the classifier is
        batch-dependent.

    Raises:
        TypeError, ValueError: arguments that can't be used, see ``attacks.run``; before any work, also for a classifier
            without gradients under a suite with rows that need them, and for draws of one that has none.
        OSError: ``state`` is a folder, or can't be written; said before the first row.
        RuntimeError: inside ``torch.inference_mode()``; out of memory, with the remedy; or an attack of this package,
            or the network, failed: names the row and the error. Finished rows are kept in ``state``. Or an image was
            both proved and broken.
    """
    check_call(classifier, objective, images, labels)
    kept = State(state)
    job = Job(classifier, objective, images, labels, check_index(index, labels), parameters)
    keys = RowKeys(job) if kept.path else None
    fresh = FreshDraws(job, parameters.draws) if parameters.draws else None
    clean = job.clean()
    suites = _suites(parameters)
    proved: dict[str, Mask] = {}
    found: dict[str, dict[str, Outcome]] = {threat.label: {} for threat in suites}
    seconds: dict[str, dict[str, float]] = {threat.label: {} for threat in suites}
    searched: dict[str, tuple[Threat, Mask, Mask]] = {}  # taken from the file: where it looked for the smallest change
    order = _order(suites)
    more = len(parameters.eps) if fresh else 0
    method = parameters.certify
    balls = [threat for threat in suites if method and threat.norm == parameters.norm]
    with tqdm(total=len(order) + len(balls) + more, disable=not progress, unit="attack") as bar:
        known = np.zeros_like(clean)
        for threat in sorted(balls, key=lambda threat: threat.eps, reverse=True):
            bar.set_description(f"proofs {threat.label}")
            assert method is not None
            known = proved[threat.label] = job.certified(threat, method, known)
            bar.update()
        for threat, spec in order:
            bar.set_description(f"{spec.label} {threat.label}")
            so_far = Evaluation(clean, found, job.batch_size)
            stands = so_far.standing(threat.label) if spec.survivors else clean
            # Of a batch that stays together other images may fall in a smaller ball.
            spares = _can_spare(spec) and not job.whole
            spared = np.zeros_like(clean)
            if spares:
                spared = so_far.spared(threat.label, spec.label) | proved.get(threat.label, spared)
            name = f"{threat.label}/{spec.label}"
            key = keys.key(spec, threat, stands, spared) if keys else ""
            row = kept.get(name, key)
            if row is None:
                if spec.label in searched:  # its points are in no file: found again, and judged at this eps as well
                    job.attack(spec, *searched.pop(spec.label), bar)
                started = time.monotonic()
                outcome = job.attack(spec, threat, stands, spared, bar)
                row = kept.add(name, key, outcome, time.monotonic() - started)
            elif about(spec.attack).minimal and spec.threat is None:
                searched.setdefault(spec.label, (threat, stands, spared))
            found[threat.label][spec.label], seconds[threat.label][spec.label] = row.outcome, row.seconds
            bar.update()
        so_far = Evaluation(clean, found, job.batch_size)
        for threat in balls:
            assert method is not None
            proved[threat.label] = job.upheld(threat, method, proved[threat.label], so_far.standing(threat.label))
        grid = [Threat(parameters.norm, eps) for eps in parameters.eps]
        randomised = fresh.evaluate(grid, kept, keys, bar) if fresh else None
    kept.close()
    in_order = {t.label: {row.label: found[t.label][row.label] for row in rows} for t, rows in suites.items()}
    refused = job.refused if rejects(classifier) else None
    return Evaluation(clean, in_order, job.batch_size, seconds, proved, refused, randomised)


def _suites(parameters: AttackParameters) -> dict[Threat, list[AttackSpec]]:
    """Every threat model with its rows, those on all images first: the grid of eps, then the rows that have their own.

    eps rises within a norm. Rows on all images come first since what they break is broken for those on survivors.
    """
    rows = sorted(parameters.suite.rows, key=lambda row: bool(row.survivors))
    main = parameters.eps[-1] if parameters.main_eps is None else parameters.main_eps
    grid = {
        Threat(parameters.norm, eps): [row for row in rows if row.threat is None and (eps == main or not row.main_only)]
        for eps in parameters.eps
    }
    own = sorted({row.threat for row in rows if row.threat is not None}, key=lambda threat: (threat.norm, threat.eps))
    suites = grid | {threat: [row for row in rows if row.threat == threat] for threat in own}
    return {threat: rows for threat, rows in suites.items() if rows}


def _order(suites: dict[Threat, list[AttackSpec]]) -> list[tuple[Threat, AttackSpec]]:
    """The order of work: rows on all images; then attacks that look for the smallest change; then eps falling.

    What stands in a large ball stands in a small one, so the rows on survivors begin with the largest eps of each norm.
    """
    every = [(threat, row) for threat, rows in suites.items() for row in rows]
    first = [one for one in every if not one[1].survivors]
    smallest = [one for one in every if one[1].survivors and not _can_spare(one[1])]
    rest = [one for one in every if _can_spare(one[1])]
    return first + smallest + sorted(rest, key=lambda one: (one[0].norm, -one[0].eps))


def _can_spare(spec: AttackSpec) -> bool:
    """Whether a row need not attack what it left standing at a larger eps.

    An attack that looks for the smallest change is run once anyway; what it found is judged again at every eps.
    """
    return bool(spec.survivors) and not about(spec.attack).minimal
