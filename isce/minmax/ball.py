r"""Robust and optimistic counterparts of softmax cross-entropy over an l_2 ball of logits, with certified bounds.

Both extremes are scalar problems (derived here). Write C for the number of classes, y for the true one and
f(d) = SCE(z + d, y) = log(1 + sum_{k != y} exp(a_k + d_k - d_y)) with a_k = z_k - z_y. f is convex, its gradient
p - e_y is never zero, so both extremes over ||d||_2 <= r lie on the sphere and satisfy p - e_y = mu d, where mu is
positive at the maximum and negative at the minimum. Hence d_y = -+ sum_{k != y} |d_k|, and with w_k = |d_k|:

*Minimum* (a convex problem): w_k exp(w_k) = b exp(z_k) for some b > 0. Every w_k grows with b, so
rho = sum w_k^2 + (sum w_k)^2 = r^2 has one root, found by bisection. The minimum is at most the Frank-Wolfe gap
<grad f, d> + r ||grad f||_2 below f(d).

*Maximum* (of a convex function, so no convex problem): w_k exp(-w_k) = b exp(z_k) for some b > 0, with one root
w_k <= 1 and one w_k >= 1.

1. At most one class has w_k > 1, that is p_k > mu. The second-order condition at a maximum on the sphere is
   v'(H - mu I)v <= 0 for v orthogonal to d, with H = diag(p) - pp'. If classes i and j both had p > mu, then
   v = p_j e_i - p_i e_j would be orthogonal to d and to p, and v'Hv = p_i v_i^2 + p_j v_j^2 > mu ||v||^2: a
   contradiction.
2. If there is such a class, it has the largest wrong logit: if a_i > a_j and d_i < d_j, exchanging d_i and d_j
   raises f (classes with equal logits can be exchanged freely).
3. So with t = w of the largest wrong logit, all else follows from t: b = t exp(-t) exp(-z_top), and w_k <= 1 is the
   smaller root, which grows with t for t <= 1 and falls for t >= 1. Every maximum is a root of the scalar equation
   rho(t) = r^2 on r / sqrt(C (C-1)) <= t <= r / sqrt(2). It can have several roots; branch and bound over intervals
   of t finds all that matter.
4. On an interval the w_k, rho and mu = 1 / (sum w + b exp(-sum w)) are enclosed through their monotonicity. If the
   maximum d* lies in it, then f(d*) <= f(d0) + <mu d*, d* - d0> = f(d0) + mu/2 (r^2 - rho(d0) + ||d* - d0||^2) for
   d0 at the interval's left end (convexity of f): an upper bound whose error is quadratic in the interval's length.

The bounds hold in exact arithmetic; they are computed in float64 and widened by 1e-12 (relative) for its rounding,
which suffices for logits and radii up to about 1e3.
"""

from __future__ import annotations

import itertools
import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from isce.minmax.checks import check_radius, check_scores

_SLACK = 1e-12
_FIRST_CELLS = 16
_MAX_LEVELS = 40


class Extremum(NamedTuple):
    """A certified extreme value, per example.

    Attributes:
        value: (N,) float64, the loss that ``shift`` attains.
        lower: (N,) float64, the true extreme value is not below it.
        upper: (N,) float64, the true extreme value is not above it.
        shift: (N, C) float64, the change of the logits, of l_2 norm at most the radius.
    """

    value: Tensor
    lower: Tensor
    upper: Tensor
    shift: Tensor


def logit_ball_minimum(logits: Tensor, target: Tensor, radius: float) -> Extremum:
    """Least softmax cross-entropy over an l_2 ball of logits, the optimistic counterpart (see the module's docstring).

    Args:
        logits: (N, C) finite, C >= 2.
        target: (N,) int64 classes in [0, C).
        radius: r >= 0, the ball's radius in units of the logits.

    Returns:
        The attained value, which is also the upper bound, and the lower bound from the Frank-Wolfe gap.

    Raises:
        ValueError: if a shape, a class or the radius is not as stated.
        TypeError: logits not floating point or labels not int64.
    """
    check_scores(logits, target)
    check_radius(radius)
    wrong, order = _wrong_logits(logits, target)
    if radius == 0:
        return _still(wrong)
    behind = wrong[:, :1] - wrong
    low, high = (torch.full_like(wrong[:, :1], t) for t in _top_range(radius, wrong.shape[1]))
    for _ in range(64):
        top = (low + high) / 2
        outside = _squared_norm(_product_log(top + torch.log(top) - behind)) > radius**2
        low, high = torch.where(outside, low, top), torch.where(outside, top, high)
    weight = _product_log(low + torch.log(low) - behind)
    shift = _to_sphere(torch.cat([-weight, weight.sum(1, keepdim=True)], dim=1), radius)
    value = _loss(wrong, shift)
    probability = torch.softmax(F.pad(wrong, (0, 1)) + shift, dim=1)[:, :-1]
    gradient = torch.cat([probability, -probability.sum(1, keepdim=True)], dim=1)
    gap = (gradient * shift).sum(1) + radius * gradient.norm(dim=1)
    lower = (value - gap.clamp(min=0) - _SLACK * gradient.norm(dim=1) * radius) * (1 - _SLACK)
    return Extremum(value, lower.clamp(min=0), value * (1 + _SLACK), _restore(shift, order, target))


def logit_ball_maximum(logits: Tensor, target: Tensor, radius: float, tolerance: float = 1e-9) -> Extremum:
    """Largest softmax cross-entropy over an l_2 ball of logits, the robust counterpart (see the module's docstring).

    Args:
        logits: (N, C) finite, C >= 2.
        target: (N,) int64 classes in [0, C).
        radius: r >= 0, the ball's radius in units of the logits.
        tolerance: the branch and bound stops once upper - lower is at most this (plus rounding) for every example,
            or after 40 bisections; the returned bounds are certified either way.

    Returns:
        The attained value, which is also the lower bound, and the certified upper bound.

    Raises:
        ValueError: if a shape, a class, the radius or the tolerance is not as stated.
        TypeError: logits not floating point or labels not int64.
    """
    check_scores(logits, target)
    check_radius(radius)
    if not tolerance > 0:
        raise ValueError(f"tolerance must be positive, got {tolerance}")
    wrong, order = _wrong_logits(logits, target)
    if radius == 0:
        return _still(wrong)
    value, _, _, shift = _still(wrong)
    ceiling = open_ceiling = torch.full_like(value, -math.inf)
    owner, left, right = _first_cells(wrong, radius)
    for _ in range(_MAX_LEVELS):
        start, bound, holds_root = _bound_cells(wrong[owner], left, right, radius)
        reached = _loss(wrong[owner], start)
        value, shift = _keep_best(value, shift, owner, reached, start)
        settled = bound <= value[owner] + tolerance
        ceiling = ceiling.scatter_reduce(0, owner[holds_root & settled], bound[holds_root & settled], "amax")
        split = holds_root & ~settled
        owner, left, right, unsettled = owner[split], left[split], right[split], bound[split]
        if owner.numel() == 0:
            break
        middle = (left + right) / 2
        open_ceiling = ceiling.scatter_reduce(0, owner, unsettled, "amax")
        owner, left, right = owner.repeat(2), torch.cat([left, middle]), torch.cat([middle, right])
    upper = torch.maximum(open_ceiling if owner.numel() else ceiling, value) * (1 + _SLACK)
    return Extremum(value, value * (1 - _SLACK), upper, _restore(shift, order, target))


def _still(wrong: Tensor) -> Extremum:
    """The extremum over a ball of radius 0."""
    shift = F.pad(torch.zeros_like(wrong), (0, 1))
    value = _loss(wrong, shift)
    return Extremum(value, value, value, shift)


def _first_cells(wrong: Tensor, radius: float) -> tuple[Tensor, Tensor, Tensor]:
    """Owner (row of ``wrong``) and ends of the first intervals of t; 1 is an end, since the w_k turn there."""
    low, high = _top_range(radius, wrong.shape[1])
    stops = [low, 1.0, high] if low < 1 < high else [low, high]
    ends = torch.cat(
        [
            torch.linspace(a, b, _FIRST_CELLS + 1, dtype=torch.float64, device=wrong.device)[i > 0 :]
            for i, (a, b) in enumerate(itertools.pairwise(stops))
        ]
    )
    rows = torch.arange(wrong.shape[0], device=wrong.device)
    cells = len(ends) - 1
    return rows.repeat_interleave(cells), ends[:-1].repeat(len(rows)), ends[1:].repeat(len(rows))


def _bound_cells(wrong: Tensor, left: Tensor, right: Tensor, radius: float) -> tuple[Tensor, Tensor, Tensor]:
    """Steps 3 and 4 of the derivation on one interval of t per row of ``wrong``.

    Returns:
        The shift at the left end, scaled to the sphere; the upper bound of the loss at any maximum in the interval;
        and whether the interval can hold one.
    """
    behind = wrong[:, :1] - wrong[:, 1:]
    at_left = torch.cat([left[:, None], _smaller_root(_excess(left)[:, None] + behind)], dim=1)
    at_right = torch.cat([right[:, None], _smaller_root(_excess(right)[:, None] + behind)], dim=1)
    low, high = torch.minimum(at_left, at_right), torch.maximum(at_left, at_right)
    sum_low, sum_high = low.sum(1), high.sum(1)
    square = radius**2
    holds_root = (_squared_norm(low)[:, 0] <= square * (1 + _SLACK)) & (
        _squared_norm(high)[:, 0] >= square * (1 - _SLACK)
    )
    log_b = torch.stack([t.log() - t - wrong[:, 0] for t in (left, right)])
    mu_low = 1 / (sum_high + torch.exp(log_b.amax(0) - sum_low))
    mu_high = 1 / (sum_low + torch.exp(log_b.amin(0) - sum_high))
    start = torch.cat([at_left, -at_left.sum(1, keepdim=True)], dim=1)
    reach = ((high - low) ** 2).sum(1) + (sum_high - sum_low) ** 2
    rise = square - _squared_norm(at_left)[:, 0] + reach
    bound = _loss(wrong, start) + torch.where(rise > 0, mu_high, mu_low) * rise / 2
    return _to_sphere(start, radius), bound, holds_root


def _keep_best(value: Tensor, shift: Tensor, owner: Tensor, reached: Tensor, start: Tensor) -> tuple[Tensor, Tensor]:
    """Raise every example's attained value to the best one its intervals reached."""
    best = value.scatter_reduce(0, owner, reached, "amax")
    winner = (reached > value[owner]) & (reached == best[owner])
    shift = shift.clone()
    shift[owner[winner]] = start[winner]
    return best, shift


def _wrong_logits(logits: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Differences z_k - z_y of the wrong classes, float64, largest first, and the classes in that order."""
    scores = logits.detach().double()
    difference = scores - scores.gather(1, target[:, None])
    difference = difference.scatter(1, target[:, None], -math.inf)
    ordered, order = difference.sort(dim=1, descending=True)
    return ordered[:, :-1], order[:, :-1]


def _restore(shift: Tensor, order: Tensor, target: Tensor) -> Tensor:
    """Put a shift (ordered wrong classes, then the true one) back into the order of the logits."""
    return torch.empty_like(shift).scatter_(1, torch.cat([order, target[:, None]], dim=1), shift)


def _top_range(radius: float, wrong_classes: int) -> tuple[float, float]:
    """Range of the largest w: its square is between r^2 / (n (n + 1)), all equal, and r^2 / 2, all others zero."""
    low, high = radius / math.sqrt(wrong_classes * (wrong_classes + 1)), radius / math.sqrt(2)
    return low * (1 - _SLACK), high * (1 + _SLACK)


def _to_sphere(shift: Tensor, radius: float) -> Tensor:
    """Scale a shift to the radius, from inside by a rounding so that its norm never exceeds it."""
    norm = shift.norm(dim=1, keepdim=True).clamp(min=torch.finfo(shift.dtype).tiny)
    return shift * (radius * (1 - 1e-15) / norm)


def _loss(wrong: Tensor, shift: Tensor) -> Tensor:
    """Softmax cross-entropy from the wrong classes' differences and a shift whose last entry is the true class's."""
    evidence = torch.logsumexp(wrong + shift[:, :-1] - shift[:, -1:], dim=1)
    return torch.logaddexp(evidence, torch.zeros_like(evidence))


def _squared_norm(weight: Tensor) -> Tensor:
    """Rho = ||d||^2 for |d_k| = w_k on the wrong classes and |d_y| = sum w; shape (N, 1)."""
    return (weight**2).sum(1, keepdim=True) + weight.sum(1, keepdim=True) ** 2


def _excess(t: Tensor) -> Tensor:
    """Compute t - 1 - log t >= 0, without cancellation next to 1."""
    return (t - 1) - torch.log1p(t - 1)


def _smaller_root(excess: Tensor) -> Tensor:
    """Root w in (0, 1] of w - 1 - log w = excess >= 0, by Newton in u = log w from the left, where it is monotone."""
    excess = excess.clamp(min=0, max=700)
    u = torch.maximum(-1 - excess, torch.log1p(-torch.sqrt(2 * excess).clamp(max=1 - 1e-12)))
    for _ in range(12):
        slope = torch.expm1(u)
        u = (u + (excess + u - slope) / slope.clamp(max=-1e-300)).clamp(max=0)
    return u.exp()


def _product_log(t: Tensor) -> Tensor:
    """Root w > 0 of w + log w = t (the Wright omega function), by Newton in u = log w from the right."""
    u = torch.where(t > 1, t.clamp(min=1).log(), t)
    for _ in range(12):
        w = u.exp()
        u = u - (u + w - t) / (1 + w)
    return u.exp()
