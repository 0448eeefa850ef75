from __future__ import annotations

import math

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given, settings
from torch import nn

from isce.attacks import Threat, run
from isce.attacks.base import Problem, keyed_noise, margin, untouched, verify
from isce.attacks.spec import AttackSpec
from isce.losses import build


def test_labels_of_threats():
    assert Threat("linf", 0.1).label == "linf@0.1"
    assert Threat("l2", 2.0).label == "l2@2"


@settings(max_examples=40, deadline=None)
@given(eps=st.floats(0.05, 2.0), seed=st.integers(0, 2**31))
def test_l2_projection_is_the_nearest_point(eps, seed):
    """Against bisection on the Lagrange form clip(x + t d)."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.rand(4, 1, 2, 3, generator=generator, dtype=torch.float64)
    z = x + 3 * torch.randn(4, 1, 2, 3, generator=generator, dtype=torch.float64)
    low, high = torch.zeros(4, 1, 1, 1, dtype=torch.float64), torch.ones(4, 1, 1, 1, dtype=torch.float64)
    for _ in range(80):
        middle = (low + high) / 2
        inside = ((x + middle * (z - x)).clamp(0, 1) - x).flatten(1).norm(dim=1).view(-1, 1, 1, 1) <= eps
        low, high = torch.where(inside, middle, low), torch.where(inside, high, middle)
    nearest = (x + low * (z - x)).clamp(0, 1)
    ours = Threat("l2", eps).project(z, x)
    excess = (ours - z).flatten(1).norm(dim=1) / (nearest - z).flatten(1).norm(dim=1)
    assert (excess < 1 + 1e-3).all()


def test_distance_by_hand():
    x, z = torch.zeros(1, 1, 1, 2), torch.tensor([[[[0.3, 0.4]]]])
    assert Threat("linf", 1.0).distance(z, x).item() == pytest.approx(0.4)
    assert Threat("l2", 1.0).distance(z, x).item() == pytest.approx(0.5)


def test_noise_depends_on_seed_index_and_restart_alone():
    shape = torch.Size([1, 4, 4])
    index = torch.tensor([5, 2, 9])
    noise = keyed_noise(3, index, 1, shape, "linf")
    assert torch.equal(noise[[2, 0]], keyed_noise(3, torch.tensor([9, 5]), 1, shape, "linf"))
    for other in (keyed_noise(4, index, 1, shape, "linf"), keyed_noise(3, index, 0, shape, "linf")):
        assert not torch.isclose(noise, other).all(dim=(1, 2, 3)).any()


def test_noise_fills_the_unit_ball():
    index, shape = torch.arange(2000), torch.Size([1, 1, 3])
    linf = keyed_noise(0, index, 0, shape, "linf").flatten(1)
    assert linf.abs().max() <= 1
    assert linf.mean(0).abs().max() < 0.05  # 4 standard errors
    assert (linf.var(0) - 1 / 3).abs().max() < 0.03
    radius = keyed_noise(0, index, 0, shape, "l2").flatten(1).norm(dim=1)
    assert radius.max() <= 1 + 1e-6
    assert (radius**3).mean().item() == pytest.approx(0.5, abs=0.03)  # uniform in the ball: r^3 is uniform


def test_margin_by_hand():
    logits = torch.tensor([[1.0, 3.0, 2.0], [5.0, 3.0, 4.0]])
    assert margin(logits, torch.tensor([1, 2])).tolist() == [1.0, -1.0]


class _Sum(nn.Module):
    """Class 1 wherever the mean pixel exceeds 0.5; not finite where the first pixel is exactly ``bad``."""

    def __init__(self, bad: float = 2.0) -> None:
        super().__init__()
        self.bad = bad

    def forward(self, x):
        mean = x.flatten(1).mean(1) - 0.5
        mean = torch.where(x[:, 0, 0, 0] == self.bad, torch.nan, mean)
        return torch.stack([-mean, mean], 1)


def test_verify_replaces_what_is_outside_or_not_finite_and_judges_the_rest():
    x, y = torch.full((4, 1, 1, 2), 0.4), torch.zeros(4, dtype=torch.int64)
    model = _Sum(bad=0.5)
    problem = Problem(model, build("sce"), x, y, torch.arange(4), Threat("linf", 0.2), 0, model(x), best=x)
    points = torch.tensor([[0.6, 0.6], [0.7, 0.7], [math.nan, 0.6], [0.5, 0.6]]).view(4, 1, 1, 2)
    held, success, _, _, rejected = verify(problem, points)
    assert success.tolist() == [True, False, False, False]
    assert rejected.tolist() == [False, True, True, True]  # good; outside; NaN; logits not finite
    assert torch.equal(held[1:], x[1:])
    assert torch.equal(held[0], points[0])


def test_untouched_restores_modes_gradients_and_buffers_even_after_an_error():
    module = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2), nn.Dropout())
    module[1].eval()
    module[0].bias.requires_grad_(False)
    gradient = torch.ones(2, 2)
    module[0].weight.grad = gradient
    before = {name: value.clone() for name, value in module.state_dict().items()}

    def attack():
        with untouched(module), torch.no_grad():
            assert not module.training
            assert not any(p.requires_grad for p in module.parameters())
            module[1].train()
            module(torch.randn(4, 2))
            raise RuntimeError("inside")

    with pytest.raises(RuntimeError, match="inside"):
        attack()
    assert [part.training for part in module] == [True, False, True]
    assert [p.requires_grad for p in module.parameters()] == [True, False, True, True]
    assert module[0].weight.grad is gradient
    assert torch.equal(gradient, torch.ones(2, 2))
    assert module[1].weight.grad is None
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())


class Assigning(nn.Module):
    """Changes its buffers in every way: anew, in place, from and to None, one more, one less."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(()))
        for name, value in (("running", 0.0), ("calls", 0.0), ("unset", None), ("cleared", 1.0), ("gone", 2.0)):
            self.register_buffer(name, None if value is None else torch.tensor(value))

    def forward(self, x):
        self.running = 0.9 * self.running + 0.1 * x.detach().mean()
        self.calls += 1
        self.unset, self.cleared = torch.ones(()), None
        self.register_buffer("added", torch.ones(()))
        if hasattr(self, "gone"):
            del self.gone
        mean = self.weight * (x.flatten(1).mean(1) - self.running)
        return torch.stack([-mean, mean], 1)


def test_an_attack_leaves_buffers_that_the_network_assigns_anew():
    module = Assigning().eval()
    before, running = {name: value.clone() for name, value in module.state_dict().items()}, module.running
    x = torch.rand(4, 1, 2, 2, generator=torch.Generator().manual_seed(0))
    y = torch.zeros(4, dtype=torch.int64)
    run(AttackSpec(attack="search", steps=5), module, build("sce"), x, y, Threat("linf", 0.1), seed=0)
    after = module.state_dict()
    assert after.keys() == before.keys()
    assert all(torch.equal(after[name], value) for name, value in before.items())
    assert module.running is running
    assert module.unset is None
    assert not hasattr(module, "added")


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:DeprecationWarning")
def test_untouched_takes_a_scripted_network():
    module = torch.jit.script(nn.BatchNorm1d(2))
    with untouched(module):
        module.train()
        module(torch.randn(4, 2))
    assert module.training
    assert module.running_mean.tolist() == [0, 0]


def test_untouched_enables_gradients():
    with torch.no_grad(), untouched(nn.Linear(1, 1)):
        assert torch.is_grad_enabled()
