"""Attacks on a few pixels (l_0), through advertorch: JSMA, local search and single pixel. eps is a number of pixels."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from isce import compat
from isce.attacks.base import Found, Problem
from isce.attacks.spec import AttackSpec
from isce.attacks.threat import TOLERANCE

#: Side of an image in which advertorch's local search draws a pixel to begin with: a tenth of all, at least.
SMALLEST = 4
#: Pairs of pixel values that JSMA rates at once, about 25 bytes each.
PAIRS = 2**22


class _Cropped(nn.Module):
    """A classifier of the top left corner of its input."""

    def __init__(self, classifier: nn.Module, height: int, width: int) -> None:
        super().__init__()
        self.classifier, self.height, self.width = classifier, height, width

    def forward(self, x: Tensor) -> Any:
        """Logits of the corner."""
        return self.classifier(x[:, :, : self.height, : self.width])


def _in_square(problem: Problem, attack: Callable[[Problem, float], Tensor]) -> Tensor:
    """Run an attack that takes square images alone on any image, which it sees in the corner of a grey square.

    advertorch mixes up rows and columns, and so asks for pixels that aren't there. Pixels of the margin change nothing,
    so an attack on random pixels needs more of them, by the second argument that it gets.
    """
    height, width = problem.x.shape[2:]
    side = max(height, width, SMALLEST)
    if height == width == side:
        return attack(problem, 1)
    x = F.pad(problem.x, (0, side - width, 0, side - height), value=0.5)
    classifier = _Cropped(problem.classifier, height, width)
    return attack(replace(problem, classifier=classifier, x=x), side**2 / (height * width))[:, :, :height, :width]


def jsma(spec: AttackSpec, problem: Problem, restart: int) -> Found:
    """Jacobian saliency map attack (Papernot et al. 2016): pushes the best pair of pixel values up by ``theta``.

    Always targeted. advertorch's budget is a share of all pixel values, two for each step, so at most eps pixels. It
    rates all pairs of pixel values of all images at once, gigabytes for a batch of MNIST: here a few images at a time.
    """
    values = problem.x[0].numel()
    share = problem.threat.eps / values
    attack = compat.import_advertorch().attacks.JacobianSaliencyMapAttack(
        problem.classifier, num_classes=problem.logits.shape[1], theta=spec.params["theta"], gamma=min(1.0, share)
    )
    rate, few = attack._saliency_map, max(1, PAIRS // values**2)

    def rate_in_parts(*each: Tensor) -> tuple[Tensor, ...]:
        found = [rate(*part) for part in zip(*(one.split(few) for one in each), strict=True)]
        return tuple(map(torch.cat, zip(*found, strict=True)))

    attack._saliency_map = rate_in_parts
    with compat.quiet():
        return Found.only(attack.perturb(problem.x, problem.target))


def local_search(spec: AttackSpec, problem: Problem, restart: int) -> Found:
    """Greedy local search (Narodytska and Kasiviswanathan 2017), by logits alone: perturbs the eps pixels that matter
    most around those of the round before. It takes pixels to [-0.5, 0.5] and back: one that only this moved gets its
    value back, or it would count as changed.
    """  # noqa: D205
    attacks = compat.import_advertorch().attacks

    def one(part: Problem, share: float) -> Tensor:
        seeds = math.ceil(spec.params["seeds"] * share)
        attack = attacks.LocalSearchAttack(
            part.classifier, t=int(part.threat.eps), round_ub=spec.steps, max_nb_seeds=seeds
        )
        return attack.perturb(part.x, part.y)

    with compat.quiet():
        points = problem.one_by_one(lambda part: _in_square(part, one), restart)
    return Found.only(torch.where((points - problem.x).abs() <= TOLERANCE, problem.x, points))


def single_pixel(spec: AttackSpec, problem: Problem, restart: int) -> Found:
    """Sets one of ``steps`` random pixels to black or white (Narodytska and Kasiviswanathan 2017)."""
    attacks = compat.import_advertorch().attacks

    def one(part: Problem, share: float) -> Tensor:
        tried = min(math.ceil(spec.steps * share), part.x[0, 0].numel())
        return attacks.SinglePixelAttack(part.classifier, max_pixels=tried).perturb(part.x, part.y)

    with compat.quiet():
        return Found.only(problem.one_by_one(lambda part: _in_square(part, one), restart))
