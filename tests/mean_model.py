"""Models whose every figure is known in closed form, and evaluations of them."""

from __future__ import annotations

import torch
from torch import nn

from isce.attacks.spec import AttackSpec
from isce.evaluation import evaluate
from isce.losses import build
from isce.parameters.attack import AttackParameters, Suite

ROWS = [AttackSpec(attack="fgsm"), AttackSpec(attack="pgd", steps=4), AttackSpec(attack="pgd", objective="matched")]


class Mean(nn.Module):
    """Two classes, class 1 where the mean pixel exceeds 0.5: an image at distance d falls exactly at eps > d."""

    def __init__(self) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.tensor(5.0, dtype=torch.float64))

    def forward(self, x):
        mean = self.gain * (x.flatten(1).mean(1) - 0.5)
        return torch.stack([-mean, mean], 1)


def parameters(rows=ROWS, eps=(0.1, 0.2), survivors_only=False, **changes) -> AttackParameters:
    suite = Suite(name="s", rows=rows, survivors_only=survivors_only)
    return AttackParameters(checkpoint="none", suite=suite, eps=list(eps), **changes)


def flat(values) -> tuple[torch.Tensor, torch.Tensor]:
    """Constant images with these pixel values; every label is 0, so that values above 0.5 are clean mistakes."""
    x = torch.tensor(values, dtype=torch.float64).view(-1, 1, 1, 1).expand(-1, 1, 2, 2).contiguous()
    return x, torch.zeros(len(x), dtype=torch.int64)


VALUES = [0.05, 0.25, 0.35, 0.38, 0.42, 0.45, 0.6, 0.7]  # distances to fall: .45 .25 .15 .12 .08 .05, 2 wrong


class BatchMean(nn.Module):
    batch_dependent = True

    def forward(self, x):
        mean = x.flatten(1).mean(1)
        return torch.stack([mean.mean() - mean, mean - mean.mean()], 1)


def evaluated(chosen, **more):
    """An evaluation of a linear network on images at known distances."""
    return evaluate(Mean(), build("sce"), *flat(VALUES), chosen, progress=False, **more)
