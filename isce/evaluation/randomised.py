"""How a classifier that draws at random stands: points are found on some draws, and judged by fresh ones.

A randomised classifier (:mod:`isce.models.randomised`) gives a point another class from draw to draw. What an image is
worth is the share of draws that classify its adversarial point right; the accuracy is the mean of these shares over all
images. An adversary who knows the defence looks for one point that is wrong at as many draws as possible
(:mod:`isce.attacks.expectation`); one who does not attacks a single draw as if it were the network.

Nobody may pick a point by the draws that judge it: among many that is a lucky one, and the figure would come out too
low; nor may a point be given up because it failed at one draw, as an evaluation without care does, and the figure come
out too high. So keys of the two are drawn for purposes of their own, and every image's point, broken or not, is judged.
Whatever goes wrong ends the evaluation: there is no figure without all of it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm.auto import tqdm

from isce import attacks
from isce.attacks import Threat
from isce.attacks.base import Problem, shaped, untouched
from isce.attacks.expectation import expectation, outputs
from isce.attacks.keys import keyed_draws
from isce.attacks.spec import AttackSpec
from isce.evaluation.drawn import Mask, Randomised
from isce.evaluation.job import Job
from isce.evaluation.outcome import Outcome
from isce.evaluation.state import RowKeys, State
from isce.models.randomised import at, is_randomised
from isce.parameters.attack import Draws

NAIVE = AttackSpec(attack="pgd", objective="training", steps=50)
Find = Callable[[Problem, Tensor], Tensor]
SAME = 1e-3  # share of the spread of an image's logits by which they may change from call to call of one draw


class FreshDraws:
    """The draws of one evaluation, by whom they are for.

    Attributes:
        attack: keys of the draws that the knowing adversary averages over, and chooses points by.
        judge: keys of the fresh draws.
        naive: key of the one draw that the naive attack takes for the network.

    Raises:
        ValueError: a classifier that has no draws, or whose logits depend on the batch.
        RuntimeError: a draw does not decide its logits.
    """

    def __init__(self, job: Job, draws: Draws) -> None:
        if not is_randomised(job.classifier):
            raise ValueError(f"draws are for classifiers that draw at random; {type(job.classifier).__name__} has none")
        if job.whole:
            raise ValueError("draws need a classifier whose logits don't depend on the batch")
        self.job, self.draws, seed = job, draws, job.parameters.seed
        self.attack = keyed_draws(seed, "attack", draws.attack)
        self.judge = keyed_draws(seed, "judge", draws.judge)
        (self.naive,) = keyed_draws(seed, "naive", 1)
        every = [*self.attack, *self.judge, self.naive]
        if len(set(every)) < len(every):
            raise RuntimeError("keys of draws must differ: choose another seed")
        self._check_keyed()

    def _check_keyed(self) -> None:
        """Refuse a classifier whose draws don't decide its logits: its points could be judged by any others."""
        problem = self._problem(torch.arange(min(8, len(self.job.labels))), Threat("linf", 1))
        with untouched(self.job.classifier), torch.no_grad():
            one, _, two = (outputs(problem, problem.x, draw)[0] for draw in (self.naive, self.judge[0], self.naive))
        apart, wide = (one - two).abs().amax(1), (one.amax(1) - one.amin(1)).abs()
        if bool((apart > SAME * wide).any()):
            found = f"logits of one draw differ by up to {float(apart.max()):.2g} from call to call"
            raise RuntimeError(f"{found}: a draw must decide them")

    def evaluate(self, threats: Sequence[Threat], kept: State, keys: RowKeys | None, bar: tqdm[Any]) -> Randomised:
        """Find points in each threat, and judge them, and the images, by the fresh draws.

        Args:
            threats: of one norm, eps rising: what was found at an eps is known at the next.
            kept: where finished points are kept.
            keys: of what is kept.
            bar: of the evaluation.

        Raises:
            RuntimeError: anything went wrong.
        """
        naive, knowing = dict[str, Mask](), dict[str, Mask]()
        points, key = self.job.images, ""
        for threat in threats:
            bar.set_description(f"draws {threat.label}")
            about = [NAIVE.model_dump(mode="json"), threat.norm, threat.eps, self.naive]
            own = keys.other(*about) if keys else ""
            first = self._kept(f"{threat.label}/draws/naive", own, kept, threat, self._naive)
            key = keys.other(own, key, self.attack, self.draws.steps) if keys else ""
            find = partial(self._knowing, points, first)
            points = self._kept(f"{threat.label}/draws/knowing", key, kept, threat, find)
            naive[threat.label], knowing[threat.label] = (self.right(found, threat) for found in (first, points))
            bar.set_postfix_str(f"{knowing[threat.label].mean():.1%} left")
            bar.update()
        return Randomised(self.draws.model_dump(), self.right(self.job.images), naive, knowing)

    def right(self, points: Tensor, threat: Threat | None = None) -> Mask:
        """Which points (N, C, H, W) are classified right by which fresh draws, bool (N, draws).

        Raises:
            RuntimeError: a point outside of the threat, or logits that can't be used.
        """
        found = np.zeros((len(points), len(self.judge)), dtype=bool)
        shaped("points", points, self.job.images)
        for batch in self.job.batches(np.ones(len(points), dtype=bool)):
            problem = self._problem(batch, threat or Threat("linf", 1))
            some = points[batch].to(problem.x)
            if threat is not None and not bool(threat.inside(some, problem.x).all()):
                raise RuntimeError(f"{threat.label}: points outside the ball, or not finite")
            with untouched(self.job.classifier), torch.no_grad():
                for place, draw in enumerate(self.judge):
                    right = outputs(problem, some, draw)[0].argmax(1) == problem.y
                    found[batch.numpy(), place] = shaped("predictions", right, problem.y).cpu().numpy()
        return found

    def _problem(self, batch: Tensor, threat: Threat) -> Problem:
        job = self.job
        x, y, index = (part[batch].to(job.device) for part in (job.images, job.labels, job.index))
        logits = job.logits[batch.to(job.device)]
        return Problem(job.classifier, job.objective, x, y, index, threat, job.parameters.seed, logits, best=x)

    def _kept(self, name: str, key: str, kept: State, threat: Threat, find: Find) -> Tensor:
        """Points of all images (N, C, H, W), from the state file or found batch by batch."""
        row = kept.get(name, key)
        if row is None:
            started = time.monotonic()
            parts = list[Tensor]()
            try:
                for batch in self.job.batches(np.ones(len(self.job.labels), dtype=bool)):
                    problem = self._problem(batch, threat)
                    with untouched(self.job.classifier, self.job.objective):
                        parts.append(shaped("points", find(problem, batch), problem.x).float().cpu())
            except Exception as error:
                self.job.stop_if_out_of_memory(error)
                raise RuntimeError(f"{name}: {type(error).__name__}: {error}") from error
            row = kept.add(name, key, _outcome(torch.cat(parts)), time.monotonic() - started)
        return torch.from_numpy(row.outcome.points).to(self.job.images.dtype)

    def _naive(self, problem: Problem, batch: Tensor) -> Tensor:
        """Points of the attack on one draw; where that draw is wrong anyway, the image.

        Raises:
            RuntimeError: the attack has no outcome for an image.
        """
        with at(problem.classifier, (self.naive,)):
            given = (problem.classifier, problem.objective, problem.x, problem.y, problem.threat)
            result = attacks.run(NAIVE, *given, seed=problem.seed, index=problem.index)
        if bool((result.rejected & ~result.success).any()):
            raise RuntimeError(f"{NAIVE.label} has no valid point for some images")
        return result.adversarial

    def _knowing(self, smaller: Tensor, naive: Tensor, problem: Problem, batch: Tensor) -> Tensor:
        """Points of the adversary who averages over draws, no worse than the naive and those of a smaller eps."""
        known = (part[batch].to(problem.x) for part in (smaller, naive))
        return expectation(problem, self.attack, self.draws.steps, *known)


def _outcome(points: Tensor) -> Outcome:
    """Points of all images, as the state file keeps rows; nothing but the points is read again."""
    every = np.ones(len(points), dtype=bool)
    none = np.full(len(points), -1)
    return Outcome(every, every, every, ~every, ~every, ~every, none, points=points.numpy())
