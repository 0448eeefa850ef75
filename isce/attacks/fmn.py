"""Minimum-norm attacks: each image has a ball of its own, which shrinks where the point is adversarial, else grows.

The idea is that of FMN (Pintor et al. 2021): the radius follows the distance to the boundary, estimated from margin and
gradient until a first adversarial point is known, and the point follows the margin's gradient inside it. Ours are the
steps, which are shares of the image's own radius, and their momentum, which takes a tenth off the median l_2 distance.

The nearest wrong class is often not the class that the margin runs after, whatever the number of steps. ``nearest``
looks in the direction of several.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from isce.attacks.ascent import ascended, pull, uphill
from isce.attacks.base import Found, Problem, margin
from isce.attacks.climb import CLEAR
from isce.attacks.spec import AttackSpec

STEP = (1.0, 0.01)  # share of the radius: first and last
GROWTH = (0.05, 0.001)  # of the radius, up or down: first and last
MOMENTUM = 0.5
CLASSES = 5  # that `nearest` tries, beside the margin


class _Path(NamedTuple):
    """What one descent met: its nearest adversarial points, their distance (inf: none), and where it was blind."""

    points: Tensor
    distance: Tensor
    lost: Tensor


def fmn(spec: AttackSpec, problem: Problem, restart: int) -> Found:
    """Return the nearest adversarial point that ``spec.steps`` gradient steps met; the image where they met none.

    NaN where a gradient was not finite, unless the point lies within eps: what else is nearer was not seen.
    """
    return _found(problem, _descend(spec, problem, "margin"))


def nearest(spec: AttackSpec, problem: Problem, restart: int) -> Found:
    """Return the nearest point of :func:`fmn` and of as many steps towards each of the most promising wrong classes.

    These are the five highest wrong classes in the clean logits, all where there are fewer.
    """
    best = _descend(spec, problem, "margin")
    for rank in range(min(CLASSES, problem.logits.shape[1] - 1)):
        other = _descend(spec, problem, "targeted", rank)
        better = other.distance < best.distance
        points = torch.where(_wide(better), other.points, best.points)
        best = _Path(points, torch.minimum(best.distance, other.distance), best.lost | other.lost)
    return _found(problem, best)


def _found(problem: Problem, path: _Path) -> Found:
    blind = path.lost & (path.distance > problem.threat.eps)
    return Found(torch.where(_wide(blind), math.nan, path.points), torch.full_like(problem.y, -1))


def _descend(spec: AttackSpec, problem: Problem, objective: str, rank: int = 0) -> _Path:
    """Follow the boundary for ``spec.steps`` steps, up a function of :func:`isce.attacks.ascent.ascended`."""
    x, y, n = problem.x, problem.y, len(problem.y)
    linf = problem.threat.norm == "linf"
    function, constants = ascended(objective, problem.objective, problem.logits, y, rank)
    widest = 1.0 if linf else x[0].numel() ** 0.5
    point, before, best = x.clone(), x.clone(), x.clone()
    least, radius = x.new_full((n,), math.inf), x.new_zeros(n)
    lost = torch.zeros_like(y, dtype=torch.bool)
    for step in range(spec.steps + 1):
        leaf = point.detach().requires_grad_()
        logits, embedding = problem.outputs(leaf)
        _, back, _ = pull(function, logits, y, embedding, constants)
        (gradient,) = torch.autograd.grad(logits, leaf, back)
        away, distance = margin(logits.detach(), y), _length(point - x, linf=linf)
        beyond = -rounding(logits.detach(), y)
        lost |= ~gradient.isfinite().flatten(1).all(1) | away.isnan() | beyond.isnan()
        gradient = gradient.nan_to_num(0.0)
        over = away < beyond
        better = over & (distance < least)
        least, best = torch.where(better, distance, least), torch.where(_wide(better), point, best)
        if step == spec.steps:
            break
        cosine = (1 + math.cos(math.pi * step / spec.steps)) / 2
        share, growth = (last + (first - last) * cosine for first, last in (STEP, GROWTH))
        # An estimate alone is too small where the box stops pixels, and just the boundary where the network is linear.
        # Logits may be more precise than images.
        estimate = distance + _reach(away.clamp(min=0), gradient, linf=linf).to(distance)
        grown = torch.where(least < math.inf, radius, torch.maximum(radius, estimate)) * (1 + growth)
        radius = torch.where(over, torch.minimum(least, radius) * (1 - growth), grown).clamp(max=widest)
        moved = point + _wide(share * radius) * uphill(gradient, problem.threat.norm) + MOMENTUM * (point - before)
        before, point = point, _inside(moved, x, radius, linf=linf)
    return _Path(best, least, lost)


def rounding(logits: Tensor, y: Tensor) -> Tensor:
    """What another size of the batch may move a margin by, (N,), in the precision of the logits.

    A share of the larger of the two scores that decide: a class that is masked by -1e9 must not set the scale.
    """
    rival = logits.scatter(1, y[:, None], -math.inf).amax(1)
    leading = torch.maximum(rival.abs(), logits.gather(1, y[:, None])[:, 0].abs())
    return CLEAR * torch.finfo(logits.dtype).eps / torch.finfo(torch.float32).eps * leading


def _reach(away: Tensor, gradient: Tensor, *, linf: bool) -> Tensor:
    """How far the boundary is (N,) if the margin falls at the rate of its gradient; inf where that is 0.

    In float64 where squares or sums leave the range of the gradient's own type.
    """
    slope, tiny = _length(gradient, linf=linf, dual=True), torch.finfo(gradient.dtype).tiny
    reach, good = away / slope.clamp(min=tiny), slope.isfinite() & (slope >= tiny)
    if bool(good.all()):
        return reach
    exact = _length(gradient.double(), linf=linf, dual=True).clamp(min=torch.finfo(torch.float64).tiny)
    return torch.where(good, reach, (away.double() / exact).to(reach))


def _wide(values: Tensor) -> Tensor:
    return values.view(-1, 1, 1, 1)


def _length(change: Tensor, *, linf: bool, dual: bool = False) -> Tensor:
    """Length of each image's change (N,), or of its gradient in the dual norm."""
    order = (1 if dual else math.inf) if linf else 2
    return torch.linalg.vector_norm(change.flatten(1), order, dim=1)


def _inside(point: Tensor, x: Tensor, radius: Tensor, *, linf: bool) -> Tensor:
    """Pull points into ball and box; here each image has a radius of its own, and any point inside will do."""
    if linf:
        return torch.minimum(torch.maximum(point, x - _wide(radius)), x + _wide(radius)).clamp(0, 1)
    change = point - x
    scale = radius / _length(change, linf=False).clamp(min=torch.finfo(x.dtype).tiny)
    return (x + change * _wide(scale.clamp(max=1))).clamp(0, 1)
