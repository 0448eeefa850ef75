"""Black-box attacks beside our own search: SPSA (advertorch) and SimBA (written here)."""

from __future__ import annotations

import torch
from torch import Tensor

from isce import compat
from isce.attacks.base import Found, Problem, blank, margin
from isce.attacks.keys import keyed_noise
from isce.attacks.spec import AttackSpec

STEP = 0.2  # of SimBA along one pixel value


def spsa(spec: AttackSpec, problem: Problem, restart: int) -> Found:
    """Steps along a gradient of the margin estimated from ``samples`` random differences (Uesato et al. 2018)."""
    attacks = compat.import_advertorch().attacks
    samples = int(spec.params["samples"])

    def one(part: Problem) -> Tensor:
        attack = attacks.LinfSPSAAttack(
            part.classifier,
            eps=float(part.threat.eps),
            delta=spec.params["delta"],
            lr=spec.params["lr"],
            nb_iter=spec.steps,
            nb_sample=samples,
            max_batch_size=samples,
        )
        return attack.perturb(part.x, part.y)

    with compat.quiet():
        return Found.only(problem.one_by_one(one, restart))


def simba(spec: AttackSpec, problem: Problem, restart: int) -> Found:
    """SimBA in the pixel basis (Guo et al. 2019): one pixel value after the other, in random order, up or down by
    ``STEP``, kept where the margin falls; projected into the l_2 ball.

    Written here, batched and by the margin: the version of adversarial-robustness-toolbox goes image by image, and
    compares softmax probabilities in float32, which stand still at 1 on a confident network.
    """  # noqa: D205
    size = problem.x[0].numel()
    draws = keyed_noise(problem.seed, problem.index, restart, torch.Size([size]), "linf", "order")
    order = draws.argsort(1).to(problem.y.device)
    rows, part, point = torch.arange(len(problem.y), device=problem.y.device), problem, problem.x
    with torch.no_grad():
        lowest = margin(problem.scores, problem.y)
        points, first = problem.x.clone(), torch.full_like(problem.y, -1)
        for step in range(spec.steps):
            flat = torch.zeros_like(point).flatten(1).scatter(1, order[rows, step % size, None], STEP).view_as(point)
            for sign in (1, -1):
                candidate = part.threat.project(point + sign * flat, part.x)
                reached = margin(part.classifier(candidate), part.y)
                better = ~(reached >= lowest)  # a NaN is kept, and known in the end
                point = torch.where(better.view(-1, 1, 1, 1), candidate, point)
                lowest = torch.where(better, reached, lowest)
            standing = lowest >= 0
            if not problem.batch_dependent and not bool(standing.all()):
                first[rows[~standing]] = step + 1
                points[rows[~standing]] = blank(point, lowest)[~standing]
                rows, point, lowest, part = rows[standing], point[standing], lowest[standing], part.take(standing)
            if len(rows) == 0:
                break
    points[rows] = blank(point, lowest)
    return Found(points, first)
