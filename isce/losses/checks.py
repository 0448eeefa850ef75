"""Checks of parameters and calls: each says what is wrong and what is allowed."""

from __future__ import annotations

import math
import operator
from collections.abc import Mapping
from numbers import Real
from typing import TypeVar

import torch
from torch import Tensor

Value = TypeVar("Value")


def known(kind: str, name: str, table: Mapping[str, Value]) -> Value:
    """``table[name]``, or a :class:`ValueError` that lists the names of the table."""
    if name not in table:
        raise ValueError(f"unknown {kind} {name!r}; known: {', '.join(sorted(table))}")
    return table[name]


def number(
    name: str, value: object, *, at_least: float = -math.inf, above: float = -math.inf, at_most: float = math.inf
) -> float:
    """``value``, a real number of Python or NumPy, as a finite float in the given range.

    Raises:
        TypeError: not a real number; a bool is none.
        ValueError: not finite, or out of range.
    """
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(f"{name} must be a number, got {value!r}")
    try:
        found = float(value)
    except OverflowError:
        found = math.inf
    if not math.isfinite(found) or found < at_least or found <= above or found > at_most:
        limits = [("at least", at_least), ("above", above), ("at most", at_most)]
        allowed = [f"{word} {limit:g}" for word, limit in limits if math.isfinite(limit)]
        if not (allowed and math.isfinite(found)):
            allowed = ["finite", *allowed]
        raise ValueError(f"{name} must be {' and '.join(allowed)}, got {value}")
    return found


def integer(name: str, value: object, *, at_least: float = -math.inf) -> int:
    """``value``, an integer of Python or NumPy, as an int in the given range.

    Raises:
        TypeError: not an integer; a bool is none.
        ValueError: out of range.
    """
    try:
        found = operator.index(value)  # pyright: ignore[reportArgumentType] - refuses what is none
    except TypeError:
        found = None
    if found is None or isinstance(value, bool | Tensor):
        raise TypeError(f"{name} must be an integer, got {value!r}")
    if found < at_least:
        raise ValueError(f"{name} must be at least {at_least:g}, got {value}")
    return found


def numbers(name: str, value: object) -> Tensor:
    """``value`` (a number, nested sequences or a tensor) as a new finite floating-point tensor without gradient.

    Raises:
        TypeError: not real numbers; bools are none.
        ValueError: some not finite, or ragged.
    """
    try:
        tensor = value.detach().clone() if isinstance(value, Tensor) else torch.tensor(value)
    except ValueError as error:
        raise ValueError(f"{name} must be finite numbers, in rows of equal length, got {value!r}") from error
    except (TypeError, RuntimeError) as error:
        raise TypeError(f"{name} must be numbers, got {value!r}") from error
    if tensor.dtype == torch.bool or tensor.is_complex():
        raise TypeError(f"{name} must be numbers, got {value!r}")
    if not tensor.is_floating_point():
        tensor = tensor.to(torch.get_default_dtype())
    if not bool(tensor.isfinite().all()):
        raise ValueError(f"{name} must be finite, got {value}")
    return tensor


def class_dim(logits: Tensor) -> int:
    """Position of the class dimension: the second, or the only one."""
    return min(logits.dim() - 1, 1)


def check_tensor(name: str, value: object) -> None:
    """Refuse (:class:`TypeError`) what isn't a tensor: a tuple, a list, an array, None."""
    if not isinstance(value, Tensor):
        raise TypeError(f"{name} must be a torch.Tensor, got {type(value).__name__}")


def check(logits: Tensor, target: Tensor, weight: Tensor | None = None, *, soft: bool = False) -> None:
    """Refuse logits, labels and class weights whose types or shapes don't fit; looks at no value.

    Args:
        logits: (N, C), (N, C, ...) or (C,).
        target: int64 labels, or probabilities where ``soft`` says so.
        weight: (C,) weight of each class.
        soft: whether floating-point probabilities, shaped as ``logits``, are allowed as well.

    Raises:
        TypeError: not tensors, logits not floating point, labels not int64.
        ValueError: shapes that don't fit, fewer than two classes, an empty batch.
    """
    check_tensor("logits", logits)
    check_tensor("target", target)
    if not logits.is_floating_point():
        raise TypeError(f"logits must be floating point, got {logits.dtype}")
    if logits.dim() == 0:
        raise ValueError("logits must have a class dimension: (N, C), (N, C, ...) or (C,)")
    dim, shape = class_dim(logits), tuple(logits.shape)
    labels_shape = logits.shape[:dim] + logits.shape[dim + 1 :]
    if soft and target.is_floating_point() and target.shape != labels_shape:
        if target.shape != logits.shape:
            raise ValueError(f"probabilities must be shaped as logits {shape}, got {tuple(target.shape)}")
    elif target.dtype != torch.int64:
        other = f" (or probabilities shaped as logits {shape})" if soft else ""
        raise TypeError(f"labels must be int64, got {target.dtype}{other}")
    elif target.shape != labels_shape:
        raise ValueError(
            f"labels must be shaped as logits {shape} without the class dimension {dim}, got {tuple(target.shape)}"
        )
    if logits.shape[dim] < 2:
        raise ValueError(f"logits must be over at least 2 classes, got {shape}")
    if logits.numel() == 0:
        raise ValueError(f"the batch is empty: logits {shape}")
    if weight is not None and weight.shape != (logits.shape[dim],):
        raise ValueError(
            f"weight must have one entry for each of {logits.shape[dim]} classes, got {tuple(weight.shape)}"
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
