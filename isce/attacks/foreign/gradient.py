"""advertorch's gradient attacks behind the one signature: FGSM, BIM, PGD and MIM, l_inf and l_2, un- and targeted.

advertorch draws random starts from the global generator; here they are drawn for each image by its own key and
handed over, so that order and batching don't change them. What advertorch returns is its last iterate; here every
iterate that it evaluates is watched and the first misclassified one is kept (of a targeted attack, the first that hits
the target, where one does). advertorch divides a gradient by its norm or by 1e-6, whichever is larger, so that logits
of another scale would take other steps; here it gets each image's gradient with a largest entry of 1.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from isce import compat
from isce.attacks.ascent import REACH, unit
from isce.attacks.base import Found, Problem, training_loss
from isce.attacks.spec import AttackSpec


class _Watch:
    """Stands between advertorch and the problem: hands out the model and the loss, and remembers the first success."""

    def __init__(self, problem: Problem, objective: str) -> None:
        self.problem = problem
        own = problem.objective
        self.ascended = training_loss(own) if objective == "training" else own.matched
        self.calls = 0
        self.first = torch.full_like(problem.y, -1)
        self.points = problem.x.clone()
        self.hit = torch.zeros_like(problem.y, dtype=torch.bool)

    def predict(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        """Outputs at ``x``, (N, ...); the call number is the number of steps taken so far."""
        if x.requires_grad:
            x.register_hook(lambda gradient: unit(gradient, math.inf))
        logits, embedding = self.problem.outputs(x)
        if not self.problem.batch_dependent:
            predicted = logits.detach().argmax(1)
            new = (predicted != self.problem.y) & (self.first < 0)
            self.first[new] = self.calls
            if self.problem.target is not None:
                hit = (predicted == self.problem.target) & ~self.hit
                self.hit |= hit
                new = new | hit
            self.points = torch.where(new.view(-1, 1, 1, 1), x.detach(), self.points)
        self.calls += 1
        return logits, embedding

    def loss(self, outputs: tuple[Tensor, Tensor | None], y: Tensor) -> Tensor:
        """Sum over the batch, so that each image's gradient is its own; a targeted attack descends to its target."""
        logits, embedding = outputs
        value = self.ascended(logits, y, embedding).sum()
        return value if self.problem.target is None else -value

    def found(self, last: Tensor) -> Found:
        """The first misclassified point, else the last one."""
        met = self.first >= 0
        if not bool(met.any()):
            return Found(last, self.first)
        return Found(torch.where(met.view(-1, 1, 1, 1), self.points, last), self.first, last)


def fgsm(spec: AttackSpec, problem: Problem, restart: int) -> Found:
    """One step of size eps along the gradient's sign (l_inf; Goodfellow et al. 2015) or the gradient (l_2)."""
    attacks = compat.import_advertorch().attacks
    attack = attacks.GradientSignAttack if problem.threat.norm == "linf" else attacks.GradientAttack
    watch = _Watch(problem, spec.objective)
    last = attack(watch.predict, loss_fn=watch.loss, eps=float(problem.threat.eps)).perturb(problem.x, problem.label)
    return watch.found(last)


def bim(spec: AttackSpec, problem: Problem, restart: int) -> Found:
    """Basic iterative method (Kurakin et al. 2017): projected steps from the image itself."""
    return _iterate(spec, problem, torch.zeros_like(problem.x))


def pgd(spec: AttackSpec, problem: Problem, restart: int) -> Found:
    """Projected gradient descent (Madry et al. 2018): projected steps from a random start in the ball."""
    return _iterate(spec, problem, problem.random_start(restart) - problem.x)


def mim(spec: AttackSpec, problem: Problem, restart: int) -> Found:
    """Momentum iterative method (Dong et al. 2018): steps along the running sum of normalised gradients."""
    watch = _Watch(problem, spec.objective)
    return watch.found(_momentum(spec, problem, watch))


def transfer(spec: AttackSpec, problem: Problem, restart: int) -> Found:
    """MIM on another network (``problem.source``); its last points are tried on this one.

    The steps go on after the source has fallen: points far inside its wrong class carry over best.

    Raises:
        ValueError: no source was given.
    """
    if problem.source is None:
        raise ValueError("transfer needs a source: another trained classifier and its objective")
    last = _momentum(spec, problem.source, _Watch(problem.source, spec.objective))
    return Found.only(last)


def _momentum(spec: AttackSpec, problem: Problem, watch: _Watch) -> Tensor:
    attack = compat.import_advertorch().attacks.MomentumIterativeAttack(
        watch.predict,
        loss_fn=watch.loss,
        eps=float(problem.threat.eps),
        nb_iter=spec.steps,
        decay_factor=1.0,
        eps_iter=_step(spec, problem),
        ord=_order(problem),
    )
    return attack.perturb(problem.x, problem.label).detach()


def _iterate(spec: AttackSpec, problem: Problem, start: Tensor) -> Found:
    module: Any = compat.import_advertorch().attacks.iterative_projected_gradient
    watch = _Watch(problem, spec.objective)
    last = module.perturb_iterative(
        problem.x,
        problem.label,
        watch.predict,
        nb_iter=spec.steps,
        eps=float(problem.threat.eps),
        eps_iter=_step(spec, problem),
        loss_fn=watch.loss,
        delta_init=nn.Parameter(start),
        ord=_order(problem),
    )
    return watch.found(last.detach())


def _step(spec: AttackSpec, problem: Problem) -> float:
    return float(problem.threat.eps) * (spec.step_size or REACH / spec.steps)


def _order(problem: Problem) -> float:
    return math.inf if problem.threat.norm == "linf" else 2
