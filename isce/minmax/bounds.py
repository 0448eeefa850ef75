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
from isce.minmax.checks import check_logits, check_radius


def input_bound(logits: Tensor, target: Tensor, constants: float | Tensor, eps: float) -> Tensor:
    """Upper bound of the softmax cross-entropy over an input ball: I-SCE with m = K eps (module docstring).

    Args:
        logits: (N, C) finite logits at the ball's centres, C >= 2.
        target: (N,) int64 classes in [0, C).
        constants: K >= 0, or (C, C) with K[y, k] >= 0, bounding the move of f_k - f_y per unit of input norm.
        eps: the ball's radius, >= 0.

    Returns:
        (N,), differentiable in the logits.

    Raises:
        ValueError: if a shape, a class, a constant or eps is not as stated.
        TypeError: logits not floating point or labels not int64.
    """
    check_logits(logits, target)
    check_radius(eps, "eps")
    table = _table(constants, logits)
    return inference_softmax_cross_entropy(logits, target, table * eps, reduction="none")


def certified_radius(logits: Tensor, target: Tensor, constants: float | Tensor) -> Tensor:
    """Radius within which a right prediction can't change: min_{k != y} (f_y - f_k) / K_{yk}; 0 if it is wrong.

    Args:
        logits: (N, C) finite logits, C >= 2.
        target: (N,) int64 classes in [0, C).
        constants: as in ``input_bound``.

    Returns:
        (N,) in input units; infinite where no wrong class can move against the true one. On the open ball of this
        radius y keeps the largest score.

    Raises:
        ValueError: if a shape, a class or a constant is not as stated.
        TypeError: logits not floating point or labels not int64.
    """
    check_logits(logits, target)
    margin = logits.gather(1, target[:, None]) - logits
    radius = torch.where(margin > 0, margin / _table(constants, logits)[target], 0.0)
    return radius.scatter(1, target[:, None], torch.inf).amin(1)


def _table(constants: float | Tensor, logits: Tensor) -> Tensor:
    """Checked (C, C) table of constants, zero on the diagonal."""
    classes = logits.shape[1]
    given = torch.as_tensor(constants, dtype=logits.dtype, device=logits.device)
    if given.shape not in ((), (classes, classes)):
        raise ValueError(f"constants must be a number or ({classes}, {classes}), got {tuple(given.shape)}")
    if not (torch.isfinite(given) & (given >= 0)).all():
        raise ValueError("constants must be finite and not negative")
    off_diagonal = 1 - torch.eye(classes, dtype=logits.dtype, device=logits.device)
    return given * off_diagonal
