r"""Closed-form robust and optimistic counterparts of softmax cross-entropy over a box of logits (derived here).

With L_m(z, y) = log(1 + sum_{k != y} exp(z_k - z_y + m)) and ||d||_inf <= r, every difference z_k - z_y moves by at
most 2r, and d = r (1 - 2 e_y) moves all of them by 2r at once. The loss grows with each difference, so

    max_d SCE(z + d, y) = L_{2r}(z, y)   and   min_d SCE(z + d, y) = L_{-2r}(z, y).
"""

from __future__ import annotations

import torch
from torch import Tensor

from isce.losses.softmax import inference_softmax_cross_entropy
from isce.minmax.checks import check_logits, check_radius


def logit_box_maximum(logits: Tensor, target: Tensor, radius: float) -> Tensor:
    """Largest softmax cross-entropy when every logit may move by at most ``radius``: L_{2r}, differentiable.

    Args:
        logits: (N, C) finite, C >= 2.
        target: (N,) int64 classes in [0, C).
        radius: r >= 0, in units of the logits.

    Returns:
        (N,) the maximum, attained at d = r (1 - 2 e_y).

    Raises:
        ValueError: if a shape, a class or the radius is not as stated.
        TypeError: logits not floating point or labels not int64.
    """
    check_logits(logits, target)
    check_radius(radius)
    return inference_softmax_cross_entropy(logits, target, 2 * radius, reduction="none")


def logit_box_minimum(logits: Tensor, target: Tensor, radius: float) -> Tensor:
    """Least softmax cross-entropy when every logit may move by at most ``radius``: L_{-2r}, differentiable.

    Arguments and errors as :func:`logit_box_maximum`. The minimum is attained at d = -r (1 - 2 e_y).
    """
    check_logits(logits, target)
    check_radius(radius)
    return inference_softmax_cross_entropy(logits, target, -2 * radius, reduction="none")


def covering_inference(logits: Tensor, moved: Tensor, target: Tensor) -> Tensor:
    """The m with L_m(logits, y) = SCE(moved, y): the inference information that one move of the logits amounts to.

    Since L_m = log(1 + exp(m + g)) with g = log sum_{k != y} exp(z_k - z_y), it is g(moved) - g(logits) (derived
    here); L_m covers the move exactly if m is at least this.

    Args:
        logits: (N, C) finite, before the move.
        moved: (N, C) finite, after it.
        target: (N,) int64 classes in [0, C).

    Returns:
        (N,) float64, negative where the move lowered the loss.

    Raises:
        ValueError: if a shape or a class is not as stated.
        TypeError: logits not floating point or labels not int64.
    """
    check_logits(logits, target)
    check_logits(moved, target)
    if moved.shape != logits.shape:
        raise ValueError(f"moved must have the shape of logits, {tuple(logits.shape)}, got {tuple(moved.shape)}")
    return wrong_evidence(moved.double(), target) - wrong_evidence(logits.double(), target)


def wrong_evidence(logits: Tensor, target: Tensor) -> Tensor:
    """Evidence against the true class, log sum_{k != y} exp(z_k - z_y) = log(exp(SCE) - 1).

    It grows with SCE, and its gradient does not fade as p_y tends to 1 (derived here).

    Args:
        logits: (N, C).
        target: (N,) int64 classes in [0, C).

    Returns:
        (N,).
    """
    wrong = logits.scatter(1, target[:, None], -torch.inf)
    return torch.logsumexp(wrong, dim=1) - logits.gather(1, target[:, None])[:, 0]
