from __future__ import annotations

import pytest
import torch
from tiny import Mean
from torch import nn

from isce.attacks import Threat, run
from isce.attacks.base import Found
from isce.attacks.foreign import gradient
from isce.attacks.keys import random_targets
from isce.attacks.spec import AttackSpec
from isce.compat import import_advertorch
from isce.losses import build


def go(target, spec, threat, seed=0):
    return run(spec, target.classifier, target.objective, target.x, target.y, threat, seed=seed)


def test_same_seed_same_bits_and_another_seed_another_start(target):
    spec = AttackSpec(attack="pgd", steps=1, step_size=0.01)
    threat = Threat("linf", 0.01)
    one, two, other = (go(target, spec, threat, seed=s).adversarial for s in (0, 0, 1))
    assert torch.equal(one, two)
    assert not torch.equal(one, other)


@pytest.mark.parametrize("objective", ["training", "matched"])
def test_fgsm_is_the_closed_form(target, objective):
    """x + eps sign(gradient), clipped: re-derived with autograd."""
    threat = Threat("linf", 0.02)
    x = target.x.clone().requires_grad_()
    ascended = target.objective.per_example if objective == "training" else target.objective.matched
    logits = target.classifier(x)
    (gradient,) = torch.autograd.grad(ascended(logits, target.y).sum(), x)
    expected = (target.x + threat.eps * gradient.sign()).clamp(0, 1)
    result = go(target, AttackSpec(attack="fgsm", objective=objective), threat)
    right = logits.argmax(1) == target.y
    assert right.any()
    moved = (result.adversarial - target.x).abs().flatten(1).amax(1) > 0
    assert moved[right].any()
    assert (result.adversarial - expected).abs()[right & moved].max() < 1e-6


def test_bim_is_advertorchs_own(target):
    """The same points as advertorch's class gives, where no iterate on the way was better than the last."""
    advertorch = import_advertorch()
    threat = Threat("linf", 0.1)
    attack = advertorch.attacks.LinfBasicIterativeAttack(
        target.classifier, nn.CrossEntropyLoss(reduction="sum"), eps=0.1, nb_iter=5, eps_iter=0.05
    )
    theirs = attack.perturb(target.x, target.y)
    ours = go(target, AttackSpec(attack="bim", steps=5), threat)
    same = ~ours.success & ((ours.adversarial - target.x).abs().flatten(1).amax(1) > 0)
    assert same.any()
    assert (ours.adversarial - theirs).abs()[same].max() < 1e-6


def test_first_success_counts_steps():
    """From 0.42 in steps of 0.04: 0.46, 0.50, 0.54; at 0.50 logits tie and class 0 still wins."""
    x, y = torch.full((1, 1, 2, 2), 0.42, dtype=torch.float64), torch.tensor([0])
    for steps, expected in ((2, -1), (3, 3), (5, 3)):
        spec = AttackSpec(attack="bim", steps=steps, step_size=0.2)
        result = run(spec, Mean(), build("sce"), x, y, Threat("linf", 0.2), seed=0)
        assert result.first_success.tolist() == [expected]


def test_a_targeted_attack_goes_on_until_it_meets_its_target(monkeypatch):
    """The first restart leads each image into some wrong class, the second into the target, the third nowhere."""

    class Values(nn.Module):
        """The class is written in the image: its first pixel times four."""

        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.ones(1))

        def forward(self, x):
            return -((x[:, 0, 0, :1] * 4 - torch.arange(5.0)) ** 2) * self.weight

    seen = []

    def leads(spec, problem, restart):
        seen.append(problem.index.tolist())
        other = (problem.target + 1) % 5
        away = torch.where(other == problem.y, (problem.target + 2) % 5, other)
        goal = [away, torch.where(problem.index < 3, problem.target, problem.y), problem.y][restart]
        return Found.only((goal / 4).view(-1, 1, 1, 1).expand_as(problem.x))

    monkeypatch.setattr(gradient, "pgd", leads)
    y = torch.tensor([0, 1, 2, 3, 4])
    x = (y / 4).view(-1, 1, 1, 1).repeat(1, 1, 2, 2)
    spec = AttackSpec(attack="pgd", steps=10, restarts=3, targeted=True)
    result = run(spec, Values(), build("sce"), x, y, Threat("linf", 1.0), seed=0)
    assert seen == [[0, 1, 2, 3, 4], [0, 1, 2, 3, 4], [3, 4]]
    assert result.success.all()
    assert result.hit.tolist() == [True, True, True, False, False]
    assert result.first_success.tolist() == [10] * 5
    predicted = Values()(result.adversarial).argmax(1)
    assert torch.equal(predicted == random_targets(0, torch.arange(5), y, 5), result.hit)
