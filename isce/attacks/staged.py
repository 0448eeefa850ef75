"""The staged attack: every wrong class for a few steps, then ever fewer classes for ever longer.

An image often falls to a class that is neither second in its logits nor the one that an ascent of the margin runs
after, so every wrong class is tried (as Croce and Hein 2020 do). A long ascent towards each would cost as much as
AutoAttack; a short one shows which classes are worth a long one (the stages are ours).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from isce.attacks.ascent import ascended
from isce.attacks.base import Found, Problem, margin
from isce.attacks.climb import FIRST_STEP, climb
from isce.attacks.search import squares
from isce.attacks.spec import AttackSpec

#: Of each stage: share of the attack's steps, and how many wrong classes, the most promising, an image is sent after.
STAGES = ((0.1, None), (0.2, 5), (0.5, 3), (1.0, 2))
#: After so many stages an image goes on only if its margin has fallen below the first of these shares of the clean one,
#: or, as hidden gradients may be the reason, has hardly fallen at all: not below the second. Of 16 networks that were
#: tried (trained plainly and adversarially) no image fell later that stood above a share of 0.06 by then.
SOON, FAR = 2, (0.3, 0.9)
SQUARES = 1  # for each step of a restart
SQUARE = 0.03  # share of the image's area
#: Pixel values that climb at once: more take more memory and, on a CPU, no less time.
AT_ONCE = 2**19


def staged(spec: AttackSpec, problem: Problem, restart: int) -> Found:
    """One restart of the staged attack, whose longest climbs take ``spec.steps`` gradient steps.

    The first goes through all stages, each from the image itself. A further one pushes squares at random to wherever
    the margin falls, from the best point so far, and climbs from there towards the classes of the last stage.
    Of a batch that must stay together all images are sent after one class at a time, for half the steps.
    """
    if problem.batch_dependent:
        return _whole(spec, problem)
    if restart == 0:
        state = _State(problem, problem.x)
        for number, (share, classes) in enumerate(STAGES):
            rows = state.standing(far=number < SOON)
            state.stage(rows, max(1, round(share * spec.steps)), classes, FIRST_STEP)
        return Found(state.points, state.first)
    state = _State(problem, problem.best)
    rows = state.standing(far=False)
    if len(rows):
        part = problem.take(rows)
        state.start[rows] = squares(part, part.best, [SQUARE] * SQUARES * spec.steps, restart).points
        state.stage(rows, spec.steps, STAGES[-1][1], FIRST_STEP / 2)
    return Found(state.points, state.first)


class _State:
    """Of each image of a batch: where climbs start, the best point, and the wrong classes in the order of promise."""

    def __init__(self, problem: Problem, start: Tensor) -> None:
        self.problem, self.start, self.steps = problem, start.clone(), 0
        self.points, self.first = start.clone(), torch.full_like(problem.y, -1)
        logits = _logits(problem, start)
        self.lowest = margin(logits, problem.y)
        wrong = logits.scatter(1, problem.y[:, None], -math.inf)
        self.classes = wrong.sort(dim=1, descending=True, stable=True).indices[:, :-1]

    def standing(self, *, far: bool) -> Tensor:
        """Rows of the images that have not fallen; also of those that are far from it, or not."""
        share = self.lowest / margin(self.problem.logits, self.problem.y)
        hopeful = ~((share > FAR[0]) & (share < FAR[1]))
        return ((self.first < 0) & (hopeful | far)).nonzero()[:, 0]

    def stage(self, rows: Tensor, steps: int, classes: int | None, first: float) -> None:
        """Climb towards the most promising classes of the images in some rows, and put these into a new order."""
        group = self.classes[:, :classes].shape[1]
        if len(rows) * group == 0:
            return
        for part in rows.split(max(1, AT_ONCE // (group * self.start[0].numel()))):
            self._stage(part, steps, group, first)
        self.steps += steps

    def _stage(self, rows: Tensor, steps: int, group: int, first: float) -> None:
        targets = self.classes[rows][:, :group]
        each = rows.repeat_interleave(group)
        part = self.problem.take(each)
        function, _ = ascended("targeted", part.objective, part.logits, part.y, 0)
        constants = targets.reshape(-1, 1)
        found = climb(part, function, constants, self.start[each], steps, first=first, group=group)
        # A NaN on the way is lower than all, and handed back, so that the driver knows of it.
        reached = margin(_logits(part, found.points), part.y).view(-1, group)
        reached = reached.masked_fill(reached.isnan(), -torch.finfo(reached.dtype).max)
        reached = reached.masked_fill((found.first >= 0).view(-1, group), -math.inf)
        reached, order = reached.sort(dim=1, stable=True)
        self.classes[rows, :group] = targets.gather(1, order)
        best = torch.arange(len(rows), device=rows.device) * group + order[:, 0]
        better = reached[:, 0] < self.lowest[rows]
        self.points[rows[better]], self.lowest[rows[better]] = found.points[best][better], reached[:, 0][better]
        self.first[rows] = torch.where(found.first[best] >= 0, self.steps + found.first[best], -1)


def _whole(spec: AttackSpec, problem: Problem) -> Found:
    """Of a batch that must stay together the points with most images fallen, over the wrong classes."""
    best, most, half = Found(problem.x, torch.full_like(problem.y, -1)), -1, (spec.steps + 1) // 2
    for rank in range(problem.logits.shape[1] - 1):
        function, constants = ascended("targeted", problem.objective, problem.logits, problem.y, rank)
        found = climb(problem, function, constants, problem.x, half)
        fallen = int((_logits(problem, found.points).argmax(1) != problem.y).sum())
        if fallen > most:
            best, most = found, fallen
    return best


def _logits(problem: Problem, points: Tensor) -> Tensor:
    with torch.no_grad():
        return problem.classifier(points)
