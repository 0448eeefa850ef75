"""What an evaluation found, image by image, and the figures that follow from it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from isce.evaluation.intervals import wilson

Mask = np.ndarray[Any, np.dtype[np.bool_]]


def _no_points() -> np.ndarray[Any, np.dtype[np.float32]]:
    return np.zeros((0, 1, 1, 1), dtype=np.float32)


@dataclass(frozen=True)
class Outcome:
    """What one row of a suite did to each image in one threat model; all masks (N,).

    Attributes:
        asked: bool, the row is about this image (all of them, unless the row names a subset).
        attacked: bool, the attack was run on this image (not: misclassified anyway, broken by an earlier row, or left
            when the attack failed).
        broken: bool, classified right but misclassified at the verified point.
        rejected: bool, the attack returned a point outside ball or box, or not finite.
        last_broken: bool, broken by the attack's last point alone.
        hit: bool, broken, and predicted as the class that a targeted attack was after.
        first_success: int64, steps to the first misclassified point, -1 where none.
        survivors: the row attacked only what the rows before it, and smaller eps, had not broken.
        targeted: the attack was after one wrong class.
        error: why the attack failed on some images, or empty.
        points: (k, C, H, W) float32, the adversarial points of the k broken images, where they are kept; else none.
    """

    asked: Mask
    attacked: Mask
    broken: Mask
    rejected: Mask
    last_broken: Mask
    hit: Mask
    first_success: np.ndarray[Any, np.dtype[np.int64]]
    survivors: bool = False
    targeted: bool = False
    error: str = ""
    points: np.ndarray[Any, np.dtype[np.float32]] = field(default_factory=_no_points)


@dataclass(frozen=True)
class Evaluation:
    """Everything one evaluation found, image by image.

    Attributes:
        clean: bool (N,), classified right.
        outcomes: by threat (``linf@0.1``; eps rising within a norm), then by row of the suite (``pgd50-training``).
        batch_size: images that were attacked at once.
    """

    clean: Mask
    outcomes: dict[str, dict[str, Outcome]]
    batch_size: int

    def robust(self, threat: str, row: str | None = None) -> Mask:
        """Which images are robust, bool (N,).

        Args:
            threat: such as ``linf@0.1``.
            row: under this attack alone; None: under all rows of this threat and of smaller eps in the same norm.

        Raises:
            KeyError: no such threat or row.
        """
        if row is not None:
            return self.clean & ~self.outcomes[threat][row].broken
        left = self.clean.copy()
        for outcome in self._up_to(threat):
            left &= ~outcome.broken
        return left

    def worst_points(self, threat: str) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
        """The first adversarial point that was found for each image that is not robust, where points were kept.

        Returns:
            Positions among the images (k,), int64, rising; points (k, C, H, W), float32.
        """
        found: dict[int, np.ndarray[Any, Any]] = {}
        for outcome in self._up_to(threat):
            for position, point in zip(np.flatnonzero(outcome.broken), outcome.points, strict=False):
                found.setdefault(int(position), point)
        index = np.array(sorted(found), dtype=np.int64)
        return index, np.stack([found[i] for i in index.tolist()]) if found else _no_points()

    def asked(self, threat: str) -> Mask:
        """Which images at least one row of this threat is about, bool (N,): of the others nothing is known."""
        return np.logical_or.reduce([outcome.asked for outcome in self.outcomes[threat].values()])

    def _up_to(self, threat: str) -> Iterator[Outcome]:
        """Outcomes of a threat and, in the same norm, of smaller eps."""
        if threat not in self.outcomes:
            raise KeyError(threat)
        for label, outcomes in self.outcomes.items():
            if label.partition("@")[0] == threat.partition("@")[0]:
                yield from outcomes.values()
            if label == threat:
                return

    def figures(self) -> dict[str, Any]:
        """All accuracies as plain JSON values.

        Returns:
            ``{"clean": share, "threats": {"linf@0.1": {"attacks": {"pgd50-training": row}, "worst": share}}}`` with
            share = ``accuracy`` in [0, 1], ``correct`` of ``n`` images, Wilson 95% bounds ``low`` and ``high``, and
            row = share with counts ``attacked`` and ``rejected``, ``last_accuracy`` (under the attack's last points
            alone), ``survivors``, ``error`` where the attack failed, and for a targeted row ``target_success``: the
            share of its images that it brought to the target. Clean mistakes count as not robust. A row's accuracy is
            over the images it is about, the worst case over those that at least one row is about; a row on survivors
            alone gives what is left, after it and everything before it, of the images that they were about.
        """
        threats: dict[str, Any] = {}
        standing: dict[str, Mask] = {}
        for threat, outcomes in self.outcomes.items():
            before = standing.setdefault(threat.partition("@")[0], self.clean.copy())
            asked = np.zeros_like(self.clean)
            rows: dict[str, Any] = {}
            for label, outcome in outcomes.items():
                asked |= outcome.asked
                base, over = (before, asked) if outcome.survivors else (self.clean, outcome.asked)
                rows[label] = _row(base, over, outcome)
                before &= ~outcome.broken
            threats[threat] = {"attacks": rows, "worst": _share(before[asked])}
        return {"clean": _share(self.clean), "threats": threats}


def _row(base: Mask, over: Mask, outcome: Outcome) -> dict[str, Any]:
    row: dict[str, Any] = _share((base & ~outcome.broken)[over])
    row |= {
        "attacked": int(outcome.attacked.sum()),
        "rejected": int(outcome.rejected.sum()),
        "last_accuracy": float((base & ~outcome.last_broken)[over].mean()),
        "survivors": outcome.survivors,
    }
    if outcome.targeted:
        row["target_success"] = float(outcome.hit[over].mean())
    if outcome.error:
        row["error"] = outcome.error
    return row


def _share(mask: Mask) -> dict[str, Any]:
    correct, n = int(mask.sum()), len(mask)
    low, high = wilson(correct, n)
    return {"accuracy": correct / n, "correct": correct, "n": n, "low": low, "high": high}
