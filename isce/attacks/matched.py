"""The matched adaptive attack: a climb on a choice of functions, with restarts.

Starts: the image itself first, then in turn random points and the best point so far with half the step. A restart
after the first stops halfway, lets ``SQUARES`` small squares for each of its steps be pushed at random to wherever the
margin falls (forward passes alone), and ascends from there: an adversarially trained network that hides its gradients
(MNIST at eps 0.3) fell to that where gradients from any start failed, and where squares alone took ten times as long.
"""

from __future__ import annotations

import torch
from torch import Tensor

from isce.attacks.ascent import ascended
from isce.attacks.base import Found, Problem
from isce.attacks.climb import FIRST_STEP, climb
from isce.attacks.search import squares
from isce.attacks.spec import AttackSpec

SQUARES = 3  # for each gradient step of a restart
SQUARE = 0.03  # share of the image's area


def matched(spec: AttackSpec, problem: Problem, restart: int) -> Found:
    """One restart of the matched attack with ``spec.steps`` gradient steps, and squares between them."""
    function, constants = ascended(spec.objective, problem.objective, problem.logits, problem.y, restart)
    informed = restart > 0 and restart % 2 == 0
    start = problem.random_start(restart) if restart % 2 else problem.best if informed else problem.x
    first = FIRST_STEP / 2 if informed else FIRST_STEP

    def part_way(part: Problem, rows: Tensor | slice, start: Tensor, first: float, steps: int) -> Found:
        first = first if spec.step_size is None else spec.step_size
        return climb(part, function, constants[rows], start, steps, first=first)

    if restart == 0 or problem.batch_dependent:
        return part_way(problem, slice(None), start, first, spec.steps)
    half = (spec.steps + 1) // 2
    found = part_way(problem, slice(None), start, first, half)
    rows = (found.first < 0).nonzero()[:, 0]
    if len(rows) == 0:
        return found
    part = problem.take(rows)
    shaken = squares(part, found.points[rows], [SQUARE] * SQUARES * spec.steps, restart)
    rest = part_way(part, rows, shaken.points, FIRST_STEP / 2, spec.steps - half)
    first = torch.where(rest.first >= 0, half + rest.first, -1)
    return Found(found.points.index_copy(0, rows, rest.points), found.first.index_copy(0, rows, first))
