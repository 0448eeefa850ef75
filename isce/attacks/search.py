"""Attacks that look at logits only: if one beats the gradient attacks, their gradients are at fault."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from isce.attacks.base import Found, Problem, blank, margin, sign
from isce.attacks.keys import keyed_noise
from isce.attacks.spec import AttackSpec

STEP = 0.2  # of SimBA along one pixel value
SHARE = 0.1  # of the image's area that the first squares cover; it falls to one pixel along the run


def search(spec: AttackSpec, problem: Problem, restart: int) -> Found:
    """Random search by squares (after the idea of Andriushchenko et al. 2020), one forward pass for each step.

    Starts at random corners of the ball in vertical stripes, then :func:`squares` that shrink.
    """
    channels, _, width = problem.x.shape[1:]
    stripes = keyed_noise(problem.seed, problem.index, restart, torch.Size([channels, 1, width]), "linf", "stripes")
    start = problem.threat.project(problem.x + 2 * problem.threat.eps * sign(stripes.to(problem.x)), problem.x)
    shares = [SHARE * (1 - step / spec.steps) ** 2 for step in range(spec.steps)]
    return squares(problem, start, shares, restart)


def squares(problem: Problem, start: Tensor, shares: list[float], restart: int) -> Found:
    """Push one square of each image up or down as far as ball and box let it, and keep that where the margin falls.

    Args:
        problem: the batch; an image that falls is left alone from then on.
        start: points to start from (N, C, H, W), inside.
        shares: of the image's area, for the square of each step; at least one pixel is pushed.
        restart: the draws depend on it, on the problem's seed and on each image's index alone.
    """
    channels, height, width = problem.x.shape[1:]
    size = torch.Size([len(shares), 2 + channels])
    draws = keyed_noise(problem.seed, problem.index, restart, size, "linf", "squares").to(problem.x)

    def moves(rows: Tensor, step: int) -> list[Tensor]:
        side = max(1, round((shares[step] * height * width) ** 0.5))
        mask = _squares(draws[rows, step, :2], side, height, width)
        return [2 * problem.threat.eps * sign(draws[rows, step, 2:])[:, :, None, None] * mask[:, None]]

    return _descend(problem, start, _margins(problem, start), moves, len(shares))


def _descend(
    problem: Problem, start: Tensor, lowest: Tensor, moves: Callable[[Tensor, int], list[Tensor]], steps: int
) -> Found:
    """Try moves, projected, and keep each where the margin falls; an image that falls is left alone from then on.

    Args:
        problem: the batch.
        start: points to start from (N, C, H, W), inside.
        lowest: margins there (N,).
        moves: of the images at some rows of the batch, shaped as these, for a step; tried one after the other.
        steps: number of steps.
    """
    rows, point, part = torch.arange(len(start), device=problem.y.device), start, problem
    points, first = start.clone(), torch.full_like(problem.y, -1)
    for step in range(steps + 1):
        standing = lowest >= 0
        if not problem.batch_dependent and not bool(standing.all()):
            first[rows[~standing]] = step
            points[rows[~standing]] = blank(point, lowest)[~standing]
            rows, point, lowest, part = rows[standing], point[standing], lowest[standing], part.take(standing)
        if step == steps or len(rows) == 0:
            break
        for move in moves(rows, step):
            candidate = part.threat.project(point + move, part.x)
            reached = _margins(part, candidate)
            better = ~(reached >= lowest)  # a NaN is kept, and known in the end
            point = torch.where(better.view(-1, 1, 1, 1), candidate, point)
            lowest = torch.where(better, reached, lowest)
    points[rows] = blank(point, lowest)
    return Found(points, first)


def _margins(problem: Problem, points: Tensor) -> Tensor:
    with torch.no_grad():
        return margin(problem.classifier(points), problem.y)


def _squares(draws: Tensor, side: int, height: int, width: int) -> Tensor:
    """Masks (N, H, W) of one square for each image, its place given by two numbers in [-1, 1]."""
    share = (draws + 1) / 2
    top = (share[:, 0] * (height - min(side, height) + 1)).floor().clamp(max=height - min(side, height))
    left = (share[:, 1] * (width - min(side, width) + 1)).floor().clamp(max=width - min(side, width))
    down = torch.arange(height, device=draws.device) - top[:, None]
    right = torch.arange(width, device=draws.device) - left[:, None]
    inside_rows, inside_columns = (down >= 0) & (down < side), (right >= 0) & (right < side)
    return (inside_rows[:, :, None] & inside_columns[:, None, :]).to(draws)


def simba(spec: AttackSpec, problem: Problem, restart: int) -> Found:
    """SimBA in the pixel basis (Guo et al. 2019): one pixel value after the other, in random order, up or down by
    ``STEP``, kept where the margin falls; projected into the l_2 ball.

    Written here, batched and by the margin: the version of adversarial-robustness-toolbox goes image by image, and
    compares softmax probabilities in float32, which stand still at 1 on a confident network.
    """  # noqa: D205
    size = problem.x[0].numel()
    draws = keyed_noise(problem.seed, problem.index, restart, torch.Size([size]), "linf", "order")
    order = draws.argsort(1).to(problem.y.device)

    def moves(rows: Tensor, step: int) -> list[Tensor]:
        x = problem.x[rows]
        up = torch.zeros_like(x).flatten(1).scatter(1, order[rows, step % size, None], STEP).view_as(x)
        return [up, -up]

    return _descend(problem, problem.x, margin(problem.logits, problem.y), moves, spec.steps)
