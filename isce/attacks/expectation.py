"""Expectation over transformations (Athalye et al. 2018): one point against many draws of a randomised classifier.

The adversary wants to fool as large a share of the draws as possible. Attacks that stop where the mean over the draws
is first misclassified end on points that fool only a part of them. Here an ascent goes on until every draw of the
adversary's is misclassified by a clear margin, and each image keeps the point that fools most of these draws.

Nothing may look like robustness because it went wrong: a draw whose logits or gradients have another shape, or are not
finite, raises :class:`RuntimeError`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from isce.attacks.ascent import ascended, pull, uphill
from isce.attacks.base import Problem, margin, shaped
from isce.models.randomised import at

FIRST_STEP = 2.0  # as a share of eps; steps fall linearly to nothing
LAST_STEP = 0.01
RETURN_AT = 0.9  # share of the steps after which each image goes on from its best point
CLEAR = 1.0  # margin of a draw that is fooled well enough, in units of the spread of the image's clean logits


@dataclass
class Standing:
    """How images stand against draws.

    Attributes:
        right: number of draws that classify the image right (N,), int64.
        margin: mean of the raw margins over the draws (N,), float64.
        least: largest of them (N,), of the draw that is fooled least, float64.
    """

    right: Tensor
    margin: Tensor
    least: Tensor

    def below(self, other: Standing) -> Tensor:
        """Which images stand worse than in the other, bool (N,): fewer draws right, or as many and a lower margin."""
        return (self.right < other.right) | ((self.right == other.right) & (self.margin < other.margin))

    def take(self, rows: Tensor) -> Standing:
        """Of these images alone."""
        return Standing(self.right[rows], self.margin[rows], self.least[rows])

    def put(self, rows: Tensor, other: Standing) -> None:
        """Write that of other images over these rows."""
        self.right[rows], self.margin[rows], self.least[rows] = other.right, other.margin, other.least


def outputs(problem: Problem, point: Tensor, draw: int) -> tuple[Tensor, Tensor | None]:
    """Logits of one draw (N, K), finite, and the embedding where the objective needs it.

    Raises:
        RuntimeError: another shape, or not finite.
    """
    with at(problem.classifier, (draw,)):
        logits, embedding = problem.outputs(point)
    shaped(f"logits of draw {draw}", logits, problem.logits)
    if not bool(torch.isfinite(logits).all()):
        raise RuntimeError(f"logits of draw {draw} are not finite")
    return logits, embedding


def standing(problem: Problem, points: Tensor, draws: Sequence[int]) -> Standing:
    """Classify points by each draw, without gradients."""
    with torch.no_grad():
        margins = [_margin(problem, outputs(problem, points, draw)[0]) for draw in draws]
    return _standing(margins)


def _margin(problem: Problem, logits: Tensor) -> Tensor:
    """Raw margins (N,), at most 0 where the prediction is wrong, also at a tie."""
    found = shaped("margins", margin(logits.detach(), problem.y).double(), problem.y)
    wrong = logits.argmax(1) != problem.y
    if bool((found.isnan() | (wrong & (found > 0)) | (~wrong & (found < 0))).any()):
        raise RuntimeError("margins that don't fit the predictions")
    return found.masked_fill(wrong & (found == 0), -math.ulp(0.0))


def _standing(margins: list[Tensor]) -> Standing:
    every = torch.stack(margins)
    return Standing((every >= 0).sum(0), every.mean(0), every.amax(0))


def spread(problem: Problem) -> Tensor:
    """Standard deviation of each image's clean logits (N,), float64."""
    return problem.logits.double().std(1)


def ascent(
    problem: Problem, draws: Sequence[int], name: Literal["training", "margin"], steps: int, start: Tensor
) -> Tensor:
    """Ascend the mean over draws of a function of the logits; keep the point that fools most draws.

    Each draw's gradient with respect to its logits is scaled as in :mod:`isce.attacks.ascent`, so that one that
    classifies an image with confidence counts as much as the others. With ``margin`` only the draws count that are not
    yet misclassified by ``CLEAR``; an image none of whose draws is left is done.

    Args:
        problem: the batch; its classifier has ``draws``.
        draws: keys of the adversary's draws.
        name: the training loss, or the negative margin.
        steps: number of gradient steps.
        start: points to start from (N, C, H, W), inside.

    Returns:
        Points (N, C, H, W) in ball and box: for each image the one with fewest draws right, of several that with the
        lowest mean margin.
    """
    best_points, best_gradient, point = start.clone(), torch.zeros_like(start), start
    never = torch.full_like(problem.y, math.inf, dtype=torch.float64)
    best = Standing(torch.full_like(problem.y, len(draws) + 1), never, never.clone())
    enough = CLEAR * spread(problem)
    rows = torch.arange(len(problem.y), device=problem.y.device)
    for step in range(steps + 1):
        if name == "margin":
            open_ = best.take(rows).least > -enough[rows]
            rows, point = rows[open_], point[open_]
        if len(rows) == 0:
            break
        part = problem.take(rows)
        reach = enough[rows] if name == "margin" else None
        now, gradient = _look(part, point, draws, name, reach)
        better = now.below(best.take(rows))
        chosen = rows[better]
        best.put(chosen, now.take(better))
        best_points[chosen], best_gradient[chosen] = point[better], gradient[better]
        if step == steps:
            break
        if step == round(RETURN_AT * steps):
            point, gradient = best_points[rows], best_gradient[rows]
        size = problem.threat.eps * max(FIRST_STEP * (1 - step / steps), LAST_STEP)
        point = problem.threat.project(point + size * uphill(gradient, problem.threat.norm), part.x)
    return best_points


def _look(
    problem: Problem, point: Tensor, draws: Sequence[int], name: str, reach: Tensor | None
) -> tuple[Standing, Tensor]:
    """How points stand, and the sum over the draws of the gradients of those that count (N, C, H, W)."""
    total, margins = torch.zeros_like(point), list[Tensor]()
    for draw in draws:
        x = point.detach().requires_grad_()
        with torch.enable_grad():
            logits, embedding = outputs(problem, x, draw)
        margins.append(_margin(problem, logits))
        function, constants = ascended(name, problem.objective, logits.detach(), problem.y, 0)
        _, *pulled = pull(function, logits, problem.y, embedding, constants)
        if reach is not None:
            counts = (margins[-1] > -reach).to(logits.dtype)[:, None]
            pulled = [None if back is None else back * counts for back in pulled]
        ways = [(part, back) for part, back in zip((logits, embedding), pulled, strict=True) if part is not None]
        ways = [(part, back) for part, back in ways if back is not None]
        (found,) = torch.autograd.grad([part for part, _ in ways], x, [back for _, back in ways])
        if not bool(torch.isfinite(found).all()):
            raise RuntimeError(f"gradients of draw {draw} are not finite")
        total += shaped(f"gradients of draw {draw}", found, point)
    return _standing(margins), total


class Best:
    """The points of a batch that fool most of the adversary's draws; at first the images themselves."""

    def __init__(self, problem: Problem, draws: Sequence[int]) -> None:
        self.problem, self.draws = problem, tuple(draws)
        self.points, self.standing = problem.x.clone(), standing(problem, problem.x, draws)

    def open(self) -> Tensor:
        """Row numbers of images that some draw does not misclassify clearly."""
        return (self.standing.least > -CLEAR * spread(self.problem)).nonzero()[:, 0]

    def offer(self, points: Tensor, rows: Tensor | None = None) -> None:
        """Keep what is better of the points of these rows (all of them: None), judged by a forward pass of its own.

        Raises:
            RuntimeError: a point is not finite, or outside ball or box.
        """
        rows = torch.arange(len(self.points), device=self.points.device) if rows is None else rows
        part = self.problem.take(rows)
        shaped("points", points, part.x)
        if not bool(shaped("points inside", part.threat.inside(points, part.x), part.y).all()):
            raise RuntimeError("points outside the ball, or not finite")
        now = standing(part, points, self.draws)
        better = now.below(self.standing.take(rows))
        self.points[rows[better]] = points[better]
        self.standing.put(rows[better], now.take(better))


def expectation(problem: Problem, draws: Sequence[int], steps: int, *known: Tensor) -> Tensor:
    """Attack a batch of a randomised classifier by gradients averaged over draws.

    The better, on these draws, of: the images; points that are known already; an ascent on the margin from the best of
    those; and, for images that some draw still does not misclassify clearly, one on the training loss from a random
    start.

    Args:
        problem: the batch; its classifier has ``draws``.
        draws: keys of the adversary's draws.
        steps: gradient steps of each ascent; each costs a gradient for every draw.
        known: points (N, C, H, W) in ball and box.

    Returns:
        Points (N, C, H, W).

    Raises:
        RuntimeError: anything about a draw that can't be used, or points outside.
    """
    best = Best(problem, draws)
    for points in known:
        best.offer(points)
    for name in ("margin", "training"):
        rows = best.open()
        if len(rows):
            part = problem.take(rows)
            start = best.points[rows] if name == "margin" else part.random_start(0)
            best.offer(ascent(part, draws, name, steps, start), rows)
    return best.points
