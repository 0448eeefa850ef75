"""Input checks that the min-max analysis shares."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from isce.losses.checks import check


def check_logits(logits: Tensor, target: Tensor) -> None:
    """Refuse logits and labels that are not a finite batch (N, C) with C >= 2 and int64 labels in [0, C).

    Raises:
        ValueError: a shape or a value is not as stated.
        TypeError: logits not floating point or labels not int64.
    """
    check(logits, target)
    if logits.ndim != 2:
        raise ValueError(f"logits must have shape (N, C), got {tuple(logits.shape)}")
    if not bool(torch.isfinite(logits).all()):
        raise ValueError("logits must be finite")
    low, high = int(target.min()), int(target.max())
    if low < 0 or high >= logits.shape[1]:
        raise ValueError(f"labels must lie in [0, {logits.shape[1]}), got {low if low < 0 else high}")


def check_radius(radius: float, name: str = "radius") -> None:
    """Refuse a radius that is negative or not finite (:class:`ValueError`); ``name`` is what the message calls it."""
    if not 0 <= radius < math.inf:
        raise ValueError(f"{name} must be finite and not negative, got {radius}")


def check_evaluation(classifier: nn.Module) -> None:
    """Refuse a classifier of which a part is in training mode: its logits are not those it predicts with."""
    if any(module.training for module in classifier.modules()):
        raise ValueError("the classifier is in training mode; call classifier.eval() first")
