"""I-SCE as an upper bound of the inner maximum over an input ball, and the certificate that goes with it.

If on the eps-ball around x every score difference f_k - f_y moves by at most K_{yk} eps, then (the loss grows with
each difference)

    max_{||d|| <= eps} SCE(f(x + d), y) <= L_m(f(x), y)   with m[y, k] = K_{yk} eps,

and f_y(x) - f_k(x) > K_{yk} eps for every k != y certifies the prediction on the ball. One constant K = max K_{yk}
gives the scalar form (derived here; with K = sqrt(2) Lip(f) in l_2 it is the margin of Tsuzuku, Sato and Sugiyama
2018, "Lipschitz-Margin Training").
"""

from __future__ import annotations

import torch
from torch import Tensor

from isce.losses.softmax import inference_softmax_cross_entropy
from isce.minmax.checks import check_radius, check_scores


def input_bound(scores: Tensor, target: Tensor, constants: float | Tensor, eps: float) -> Tensor:
    """Upper bound of the softmax cross-entropy over an input ball: I-SCE with m = K eps (module docstring).

    Args:
        scores: (N, C) finite scores at the ball's centres, C >= 2.
        target: (N,) int64 classes in [0, C).
        constants: K >= 0, or (C, C) with K[y, k] >= 0, bounding the move of f_k - f_y per unit of input norm.
        eps: the ball's radius, >= 0.

    Returns:
        (N,), differentiable in the scores.

    Raises:
        ValueError: if a shape, a class, a constant or eps is not as stated.
        TypeError: scores not floating point or labels not int64.
    """
    check_scores(scores, target)
    check_radius(eps, "eps")
    table = _table(constants, scores)
    return inference_softmax_cross_entropy(scores, target, table * eps, reduction="none")


def certified_radius(scores: Tensor, target: Tensor, constants: float | Tensor) -> Tensor:
    """Radius within which a right prediction can't change: min_{k != y} (f_y - f_k) / K_{yk}; 0 if it is wrong.

    Args:
        scores: (N, C) finite scores, C >= 2.
        target: (N,) int64 classes in [0, C).
        constants: as in ``input_bound``.

    Returns:
        (N,) in input units; infinite where no wrong class can move against the true one. On the open ball of this
        radius y keeps the largest score.

    Raises:
        ValueError: if a shape, a class or a constant is not as stated.
        TypeError: scores not floating point or labels not int64.
    """
    check_scores(scores, target)
    margin = scores.gather(1, target[:, None]) - scores
    radius = torch.where(margin > 0, margin / _table(constants, scores)[target], 0.0)
    return radius.scatter(1, target[:, None], torch.inf).amin(1)


def _table(constants: float | Tensor, scores: Tensor) -> Tensor:
    """Checked (C, C) table of constants, zero on the diagonal."""
    classes = scores.shape[1]
    given = torch.as_tensor(constants, dtype=scores.dtype, device=scores.device)
    if given.shape not in ((), (classes, classes)):
        raise ValueError(f"constants must be a number or ({classes}, {classes}), got {tuple(given.shape)}")
    if not (torch.isfinite(given) & (given >= 0)).all():
        raise ValueError("constants must be finite and not negative")
    off_diagonal = 1 - torch.eye(classes, dtype=scores.dtype, device=scores.device)
    return given * off_diagonal
