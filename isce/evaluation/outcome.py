"""What an evaluation found, image by image, and the figures that follow from it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from isce.evaluation.intervals import wilson

Mask = np.ndarray[Any, np.dtype[np.bool_]]


@dataclass(frozen=True)
class Outcome:
    """What one row of a suite did to each image at one eps; all arrays (N,).

    Attributes:
        attacked: bool, the attack was run on this image (not: misclassified anyway, or broken by an earlier row).
        broken: bool, classified right but misclassified at the verified point.
        rejected: bool, the attack returned a point outside ball or box, or not finite.
        last_broken: bool, broken by the attack's last point alone.
        first_success: int64, steps to the first misclassified point, -1 where none.
    """

    attacked: Mask
    broken: Mask
    rejected: Mask
    last_broken: Mask
    first_success: np.ndarray[Any, np.dtype[np.int64]]


@dataclass(frozen=True)
class Evaluation:
    """Everything one evaluation found, image by image.

    Attributes:
        clean: bool (N,), classified right.
        outcomes: by threat (``linf@0.1``, eps rising), then by row of the suite (``pgd50-training``).
        survivors_only: each row attacked only what the rows before it, and smaller eps, had not broken.
    """

    clean: Mask
    outcomes: dict[str, dict[str, Outcome]]
    survivors_only: bool

    def robust(self, threat: str, row: str | None = None) -> Mask:
        """Which images are robust, bool (N,).

        Args:
            threat: such as ``linf@0.1``.
            row: under this attack alone; None: under the whole suite at this eps and the smaller ones of the grid.
        """
        if row is not None:
            return self.clean & ~self.outcomes[threat][row].broken
        left = self.clean.copy()
        for label, outcomes in self.outcomes.items():
            for outcome in outcomes.values():
                left &= ~outcome.broken
            if label == threat:
                return left
        raise KeyError(threat)

    def figures(self) -> dict[str, Any]:
        """All accuracies as plain JSON values.

        Returns:
            ``{"clean": share, "threats": {"linf@0.1": {"attacks": {"pgd50-training": row}, "worst": share}}}`` with
            share = ``accuracy`` in [0, 1], ``correct`` of ``n`` images, Wilson 95% bounds ``low`` and ``high``, and
            row = share with counts ``attacked`` and ``rejected``, and ``last_accuracy``, the accuracy under the
            attack's last points alone. Rows count over all images, clean mistakes as not robust; with
            ``survivors_only`` a row's accuracy is what is left after it and everything before it.
        """
        threats: dict[str, Any] = {}
        before = self.clean
        for threat, outcomes in self.outcomes.items():
            rows: dict[str, Any] = {}
            for label, outcome in outcomes.items():
                base = before if self.survivors_only else self.clean
                left = base & ~outcome.broken
                before = before & ~outcome.broken
                rows[label] = _share(left) | {
                    "attacked": int(outcome.attacked.sum()),
                    "rejected": int(outcome.rejected.sum()),
                    "last_accuracy": float((base & ~outcome.last_broken).mean()),
                }
            threats[threat] = {"attacks": rows, "worst": _share(before)}
        return {"clean": _share(self.clean), "threats": threats}


def _share(mask: Mask) -> dict[str, Any]:
    correct, n = int(mask.sum()), len(mask)
    low, high = wilson(correct, n)
    return {"accuracy": correct / n, "correct": correct, "n": n, "low": low, "high": high}
