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


@pytest.mark.parametrize("eps", [0.0, -0.1, 1.01, math.nan, math.inf])
def test_linf_eps_is_refused_outside_its_range(eps: float):
    with pytest.raises(ValueError, match=r"eps must be in \(0, 1\] for linf"):
        Threat("linf", eps)


@pytest.mark.parametrize("eps", [0.0, -1.0, math.nan, math.inf])
def test_l2_eps_is_refused_outside_its_range(eps: float):
    with pytest.raises(ValueError, match="eps must be above 0 and finite for l2"):
        Threat("l2", eps)


def test_unknown_norm_lists_the_known():
    with pytest.raises(ValueError, match="unknown norm 'l1'; known: linf, l2"):
        Threat("l1", 0.1)  # pyright: ignore[reportArgumentType]


def test_labels_of_threats():
    assert Threat("linf", 0.1).label == "linf@0.1"
    assert Threat("l2", 2.0).label == "l2@2"


@settings(max_examples=80, deadline=None)
@given(
    norm=st.sampled_from(["linf", "l2"]),
    eps=st.floats(1e-3, 1.0),
    size=st.floats(0, 100),
    seed=st.integers(0, 2**31),
    dtype=st.sampled_from([torch.float32, torch.float64]),
)
def test_a_projected_point_is_inside_and_projection_leaves_inside_points(norm, eps, size, seed, dtype):
    generator = torch.Generator().manual_seed(seed)
    threat = Threat(norm, eps)
    x = torch.rand(6, 1, 3, 3, generator=generator, dtype=dtype).mul(1.4).sub(0.2).clamp(0, 1)  # some at the border
    z = x + size * torch.randn(6, 1, 3, 3, generator=generator, dtype=dtype)
    p = threat.project(z, x)
    assert threat.inside(p, x).all()
    assert p.min() >= 0
    assert p.max() <= 1
    assert (threat.project(p, x) - p).abs().max() < 1e-6


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


def test_inside_is_false_for_what_is_not_finite_or_outside():
    x = torch.full((5, 1, 2, 2), 0.95)
    z = x.clone()
    z[1, 0, 0, 0] = math.nan
    z[2, 0, 0, 0] = math.inf
    z[3, 0, 0, 0] = 1.01  # in the ball, outside the box
    z[4, 0, 0, 0] = 0.8  # in the box, outside the ball
    assert Threat("linf", 0.1).inside(z, x).tolist() == [True, False, False, False, False]


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


X = torch.full((3, 1, 2, 2), 0.5)
Y = torch.tensor([0, 1, 1])


@pytest.mark.parametrize(
    ("x", "y", "index", "error", "message"),
    [
        (X.to(torch.uint8), Y, None, TypeError, "images must be floating point in .*torch.uint8"),
        (X, Y.int(), None, TypeError, "labels must be int64, got torch.int32"),
        (X[0], Y, None, ValueError, r"images must have shape \(N, C, H, W\), got \(1, 2, 2\)"),
        (X[:0], Y[:0], None, ValueError, "empty batch"),
        (X, Y[:2], None, ValueError, r"labels must have shape \(3,\) .* got \(2,\)"),
        (X + 1, Y, None, ValueError, "images must lie in .* got values from 1.5 to 1.5"),
        (X - 1, Y, None, ValueError, "images must lie in"),
        (X * math.nan, Y, None, ValueError, "images must lie in .* NaN"),
        (X, Y - 1, None, ValueError, "labels must be at least 0, got -1"),
        (X, Y, torch.tensor([0, 1]), ValueError, "index must hold one position"),
        (X, Y, torch.tensor([0, 1, -1]), ValueError, "index must hold one position"),
        (X, Y, torch.tensor([0.0, 1, 2]), TypeError, "index must be int64"),
    ],
)
def test_bad_input_is_refused_with_one_clear_error(x, y, index, error, message):
    with pytest.raises(error, match=message):
        run(AttackSpec(attack="fgsm"), _Sum(), build("sce"), x, y, Threat("linf", 0.1), seed=0, index=index)


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


def test_untouched_enables_gradients():
    with torch.no_grad(), untouched(nn.Linear(1, 1)):
        assert torch.is_grad_enabled()
