"""Projected ascent with momentum that drops each image the step it falls: the inside of our own attacks.

Step rule (ours): steps along the gradient's sign (l_inf) or the unit gradient (l_2) that fall linearly to nothing, plus
a quarter of the last move; with a tenth of the steps left every image returns to its best point so far and is refined
there. A falling step size alone, without the halving at checkpoints of APGD (Croce and Hein 2020), won at equal budgets
on standard, released and adversarially trained networks: it explores for as long as the budget allows.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from isce.attacks.ascent import Ascended, ascend, pull, uphill
from isce.attacks.base import Found, Problem, margin

FIRST_STEP = 2.0  # of a climb from afresh; half of it goes on from a good point
LAST_STEP = 0.01
MOMENTUM = 0.25
RETURN_AT = 0.9
#: An image counts as fallen inside the loop when its margin is below minus this share of its largest score: less may
#: be the rounding of another batch size.
CLEAR = 1e-6


def climb(
    problem: Problem,
    function: Ascended,
    constants: Tensor,
    start: Tensor,
    steps: int,
    *,
    first: float = FIRST_STEP,
    group: int = 1,
) -> Found:
    """Ascend, and drop each image the step it falls; of an image that stands hand back the point of lowest margin.

    Of a batch that must stay together nothing is dropped: its best step is the step with most images fallen.

    Args:
        problem: the batch.
        function: to be ascended.
        constants: of the function, one row for each image.
        start: points to start from (N, C, H, W), inside.
        steps: number of gradient steps.
        first: size of the first step, as a share of eps.
        group: so many rows of the batch in turn are one image: where one of them falls, the others are dropped, and
            hand back the clean image.
    """
    sizes = [first * (1 - step / steps) for step in range(steps)]
    sizes = [problem.threat.eps * max(size, LAST_STEP) for size in sizes]
    return _climb(problem, function, _start(problem, constants, start), sizes, group)


@dataclass
class _Climb:
    """The images still standing; every tensor has one row for each.

    Attributes:
        rows: position in the batch.
        y: label.
        ball: l_inf: lowest and highest value of each pixel, in ball and box; l_2: the image.
        constants: of the function that is ascended.
        point: current point.
        before: the point before it.
        best: point with the highest value so far.
        best_gradient: gradient there.
        best_value: the value there.
        lowest: point with the lowest margin so far; another than ``best`` where the function is not the margin.
        lowest_margin: the margin there.
        lost: a gradient was NaN: the climb was blind there, and the image has no outcome unless it falls.
        step: number of steps taken.
    """

    rows: Tensor
    y: Tensor
    ball: tuple[Tensor, ...]
    constants: Tensor
    point: Tensor
    before: Tensor
    best: Tensor
    best_gradient: Tensor
    best_value: Tensor
    lowest: Tensor
    lowest_margin: Tensor
    lost: Tensor
    step: int = 0

    def take(self, keep: Tensor) -> None:
        """Go on with the images at these positions alone."""
        for name, value in vars(self).items():
            if isinstance(value, Tensor):
                setattr(self, name, value.index_select(0, keep))
        self.ball = tuple(bound.index_select(0, keep) for bound in self.ball)


def _start(problem: Problem, constants: Tensor, start: Tensor) -> _Climb:
    x, eps = problem.x, problem.threat.eps
    linf = problem.threat.norm == "linf"
    return _Climb(
        rows=torch.arange(len(problem.y), device=problem.y.device),
        y=problem.y,
        ball=((x - eps).clamp_(0, 1), (x + eps).clamp_(0, 1)) if linf else (x,),
        constants=constants,
        point=start.clone(),  # these are written in place
        before=start.clone(),
        best=start.clone(),
        best_gradient=torch.zeros_like(start),
        best_value=torch.full_like(problem.y, -math.inf, dtype=torch.float64),
        lowest=start.clone(),
        lowest_margin=torch.full_like(problem.y, math.inf, dtype=torch.float64),
        lost=torch.zeros_like(problem.y, dtype=torch.bool),
    )


def _climb(problem: Problem, function: Ascended, climb: _Climb, sizes: list[float], group: int) -> Found:
    whole, steps, most = problem.batch_dependent, len(sizes), -1
    points, first = problem.x.clone(), torch.full_like(problem.y, -1)

    def look(point: Tensor) -> Tensor | None:
        nonlocal most
        logits, value, gradient = _look(problem, function, climb, gradient=climb.step < steps)
        if whole:
            count = int((logits.argmax(1) != climb.y).sum())
            if count > most:
                most = count
                points.copy_(point)
                first.fill_(climb.step)
        else:
            margins = margin(logits, climb.y).double()
            margins = margins.masked_fill(margins.isnan(), -math.inf)  # handed back, so that the driver rejects it
            fallen = margins < -CLEAR * logits.abs().amax(1)
            if bool(fallen.any()):
                rows = climb.rows[fallen]
                points[rows] = point[fallen]
                first[rows] = climb.step
                images = climb.rows // group
                keep = (~torch.isin(images, images[fallen])).nonzero()[:, 0]
                climb.take(keep)
                value, gradient, margins = (part[keep] for part in (value, gradient, margins))
            if len(climb.rows) == 0:
                return None
            _keep(margins < climb.lowest_margin, (climb.lowest, climb.point), (climb.lowest_margin, margins))
        _remember(climb, value, gradient)
        return gradient

    last = ascend(climb.point, look, lambda _, gradient, step: _advance(problem, climb, gradient, sizes, step), steps)
    if len(climb.rows):
        look(last)
    if whole:
        return Found(points.fill_(math.nan) if bool(climb.lost.any()) else points, first, climb.point)
    points[climb.rows] = climb.lowest
    points[climb.rows[climb.lost]] = math.nan
    return Found(points, first)  # it stops at the first success: no last point can be worse


def _look(problem: Problem, function: Ascended, climb: _Climb, *, gradient: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Logits, value and (if asked for; else zeros) gradient at the current points."""
    point = climb.point.detach().requires_grad_(gradient)
    with torch.set_grad_enabled(gradient):
        logits, embedding = problem.outputs(point)
    value, *pulled = pull(function, logits, climb.y, embedding, climb.constants)
    if not gradient:
        return logits, value, torch.zeros_like(point)
    parts = zip((logits, embedding), pulled, strict=True)
    ways = [(part, back) for part, back in parts if part is not None and back is not None]
    (found,) = torch.autograd.grad([part for part, _ in ways], point, [back for _, back in ways])
    return logits.detach(), value, found


def _remember(climb: _Climb, value: Tensor, gradient: Tensor) -> None:
    """Keep the points whose value is higher than the best so far."""
    pairs = ((climb.best, climb.point), (climb.best_gradient, gradient), (climb.best_value, value))
    _keep(value > climb.best_value, *pairs)


def _keep(better: Tensor, *pairs: tuple[Tensor, Tensor]) -> None:
    """Write the better rows of each second tensor over those of the first."""
    rows = better.nonzero()[:, 0]
    for kept, now in pairs:
        kept.index_copy_(0, rows, now.index_select(0, rows))  # three times as fast as torch.where


def _advance(problem: Problem, climb: _Climb, gradient: Tensor, sizes: list[float], step: int) -> Tensor:
    """Take one projected step with momentum; once, near the end, from the best point instead of the current one."""
    if step == round(RETURN_AT * len(sizes)):
        climb.point.copy_(climb.best)
        climb.before.copy_(climb.best)
        gradient = climb.best_gradient
    climb.lost |= gradient.isnan().flatten(1).any(1)
    gradient = gradient.nan_to_num(0.0)
    norm = problem.threat.norm
    move = climb.before.lerp_(climb.point, 1 + MOMENTUM).add_(uphill(gradient, norm), alpha=sizes[step])
    climb.before = climb.point
    climb.point = move.clamp_(*climb.ball) if norm == "linf" else problem.threat.project(move, *climb.ball)
    climb.step += 1
    return climb.point
