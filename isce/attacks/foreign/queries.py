"""SPSA through advertorch: an attack by logits alone, beside our own in isce.attacks.search."""

from __future__ import annotations

from torch import Tensor

from isce import compat
from isce.attacks.base import Found, Problem
from isce.attacks.spec import AttackSpec


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
