"""advertorch's gradient attacks behind the one signature: FGSM, BIM and PGD, l_inf and l_2.

advertorch draws random starts from the global generator; here they are drawn for each image by its own key and
handed over, so that order and batching don't change them. What advertorch returns is its last iterate; here every
iterate that it evaluates is watched and the first misclassified one is kept.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from isce import compat
from isce.attacks.base import Found, Problem, training_loss

if TYPE_CHECKING:
    from isce.config import AttackSpec


class _Watch:
    """Stands between advertorch and the problem: hands out the model and the loss, and remembers the first success."""

    def __init__(self, problem: Problem, objective: str) -> None:
        self.problem = problem
        own = problem.objective
        self.ascended = training_loss(own) if objective == "training" else own.matched
        self.calls = 0
        self.first = torch.full_like(problem.y, -1)
        self.points = problem.x.clone()

    def predict(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        """Outputs at ``x``, (N, ...); the call number is the number of steps taken so far."""
        scores, embedding = self.problem.outputs(x)
        if not self.problem.batch_dependent:
            wrong = scores.detach().argmax(1) != self.problem.y
            new = wrong & (self.first < 0)
            self.first[new] = self.calls
            self.points = torch.where(new.view(-1, 1, 1, 1), x.detach(), self.points)
        self.calls += 1
        return scores, embedding

    def loss(self, outputs: tuple[Tensor, Tensor | None], y: Tensor) -> Tensor:
        """Sum over the batch, so that each image's gradient is its own."""
        scores, embedding = outputs
        return self.ascended(scores, y, embedding).sum()

    def found(self, last: Tensor) -> Found:
        """The first misclassified point, else the last one."""
        met = self.first >= 0
        if not bool(met.any()):
            return Found(last, self.first, last)
        return Found(torch.where(met.view(-1, 1, 1, 1), self.points, last), self.first, last)


def fgsm(spec: AttackSpec, problem: Problem, restart: int) -> Found:
    """One step of size eps along the gradient's sign (l_inf; Goodfellow et al. 2015) or the gradient (l_2)."""
    del restart  # no randomness, config refuses restarts
    attacks = compat.import_advertorch().attacks
    attack = attacks.GradientSignAttack if problem.threat.norm == "linf" else attacks.GradientAttack
    watch = _Watch(problem, spec.objective)
    last = attack(watch.predict, loss_fn=watch.loss, eps=float(problem.threat.eps)).perturb(problem.x, problem.y)
    return watch.found(last)


def bim(spec: AttackSpec, problem: Problem, restart: int) -> Found:
    """Basic iterative method (Kurakin et al. 2017): projected steps from the image itself."""
    del restart  # no randomness, config refuses restarts
    return _iterate(spec, problem, torch.zeros_like(problem.x))


def pgd(spec: AttackSpec, problem: Problem, restart: int) -> Found:
    """Projected gradient descent (Madry et al. 2018): projected steps from a random start in the ball."""
    return _iterate(spec, problem, problem.random_start(restart) - problem.x)


def _iterate(spec: AttackSpec, problem: Problem, start: Tensor) -> Found:
    module: Any = compat.import_advertorch().attacks.iterative_projected_gradient
    watch = _Watch(problem, spec.objective)
    eps = float(problem.threat.eps)
    last = module.perturb_iterative(
        problem.x,
        problem.y,
        watch.predict,
        nb_iter=spec.steps,
        eps=eps,
        eps_iter=eps * (spec.step_size or 2.5 / spec.steps),
        loss_fn=watch.loss,
        delta_init=nn.Parameter(start),
        ord=math.inf if problem.threat.norm == "linf" else 2,
    )
    return watch.found(last.detach())
