"""The matched adaptive attack: projected ascent on a choice of functions, dropping each image the step it falls.

Step rule (ours): steps of size ``2 eps (1 - i / n)`` along the gradient's sign (l_inf) or the unit gradient (l_2), plus
a quarter of the last move; with a tenth of the steps left every image returns to its best point so far and is refined
there. A falling step size alone, without the halving at checkpoints of APGD (Croce and Hein 2020), won at equal budgets
on standard, released and adversarially trained networks: it explores for as long as the budget allows.

Starts: the image itself first, then in turn random points and the best point so far with half the step. A restart
after the first stops halfway, lets ``SQUARES`` small squares for each of its steps be pushed at random to wherever the
margin falls (forward passes alone), and ascends from there: an adversarially trained network that hides its gradients
(MNIST at eps 0.3) fell to that where gradients from any start failed, and where squares alone took ten times as long.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from isce.attacks.ascent import Ascended, ascend, ascended, pull, unit
from isce.attacks.base import Found, Problem, margin
from isce.attacks.search import squares
from isce.attacks.spec import AttackSpec

FIRST_STEP = 2.0
LAST_STEP = 0.01
MOMENTUM = 0.25
RETURN_AT = 0.9
SQUARES = 3  # for each gradient step of a restart
SQUARE = 0.03  # share of the image's area
#: An image counts as fallen inside the loop when its margin is below minus this share of its largest score: less may
#: be the rounding of another batch size.
CLEAR = 1e-6


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


def matched(spec: AttackSpec, problem: Problem, restart: int) -> Found:
    """One restart of the matched attack with ``spec.steps`` gradient steps, and squares between them."""
    function, constants = ascended(spec.objective, problem.objective, problem.logits, problem.y, restart)
    informed = restart > 0 and restart % 2 == 0
    start = problem.random_start(restart) if restart % 2 else problem.best if informed else problem.x
    first = FIRST_STEP / 2 if informed else FIRST_STEP

    def climb(part: Problem, rows: Tensor | slice, start: Tensor, first: float, steps: int) -> Found:
        sizes = [first if spec.step_size is None else spec.step_size] * steps
        sizes = [part.threat.eps * max(size * (1 - i / steps), LAST_STEP) for i, size in enumerate(sizes)]
        return _climb(part, function, _start(part, constants[rows], start), sizes)

    if restart == 0 or problem.batch_dependent:
        return climb(problem, slice(None), start, first, spec.steps)
    half = (spec.steps + 1) // 2
    found = climb(problem, slice(None), start, first, half)
    rows = (found.first < 0).nonzero()[:, 0]
    if len(rows) == 0:
        return found
    part = problem.take(rows)
    shaken = squares(part, found.points[rows], [SQUARE] * SQUARES * spec.steps, restart)
    rest = climb(part, rows, shaken.points, FIRST_STEP / 2, spec.steps - half)
    first = torch.where(rest.first >= 0, half + rest.first, -1)
    return Found(found.points.index_copy(0, rows, rest.points), found.first.index_copy(0, rows, first))


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


def _climb(problem: Problem, function: Ascended, climb: _Climb, sizes: list[float]) -> Found:
    """Ascend, and drop each image the step it falls; of an image that stands hand back the point of lowest margin.

    Of a batch that must stay together nothing is dropped: its best step is the step with most images fallen.
    """
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
                keep = (~fallen).nonzero()[:, 0]
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
    linf = problem.threat.norm == "linf"
    # The largest entry first: squares may underflow. Not in place: a gradient may be one number, expanded.
    direction = gradient.sign() if linf else unit(unit(gradient, math.inf), 2)
    move = climb.before.lerp_(climb.point, 1 + MOMENTUM).add_(direction, alpha=sizes[step])
    climb.before = climb.point
    climb.point = move.clamp_(*climb.ball) if linf else problem.threat.project(move, *climb.ball)
    climb.step += 1
    return climb.point
