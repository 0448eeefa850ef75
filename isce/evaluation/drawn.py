"""What an evaluation of a classifier that draws at random found, image by image and draw by draw."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from isce.evaluation.intervals import wilson_and_draws

Mask = np.ndarray[Any, np.dtype[np.bool_]]


@dataclass(frozen=True)
class Randomised:
    """Which images a randomised classifier gets right, at which of the fresh draws; all masks (N, draws).

    Attributes:
        draws: numbers of draws (``attack``, ``judge``) and ``steps``.
        clean: bool, of the images as they are.
        naive: bool, of the points of an attack on one fixed draw, by threat.
        knowing: bool, of the points of the adversary who averages over draws, by threat.

    Raises:
        RuntimeError: masks of different or no shape.
    """

    draws: dict[str, int]
    clean: Mask
    naive: dict[str, Mask]
    knowing: dict[str, Mask]

    def __post_init__(self) -> None:
        for mask in (self.clean, *self.naive.values(), *self.knowing.values()):
            if mask.dtype != bool or mask.shape != (len(self.clean), self.draws["judge"]):
                raise RuntimeError(f"masks must be images by draws, got {mask.dtype} {mask.shape}")
        if list(self.naive) != list(self.knowing):
            raise RuntimeError(f"threats differ: {list(self.naive)}, {list(self.knowing)}")

    def results(self) -> dict[str, Any]:
        """Mean accuracies over images and draws as plain JSON values.

        Returns:
            ``{"draws": {...}, "clean": share, "threats": {"linf@0.1": {"naive": share, "knowing": share}}}`` with
            share = ``accuracy`` in [0, 1] of ``n`` images, bounds ``low`` and ``high`` over images and draws
            (``wilson_and_draws`` of ``isce.evaluation.intervals``).
        """
        both = {"naive": self.naive, "knowing": self.knowing}
        threats = {t: {name: _drawn(found[t]) for name, found in both.items()} for t in self.knowing}
        return {"draws": dict(self.draws), "clean": _drawn(self.clean), "threats": threats}


def _drawn(right: Mask) -> dict[str, Any]:
    """Mean over images and draws, with its interval."""
    low, high = wilson_and_draws(right)
    return {"accuracy": float(right.mean()), "n": len(right), "low": low, "high": high}
