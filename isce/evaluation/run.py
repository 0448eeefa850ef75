"""One classifier through a suite: batches, progress, and a state file from which a killed evaluation goes on."""

from __future__ import annotations

import contextlib
import io
import zipfile
import zlib
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor, nn
from tqdm.auto import tqdm

from isce.attacks import Threat
from isce.attacks.checks import check_images, check_index
from isce.evaluation.job import Job
from isce.evaluation.outcome import Evaluation, Mask, Outcome
from isce.records import write_atomic

if TYPE_CHECKING:
    from isce.suites import AttackParameters, AttackSpec

ROOT = Path(__file__).resolve().parent.parent.parent


def evaluate(
    classifier: nn.Module,
    objective: Any,
    images: Tensor,
    labels: Tensor,
    parameters: AttackParameters,
    *,
    index: Tensor | None = None,
    progress: bool = True,
    state: Path | None = None,
) -> Evaluation:
    """Run a suite against a classifier.

    Args:
        classifier: maps images to raw scores (N, K); runs on the device of its parameters; left as it was.
        objective: the objective it was trained with.
        images: (N, C, H, W), floating point in [0, 1].
        labels: (N,), int64 in [0, K).
        parameters: suite, norm, eps, seed and batch size.
        index: place of each image in its data set (N,), int64, which keys the randomness; default 0 to N - 1.
        progress: show a progress bar.
        state: file that keeps every finished row; an evaluation of the same weights, images, parameters and code that
            was interrupted goes on there. A file of anything else is started over.

    Rows that fail or run out of time in another package's code keep what they had broken until then, and say so.

    Returns:
        The outcome for every image. It doesn't depend on ``batch_size`` beyond float rounding, unless the classifier is
        batch-dependent.

    Raises:
        TypeError, ValueError: images or labels that can't be used, see ``attacks.run``.
        RuntimeError: out of memory; names the remedy. Finished rows are kept in ``state``.
    """
    check_images(images, labels)
    job = Job(classifier, objective, images, labels, check_index(index, labels), parameters)
    kept = _State(state, job)
    clean = job.clean()
    standing, outcomes = dict[str, Mask](), dict[str, dict[str, Outcome]]()
    plan = _plan(parameters)
    with tqdm(total=sum(len(rows) for _, rows in plan), disable=not progress, unit="attack") as bar:
        for threat, rows in plan:
            left = standing.setdefault(threat.norm, clean.copy())
            found = outcomes.setdefault(threat.label, {})
            for spec in rows:
                bar.set_description(f"{spec.label} {threat.label}")
                name = f"{threat.label}/{spec.label}"
                if name not in kept.outcomes:
                    kept.add(name, job.attack(spec, threat, left if spec.survivors else clean, bar))
                found[spec.label] = kept.outcomes[name]
                left &= ~found[spec.label].broken
                bar.update()
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


class _State:
    """Finished rows of one evaluation, kept in a file if there is one."""

    def __init__(self, path: Path | None, job: Job) -> None:
        self.path = path
        self.outcomes: dict[str, Outcome] = {}
        if path is None:
            return
        self.key = job.key()
        unreadable = (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error)
        with contextlib.suppress(*unreadable), np.load(io.BytesIO(path.read_bytes())) as arrays:
            if str(arrays["key"]) == self.key:
                for name in {stored.rpartition("/")[0] for stored in arrays.files} - {""}:
                    values = {f.name: arrays[f"{name}/{f.name}"] for f in fields(Outcome)}
                    plain = {n: value if value.ndim else value.item() for n, value in values.items()}
                    self.outcomes[name] = Outcome(**plain)

    def add(self, name: str, outcome: Outcome) -> None:
        """Keep a finished row."""
        self.outcomes[name] = outcome
        if self.path is None:
            return
        buffer = io.BytesIO()
        arrays = {f"{n}/{f.name}": getattr(o, f.name) for n, o in self.outcomes.items() for f in fields(Outcome)}
        np.savez_compressed(buffer, allow_pickle=False, key=np.array(self.key), **arrays)
        write_atomic(self.path, buffer.getvalue())
