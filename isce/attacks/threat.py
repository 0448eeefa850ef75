"""The threat model: how far an image may be moved, and the check that it was not moved further."""

from __future__ import annotations

import math
import numbers
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

#: A point counts as inside when it leaves ball or box by no more than float rounding: this much, absolute plus
#: relative to eps. What is returned is then pulled back inside, and verified there.
TOLERANCE = 1e-6


Norm = Literal["linf", "l2", "l0", "spatial", "released"]


@dataclass(frozen=True)
class Threat:
    """What the adversary may do: move an image by at most ``eps`` in one norm, inside the box [0, 1].

    Args:
        norm: ``linf`` (largest change of one pixel value), ``l2`` (Euclidean over the whole image), ``l0`` (number of
            pixels changed, all their channels counted once); or ``spatial`` (moves pixels about) and ``released`` (the
            attack of the released script), which nothing but the box bounds.
        eps: radius in units of pixel values in [0, 1]: in (0, 1] for ``linf``, above 0 and finite for ``l2``; a whole
            number of pixels, at least 1, for ``l0``; 1, the whole box, for ``spatial`` and ``released``.

    Raises:
        ValueError: unknown norm, or eps out of range.
        TypeError: eps is no number.
    """

    norm: Norm
    eps: float

    def __post_init__(self) -> None:
        if self.norm not in get_args(Norm):
            raise ValueError(f"unknown norm {self.norm!r}; known: {', '.join(get_args(Norm))}")
        if isinstance(self.eps, bool) or not isinstance(self.eps, numbers.Real):
            raise TypeError(f"eps must be a number, got {self.eps!r}")
        allowed, fits = {
            "linf": ("in (0, 1] for linf", 0 < self.eps <= 1),
            "l2": ("above 0 and finite for l2", 0 < self.eps < math.inf),
            "l0": ("a whole number of pixels, at least 1, for l0", self.eps >= 1 and self.eps % 1 == 0),
        }.get(self.norm, (f"1 for {self.norm}", self.eps == 1))
        if not fits:
            raise ValueError(f"eps must be {allowed} (images lie in [0, 1]), got {self.eps}")

    @property
    def label(self) -> str:
        """Name in records and tables, such as ``linf@0.1``; ``spatial`` and ``released`` alone."""
        return self.norm if self.norm in ("spatial", "released") else f"{self.norm}@{self.eps:g}"

    @property
    def reach(self) -> float:
        """The largest distance that counts as inside: ``eps + TOLERANCE (1 + eps)``; for ``l0`` ``eps``."""
        return self.eps if self.norm == "l0" else self.eps + TOLERANCE * (1 + self.eps)

    def project(self, x_adv: Tensor, x: Tensor) -> Tensor:
        """Move points into the intersection of ball and box.

        For ``linf`` this is the nearest point, and for ``l0`` too: the ``eps`` pixels that changed most keep their
        change. For ``l2`` the nearest point is clip(x + t d) with d = x_adv - x and the largest t <= 1 that stays in
        the ball (Lagrange conditions, derived here); t is approached from below, so the outcome is always inside, and
        exact unless more than a few groups of pixels reach the box one after another.

        Args:
            x_adv: points (N, C, H, W).
            x: centres of the balls, in [0, 1], same shape.

        Returns:
            Points inside, same shape.
        """
        if self.norm == "l2":
            return self._project_l2(x_adv, x)
        if self.norm == "l0":
            return self._project_l0(x_adv, x)
        return x_adv.clamp(x - self.eps, x + self.eps).clamp_(0, 1)

    def _project_l0(self, x_adv: Tensor, x: Tensor) -> Tensor:
        boxed = x_adv.clamp(0, 1)
        change = (boxed - x).square().sum(1).flatten(1)
        kept = change.topk(min(int(self.eps), change.shape[1]), dim=1).indices
        mask = torch.zeros_like(change, dtype=torch.bool).scatter(1, kept, value=True)
        return torch.where(mask.view(len(x), 1, *x.shape[2:]), boxed, x)

    def _project_l2(self, x_adv: Tensor, x: Tensor) -> Tensor:
        delta = (x_adv - x).flatten(1)
        room = torch.where(delta > 0, 1 - x.flatten(1), x.flatten(1))  # way to the box, in the direction of delta
        size = delta.abs()
        scale = (self.eps / _norm(delta)).clamp(max=1)
        for _ in range(4):
            full = size * scale > room
            left = (self.eps**2 - room.square().mul(full).sum(1, keepdim=True)).clamp(min=0)
            free = size.square().mul(~full).sum(1, keepdim=True)
            scale = torch.maximum(scale, (left / free.clamp(min=torch.finfo(free.dtype).tiny)).sqrt()).clamp(max=1)
        moved = torch.minimum(size * scale, room) * delta.sign()
        moved = moved * (self.eps / _norm(moved)).clamp(max=1)  # the rounding of the loop above
        return (x + moved.view_as(x)).clamp(0, 1)

    def distance(self, x_adv: Tensor, x: Tensor) -> Tensor:
        """Distance of each point from its image in this norm (linf where only the box bounds), float64, (N,)."""
        delta = x_adv.double() - x.double()
        if self.norm == "l0":
            return (delta != 0).any(1).flatten(1).sum(1).double()
        delta = delta.flatten(1)
        return delta.square().sum(1).sqrt() if self.norm == "l2" else delta.abs().amax(1)

    def inside(self, x_adv: Tensor, x: Tensor) -> Tensor:
        """Which points lie in ball and box and are finite, bool (N,).

        Distance at most :attr:`reach`, pixel values in ``[-TOLERANCE, 1 + TOLERANCE]``.
        """
        return boxed(x_adv) & (self.distance(x_adv, x) <= self.reach)


def boxed(x: Tensor) -> Tensor:
    """Which images are finite and in the box [0, 1], up to ``TOLERANCE``, bool (N,)."""
    values = x.flatten(1)
    return ((values >= -TOLERANCE) & (values <= 1 + TOLERANCE)).all(1)  # False where a value is NaN


def _norm(delta: Tensor) -> Tensor:
    return delta.norm(dim=1, keepdim=True).clamp(min=torch.finfo(delta.dtype).tiny)
