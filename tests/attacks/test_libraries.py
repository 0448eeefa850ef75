"""What the packages do otherwise than one would guess, and that none of it reaches a result."""

from __future__ import annotations

import math
import sys

import pytest
import torch
from mean_model import parameters
from tiny import ROWS, Layers, Mean, attack, flat, images, predicted, threat_of
from torch import nn

from isce import attacks
from isce.attacks import Threat
from isce.attacks.foreign import pixels
from isce.attacks.spec import AttackSpec
from isce.evaluation import evaluate
from isce.losses import build


@pytest.mark.parametrize("pairs", [1, 3 * 64**2])
def test_jsma_finds_the_same_points_however_many_pairs_it_rates_at_once(monkeypatch, pairs):
    x = images(10)
    y = predicted(Layers(), x)
    spec = ROWS["jsma"].model_copy(update={"eps": 20.0})
    whole = attack(spec, Layers(), x, y, Threat("l0", 20))
    monkeypatch.setattr(pixels, "PAIRS", pairs)
    assert int(whole.success.sum()) > 0
    parts = attack(spec, Layers(), x, y, Threat("l0", 20))
    assert torch.equal(parts.adversarial, whole.adversarial)
    assert torch.equal(parts.success, whole.success)


GRADIENT = [name for name in attacks.names() if attacks.about(name).family == "gradient"]
MINIMAL = [name for name in attacks.names() if attacks.about(name).minimal]
L2 = Threat("l2", 0.45)


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("name", GRADIENT)
def test_the_margin_is_ascended_alike_at_every_scale_of_the_logits(name, norm):
    """advertorch divides a gradient by its norm or 1e-6: logits a thousandth as large took steps that went nowhere."""
    if norm not in attacks.about(name).norms:
        return
    x, threat = images(40), L2 if norm == "l2" else Threat("linf", 0.1)
    spec = ROWS[name].model_copy(update={"objective": "matched"})
    y = predicted(Layers(), x)
    plain, *others = (attack(spec, Layers(gain=gain), x, y, threat).success for gain in (1, 1e-9, 1e-3, 1e3))
    assert 0 < int(plain.sum()) < len(x)
    assert all(torch.equal(other, plain) for other in others)


class Confident(nn.Module):
    """Logits as in ``Layers`` but for a lead of class 0, so large that the loss is tiny."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = Layers().double()

    def forward(self, x):
        return self.layers(x) + 30 * (torch.arange(4) == 0)


@pytest.mark.parametrize("name", ["fgsm", "bim"])
def test_a_tiny_training_loss_is_ascended_by_steps_of_the_whole_length(name):
    """Against the same steps written down here: x + step g / |g|, into the box, then into the ball."""
    x, model, loss = images(6).double(), Confident(), build("sce")
    y, steps = torch.zeros(6, dtype=torch.int64), ROWS[name].steps
    step = L2.eps if name == "fgsm" else L2.eps * 2.5 / steps
    point = x
    for _ in range(steps):
        leaf = point.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(loss.per_example(model(leaf), y).sum(), leaf)
        assert 0 < float(gradient.flatten(1).norm(dim=1).max()) < 1e-6
        point = point + step * gradient / gradient.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
        delta = point.clamp(0, 1) - x
        point = x + delta * (L2.eps / delta.flatten(1).norm(dim=1)).clamp(max=1).view(-1, 1, 1, 1)
    found = attack(ROWS[name], model, x, y, L2)
    assert not found.success.any()
    assert (found.adversarial - point).abs().max() < 1e-5


def test_carlini_and_wagner_finds_the_same_alone_as_in_a_batch():
    """Its early stop would watch the loss of the whole batch."""
    model, x = Layers(), images(5)
    y = predicted(model, x)
    together = attack(ROWS["cw"], model, x, y).adversarial
    for row in range(len(x)):
        alone = attack(ROWS["cw"], model, x[[row]], y[[row]], index=torch.tensor([row])).adversarial
        assert (alone - together[[row]]).abs().max() < 1e-4


class Firm(nn.Module):
    """Class 0 by far, wherever one looks; its logits have gradients."""

    def forward(self, x):
        mean = x.flatten(1).mean(1)
        return torch.stack([5 + 0.1 * mean, mean, mean**2, 0.5 * mean], 1)


@pytest.mark.parametrize("name", ["autoattack", *MINIMAL, "spatial"])
def test_a_package_that_finds_nothing_has_found_nothing(name):
    """Most hand back the clean image then, spatial a black one, foolbox its last point."""
    x = images(2)
    found = attack(ROWS[name], Firm(), x, torch.zeros(2, dtype=torch.int64))
    assert not found.success.any()
    assert torch.equal(found.first_success, torch.tensor([-1, -1]))


@pytest.mark.parametrize("name", ["autoattack", *MINIMAL])
def test_what_was_wrong_from_the_start_is_no_merit_of_an_attack(name):
    """foolbox calls it a success at eps 0; C&W moves it by 1e-5."""
    model, x = Layers(), images(6)
    y = predicted(model, x)
    y[:3] = (y[:3] + 1) % 4
    spec, threat = ROWS[name], threat_of(ROWS[name])
    given = parameters([spec], [threat.eps], norm=threat.norm)
    outcome = evaluate(model, build("sce"), x, y, given, progress=False).outcomes[threat.label][spec.label]
    assert not outcome.broken[:3].any()
    assert outcome.broken[3:].any()
    assert torch.equal(attack(spec, model, x, y, threat).adversarial[:3], x[:3])


class NanOffTheGrid(nn.Module):
    """Logits of four flat images alone; everywhere else no number."""

    def forward(self, x):
        mean = x.flatten(1).mean(1)
        known = (x == (4 * x).round() / 4).flatten(1).all(1)
        logits = -((4 * mean[:, None] - torch.arange(4.0)) ** 2)
        return torch.where(known[:, None], logits, math.nan) + 0 * x.flatten(1)[:, :4]


@pytest.mark.parametrize("name", attacks.names())
def test_logits_that_are_no_numbers_are_never_a_success(name):
    """pyautoattack takes the arg max of NaN for class 0: class 0 stands, every other class falls."""
    x = (torch.arange(4) / 4).view(-1, 1, 1, 1).repeat(1, 1, 2, 2)
    found = attack(ROWS[name], NanOffTheGrid(), x, torch.arange(4))
    held = NanOffTheGrid()(found.adversarial)
    assert held.isfinite().all()
    assert torch.equal(found.success, held.argmax(1) != torch.arange(4))


def test_autoattack_leaves_the_tracer_and_the_generator_alone():
    """A debugger, or coverage on Python 3.11, is a trace function."""

    def tracer(frame, event, argument):
        return None

    before, outer = torch.get_rng_state(), sys.gettrace()
    model, x = Layers(), images(2)
    sys.settrace(tracer)
    try:
        attack(ROWS["autoattack"], model, x, predicted(model, x))
        assert sys.gettrace() is tracer
    finally:
        sys.settrace(outer)
    assert torch.equal(torch.get_rng_state(), before)


def test_foolbox_is_not_told_that_a_timed_network_is_in_training():
    x, y = flat(0.45, 0.48)
    found = attack(AttackSpec(attack="deepfool", steps=5), Mean(), x, y, Threat("linf", 0.1), deadline=math.inf)
    assert found.success.all()
