"""Attacks on a few pixels (l_0), through advertorch: JSMA, local search and single pixel. eps is a number of pixels."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor

from isce import compat
from isce.attacks.base import Found, Problem

if TYPE_CHECKING:
    from isce.suites import AttackSpec


def jsma(spec: AttackSpec, problem: Problem, restart: int) -> Found:
    """Jacobian saliency map attack (Papernot et al. 2016): pushes the best pair of pixel values up by ``theta``.

    Always targeted. advertorch's budget is a share of all pixel values, two for each step, so at most eps pixels.
    """
    del restart
    share = problem.threat.eps / problem.x[0].numel()
    attack = compat.import_advertorch().attacks.JacobianSaliencyMapAttack(
        problem.classifier, num_classes=problem.scores.shape[1], theta=spec.params["theta"], gamma=min(1.0, share)
    )
    with compat.quiet():
        return Found.only(attack.perturb(problem.x, problem.target))


def local_search(spec: AttackSpec, problem: Problem, restart: int) -> Found:
    """Greedy local search (Narodytska and Kasiviswanathan 2017), by scores alone: perturbs the eps pixels that matter
    most around those of the round before.
    """  # noqa: D205
    attacks = compat.import_advertorch().attacks

    def one(part: Problem) -> Tensor:
        attack = attacks.LocalSearchAttack(
            part.classifier, t=int(part.threat.eps), round_ub=spec.steps, max_nb_seeds=int(spec.params["seeds"])
        )
        return attack.perturb(part.x, part.y)

    with compat.quiet():
        return Found.only(problem.one_by_one(one, restart))


def single_pixel(spec: AttackSpec, problem: Problem, restart: int) -> Found:
    """Sets one of ``steps`` random pixels to black or white (Narodytska and Kasiviswanathan 2017)."""
    attacks = compat.import_advertorch().attacks
    tried = min(spec.steps, problem.x[0, 0].numel())

    def one(part: Problem) -> Tensor:
        return attacks.SinglePixelAttack(part.classifier, max_pixels=tried).perturb(part.x, part.y)

    with compat.quiet():
        return Found.only(problem.one_by_one(one, restart))
