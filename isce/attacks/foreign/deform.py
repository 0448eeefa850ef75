"""The spatial attack: moves pixels about instead of changing their values. No norm bounds it."""

from __future__ import annotations

import torch
from torch import Tensor

from isce import compat
from isce.attacks.base import Found, Problem
from isce.attacks.spec import AttackSpec

#: How far beyond the boundary the hinge pulls, as a share of the spread of the image's logits: a point on the boundary
#: would be judged by the rounding of the batch that it is judged in.
OVERSHOOT = 1e-3


def spatial(spec: AttackSpec, problem: Problem, restart: int) -> Found:
    """Spatially transformed examples (Xiao et al. 2018): L-BFGS on margin plus ``smoothness`` of the flow (advertorch).

    Image by image: advertorch hands SciPy a batch as one problem, whose line search would couple the images. Where it
    finds nothing it returns a black image; the image itself stands in for it here.
    """
    attacks = compat.import_advertorch().attacks

    def one(part: Problem) -> Tensor:
        with torch.no_grad():
            logits = part.classifier(part.x)  # alone, as the attack sees them
        attack = attacks.SpatialTransformAttack(
            part.classifier,
            num_classes=part.logits.shape[1],
            confidence=OVERSHOOT * float(logits.max() - logits.min()),
            initial_const=spec.params["smoothness"],
            max_iterations=spec.steps,
            targeted=part.target is not None,
        )
        found = attack.perturb(part.x, part.label)
        return found if bool(found.any()) else part.x

    with compat.quiet():
        return Found.only(problem.one_by_one(one).clamp(0, 1))  # interpolation may overshoot by rounding
