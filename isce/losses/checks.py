"""Checks of parameters and calls: each says what is wrong and what is allowed."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def number(
    name: str, value: object, *, at_least: float = -math.inf, above: float = -math.inf, at_most: float = math.inf
) -> float:
    """``value`` as a finite float in the given range.

    Raises:
        TypeError: not a real number.
        ValueError: not finite, or out of range.
    """
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{name} must be a number, got {value!r}")
    if not math.isfinite(value) or value < at_least or value <= above or value > at_most:
        limits = [("at least", at_least), ("above", above), ("at most", at_most)]
        allowed = " and ".join(f"{word} {limit:g}" for word, limit in limits if math.isfinite(limit))
        raise ValueError(f"{name} must be {allowed or 'finite'}, got {value}")
    return float(value)


def numbers(name: str, value: object) -> Tensor:
    """``value`` (a number, nested sequences or a tensor) as a new finite floating-point tensor without gradient.

    Raises:
        TypeError: not numbers.
        ValueError: some not finite, or ragged.
    """
    if isinstance(value, bool | str):
        raise TypeError(f"{name} must be numbers, got {value!r}")
    try:
        tensor = value.detach().clone() if isinstance(value, Tensor) else torch.tensor(value)
    except ValueError as error:
        raise ValueError(f"{name} must have rows of equal length, got {value!r}") from error
    except (TypeError, RuntimeError) as error:
        raise TypeError(f"{name} must be numbers, got {value!r}") from error
    if not tensor.is_floating_point():
        tensor = tensor.to(torch.get_default_dtype())
    if not bool(tensor.isfinite().all()):
        raise ValueError(f"{name} must be finite, got {value}")
    return tensor


def class_dim(scores: Tensor) -> int:
    """Position of the class dimension: the second, or the only one."""
    return min(scores.dim() - 1, 1)


def check(scores: Tensor, target: Tensor, weight: Tensor | None = None) -> None:
    """Refuse scores, labels and class weights whose types or shapes don't fit; looks at no value.

    Raises:
        TypeError: scores not floating point, labels not int64.
        ValueError: shapes that don't fit, fewer than two classes, an empty batch.
    """
    if not scores.is_floating_point():
        raise TypeError(f"scores must be floating point, got {scores.dtype}")
    if target.dtype != torch.int64:
        raise TypeError(f"labels must be int64, got {target.dtype}")
    if scores.dim() == 0:
        raise ValueError("scores must have a class dimension: (N, C), (N, C, ...) or (C,)")
    dim = class_dim(scores)
    if target.shape != scores.shape[:dim] + scores.shape[dim + 1 :]:
        raise ValueError(
            f"labels must be shaped as scores {tuple(scores.shape)} without the class dimension {dim}, "
            f"got {tuple(target.shape)}"
        )
    if scores.shape[dim] < 2:
        raise ValueError(f"scores must be over at least 2 classes, got {tuple(scores.shape)}")
    if target.numel() == 0:
        raise ValueError(f"the batch is empty: scores {tuple(scores.shape)}")
    if weight is not None and weight.shape != (scores.shape[dim],):
        raise ValueError(
            f"weight must have one entry for each of {scores.shape[dim]} classes, got {tuple(weight.shape)}"
        )


def explain_labels(target: Tensor, num_classes: int, ignore_index: int) -> None:
    """Say which label is wrong, after a gather by label has failed; silent where the labels can't be read.

    Called on failure only, so that the labels cost no look on the way and nothing waits for the device.

    Raises:
        ValueError: some label is neither in [0, num_classes) nor ``ignore_index``.
    """
    try:
        wrong = target[((target < 0) | (target >= num_classes)) & (target != ignore_index)].unique().tolist()
    except RuntimeError:  # inside a transform such as vmap, or after a device-side assertion
        return
    if wrong:
        raise ValueError(f"labels must be in [0, {num_classes}) or ignore_index {ignore_index}, got {wrong[:5]}")
