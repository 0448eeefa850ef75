"""Bad input is refused before any work is lost, with one error that names the value and what is allowed."""

from __future__ import annotations

import torch
from torch import Tensor


def check_index(index: Tensor | None, y: Tensor) -> Tensor:
    """Positions of the images in their data set; 0 to N - 1 where none are given.

    Raises:
        TypeError: not int64.
        ValueError: not one position >= 0 for each label.
    """
    if index is None:
        return torch.arange(len(y), device=y.device)
    if index.dtype != torch.int64:
        raise TypeError(f"index must be int64, got {index.dtype}")
    if index.shape != y.shape or bool((index < 0).any()):
        raise ValueError(f"index must hold one position >= 0 for each of {len(y)} images, got {tuple(index.shape)}")
    return index.to(y.device)


def check_images(x: Tensor, y: Tensor) -> None:
    """Refuse images and labels that no attack or evaluation can be run on.

    Args:
        x: images, should be floating point (N, C, H, W) in [0, 1], N >= 1.
        y: labels, should be int64 (N,), >= 0, on the same device.

    Raises:
        TypeError: images that aren't floating point, labels that aren't int64.
        ValueError: wrong shape, no images, values outside [0, 1] or NaN, negative labels, different devices.
    """
    if not x.is_floating_point():
        raise TypeError(f"images must be floating point in [0, 1], got {x.dtype}")
    if y.dtype != torch.int64:
        raise TypeError(f"labels must be int64, got {y.dtype}")
    if x.ndim != 4:
        raise ValueError(f"images must have shape (N, C, H, W), got {tuple(x.shape)}")
    if x.numel() == 0:
        raise ValueError(f"empty batch: images have shape {tuple(x.shape)}")
    if y.shape != x.shape[:1]:
        raise ValueError(f"labels must have shape ({len(x)},) as there are {len(x)} images, got {tuple(y.shape)}")
    if x.device != y.device:
        raise ValueError(f"images and labels must be on one device, got {x.device} and {y.device}")
    low, high = (float(v) for v in torch.aminmax(x.detach()))
    if not (low >= 0 and high <= 1):  # also where NaN
        raise ValueError(f"images must lie in [0, 1] without NaN, got values from {low:g} to {high:g}")
    if int(y.min()) < 0:
        raise ValueError(f"labels must be at least 0, got {int(y.min())}")


def check_scores(scores: Tensor, y: Tensor) -> None:
    """Refuse a classifier whose clean scores can't be attacked.

    Raises:
        ValueError: scores not (N, K) with K >= 2, not finite, or a label outside [0, K).
    """
    if scores.ndim != 2 or len(scores) != len(y) or scores.shape[1] < 2:
        raise ValueError(f"scores must have shape ({len(y)}, classes >= 2), got {tuple(scores.shape)}")
    if int(y.max()) >= scores.shape[1]:
        raise ValueError(f"labels must lie in [0, {scores.shape[1]}), got {int(y.max())}")
    if not bool(torch.isfinite(scores).all()):
        raise ValueError("the classifier's scores of clean images are not finite")
