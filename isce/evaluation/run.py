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
        state: file that keeps every finished row. A row is taken from there if the network, the images, the row itself,
            the images that it attacks and the code are the same: so an interrupted evaluation goes on, one that ran out
            of memory too, and a suite that gained a row runs that row alone.

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
    kept = _State(state)
    clean = job.clean()
    standing, outcomes = dict[str, Mask](), dict[str, dict[str, Outcome]]()
    plan = _plan(parameters)
    with tqdm(total=sum(len(rows) for _, rows in plan), disable=not progress, unit="attack") as bar:
        for threat, rows in plan:
            left = standing.setdefault(threat.norm, clean.copy())
            found = outcomes.setdefault(threat.label, {})
            for spec in rows:
                bar.set_description(f"{spec.label} {threat.label}")
                name, images = f"{threat.label}/{spec.label}", left if spec.survivors else clean
                key = job.key(spec, threat, images) if state else ""
                outcome = kept.get(name, key)
                if outcome is None:
                    outcome = job.attack(spec, threat, images, bar)
                    kept.add(name, key, outcome)
                found[spec.label] = outcome
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
    """Finished rows of evaluations with their keys, in a file if there is one. A file that can't be read holds none."""

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self.outcomes: dict[str, tuple[str, Outcome]] = {}
        if path is None:
            return
        unreadable = (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error)
        with contextlib.suppress(*unreadable), np.load(io.BytesIO(path.read_bytes())) as arrays:
            for name in {stored.rpartition("/")[0] for stored in arrays.files} - {""}:
                values = {f.name: arrays[f"{name}/{f.name}"] for f in fields(Outcome)}
                plain = {n: value if value.ndim else value.item() for n, value in values.items()}
                self.outcomes[name] = (str(arrays[f"{name}/key"]), Outcome(**plain))

    def get(self, name: str, key: str) -> Outcome | None:
        """A row's outcome, if it is there under this key."""
        known, outcome = self.outcomes.get(name, ("", None))
        return outcome if known == key else None

    def add(self, name: str, key: str, outcome: Outcome) -> None:
        """Keep a finished row."""
        if self.path is None:
            return
        self.outcomes[name] = (key, outcome)
        arrays: dict[str, Any] = {}
        for row, (known, one) in self.outcomes.items():
            arrays |= {f"{row}/key": np.array(known), **{f"{row}/{f.name}": getattr(one, f.name) for f in fields(one)}}
        buffer = io.BytesIO()
        np.savez_compressed(buffer, allow_pickle=False, **arrays)
        write_atomic(self.path, buffer.getvalue())
