"""The minimum-norm attacks: closed forms of linear networks in ball and box, and what it keeps of what it saw."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from mean_model import parameters
from tiny import Layers, Times, images, predicted
from torch import Tensor, nn

from isce.attacks import AttackResult, Threat, run
from isce.attacks.base import margin
from isce.attacks.fmn import rounding
from isce.attacks.spec import AttackSpec
from isce.evaluation import evaluate
from isce.losses import build

WIDEST = {"linf": Threat("linf", 1.0), "l2": Threat("l2", 4.0)}  # images have 16 pixels


BOTH = pytest.mark.parametrize("name", ["fmn", "nearest"])


def attacked(
    model: nn.Module, x: Tensor, y: Tensor, threat: Threat, steps: int = 60, *, name: str = "fmn"
) -> AttackResult:
    return run(AttackSpec(attack=name, steps=steps), model, build("sce"), x, y, threat, seed=0)


class Linear(nn.Module):
    """Two classes over 16 pixels; class 0 leads where the weighted sum lies below a bound."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        self.weight = torch.randn(16, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        self.bound = float(self.weight.clamp(min=0).sum() * 0.65 + self.weight.clamp(max=0).sum() * 0.35)

    def forward(self, x):
        over = x.flatten(1) @ self.weight - self.bound
        return torch.stack([-over, over], 1)


def closed_form(model: Linear, x: Tensor, norm: str) -> Tensor:
    """Smallest change that reaches the bound inside the box: of clip(x + t d), by bisection of t.

    The direction d is the gradient's sign in l_inf, the gradient itself in l_2 (Lagrange conditions with the box).
    """
    flat, direction = x.flatten(1), model.weight.sign() if norm == "linf" else model.weight
    low, high = torch.zeros(len(x), 1, dtype=x.dtype), torch.full((len(x), 1), 1e3, dtype=x.dtype)
    for _ in range(100):
        middle = (low + high) / 2
        over = ((flat + middle * direction).clamp(0, 1) @ model.weight)[:, None] > model.bound
        low, high = torch.where(over, low, middle), torch.where(over, middle, high)
    change = (flat + high * direction).clamp(0, 1) - flat
    return change.norm(math.inf if norm == "linf" else 2, dim=1)


@BOTH
@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("seed", range(4))
def test_the_distance_of_a_linear_network_is_found_in_ball_and_box(norm, seed, name):
    model, x = Linear(seed), images(12, seed=seed).double()
    y = predicted(model, x)
    x, y = x[y == 0], y[y == 0]
    threat, exact = WIDEST[norm], closed_form(model, x, norm)
    result = attacked(model, x, y, threat, name=name)
    assert ((x + exact.view(-1, 1, 1, 1) > 1) | (x - exact.view(-1, 1, 1, 1) < 0)).any(), "the box matters"
    distance = threat.distance(result.adversarial, x)
    assert result.success.all()
    assert (distance >= exact - 1e-9).all()
    assert (distance / exact).max() < 1.02


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_more_steps_find_no_larger_changes(norm):
    """Of a network with corners single images may come out a little further away."""
    model, x = Layers().double(), images(24).double()
    y, threat = predicted(model, x), WIDEST[norm]
    few, more = (threat.distance(attacked(model, x, y, threat, steps).adversarial, x) for steps in (15, 120))
    assert float(more.median()) <= float(few.median())
    assert (more <= 1.05 * few).all()


class Noting(nn.Module):
    """Another network; of each image the distance of the nearest point that it clearly misclassified."""

    def __init__(self, model: nn.Module, x: Tensor, y: Tensor, threat: Threat) -> None:
        super().__init__()
        self.model, self.x, self.y, self.threat = model, x, y, threat
        self.nearest = torch.full((len(x),), math.inf, dtype=torch.float64)

    def forward(self, x):
        logits = self.model(x)
        if len(x) == len(self.x):  # else the check that images can be classified one by one
            fallen = margin(logits.detach(), self.y) < -rounding(logits.detach(), self.y)
            distance = self.threat.distance(x.detach(), self.x).masked_fill(~fallen, math.inf)
            self.nearest = torch.minimum(self.nearest, distance)
        return logits


class Far(nn.Module):
    """Class 1 comes second in the logits but lies far; class 2, the last, lies at 0.05 along another pixel."""

    def forward(self, x):
        first, second = x[:, 0, 0, 0], x[:, 0, 0, 1]
        return torch.stack([0 * first, 0.4 * (first - 0.5) - 0.1, 20 * (second - 0.5) - 1], 1)


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_the_class_that_is_nearest_is_found_though_another_has_the_higher_logit(norm):
    x = torch.full((2, 1, 4, 4), 0.5, dtype=torch.float64)
    y, threat = torch.zeros(2, dtype=torch.int64), WIDEST[norm]
    near, far = (
        threat.distance(attacked(Far(), x, y, threat, steps=100, name=name).adversarial, x)
        for name in ("nearest", "fmn")
    )
    assert near.tolist() == pytest.approx([0.05, 0.05], rel=0.02)
    assert (far >= near).all()
    if norm == "l2":  # in l_inf a step moves all pixels that have a gradient: of class 1 the first alone
        assert far.min() > 0.2


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_more_directions_find_no_larger_changes(norm):
    model, x = Layers(classes=8).double(), images(24).double()
    y, threat = predicted(model, x), WIDEST[norm]
    near, far = (attacked(model, x, y, threat, steps=15, name=name) for name in ("nearest", "fmn"))
    assert (near.success | ~far.success).all()
    gain = (threat.distance(far.raw, x) - threat.distance(near.raw, x))[far.success]
    assert (gain >= -1e-9).all()
    assert (gain > 1e-3).any()


@BOTH
@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("steps", [3, 30])
def test_the_nearest_point_that_was_seen_is_handed_back(norm, steps, name):
    inner, x = Layers(gain=3.0).double(), images(12).double()
    y, threat = predicted(inner, x), WIDEST[norm]
    model = Noting(inner, x, y, threat)
    result = attacked(model, x, y, threat, steps, name=name)
    assert result.success.any()
    assert threat.distance(result.raw, x)[result.success] == pytest.approx(model.nearest[result.success].numpy())
    assert torch.equal(result.success, model.nearest < math.inf)
    assert torch.equal(result.raw[~result.success], x[~result.success])


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_what_falls_at_an_eps_falls_at_every_larger_one(norm):
    model, x = Layers().double(), images(16).double()
    grid = [0.02, 0.05, 0.1, 0.3] if norm == "linf" else [0.1, 0.2, 0.5, 1.5]
    given = parameters([AttackSpec(attack="fmn", steps=20)], grid, norm=norm)
    found = evaluate(model, build("sce"), x, predicted(model, x), given, progress=False)
    rows = [outcomes["fmn20"] for outcomes in found.outcomes.values()]
    for eps, row in zip(grid, rows, strict=True):
        assert row.broken.tolist() == (found.distance(norm) <= eps).tolist()
    assert 0 < rows[0].broken.sum() < rows[-1].broken.sum()


class Blinding(nn.Module):
    """Class 1 where the mean pixel exceeds 0.5; no number is the gradient where the first pixel lies above a bound."""

    def __init__(self, bound: float) -> None:
        super().__init__()
        self.bound = bound

    def forward(self, x):
        hidden = torch.where(x[:, 0, 0, 0] > self.bound, torch.nan, 1.0)
        x = Times.apply(x, hidden.view(-1, 1, 1, 1))
        mean = 10 * (x.flatten(1).mean(1) - 0.5)
        return torch.stack([-mean, mean], 1)


@BOTH
@pytest.mark.parametrize("threat", [Threat("linf", 0.05), Threat("l2", 0.2)], ids=lambda threat: threat.label)
@pytest.mark.parametrize("bound", [0.0, 0.45])
def test_a_gradient_that_is_no_number_gives_no_outcome_unless_the_image_falls(threat, bound, name):
    """At once; and on the way, when a point beyond eps may be known already. 0.47 lies within eps, 0.3 beyond."""
    x = torch.tensor([0.3, 0.47]).view(-1, 1, 1, 1).repeat(1, 1, 4, 4)
    y = torch.zeros(2, dtype=torch.int64)
    result = attacked(Blinding(bound), x, y, threat, name=name)
    assert result.rejected[0]
    assert not result.success[0]
    assert result.rejected[1] != result.success[1]
    assert not attacked(Blinding(2.0), x, y, threat, name=name).rejected.any()


class Changed(nn.Module):
    """A network whose logits are changed by a function that changes no decision."""

    def __init__(self, change: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.inner, self.change = Layers(), change

    def forward(self, x):
        return self.change(self.inner(x))


SAME = {
    "masked": lambda z: torch.cat([z, torch.full((len(z), 1), -1e9, dtype=z.dtype)], 1),
    "far up": lambda z: z.double() + 1e9,
    "denormal": lambda z: z * 1e-42,
    "huge": lambda z: z * 1e25,
}


@BOTH
@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("change", list(SAME))
def test_logits_that_decide_alike_look_no_more_robust(change, norm, name):
    x = images(12)
    threat, y = WIDEST[norm], predicted(Layers(), x)
    plain, found = (attacked(model, x, y, threat, name=name) for model in (Layers(), Changed(SAME[change])))
    assert plain.success.all()
    assert found.success.all()
    assert threat.distance(found.raw, x).median() <= 1.1 * threat.distance(plain.raw, x).median()


class Endless(torch.autograd.Function):
    """The identity, with an infinite gradient."""

    @staticmethod
    def forward(ctx, x):  # pyright: ignore[reportIncompatibleMethodOverride]
        return x.clone()

    @staticmethod
    def backward(ctx, gradient):  # pyright: ignore[reportIncompatibleMethodOverride]
        return gradient.sign() * math.inf


@BOTH
@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_an_infinite_gradient_gives_no_outcome_unless_the_image_falls(norm, name):
    class Network(Layers):
        def forward(self, x):
            return super().forward(Endless.apply(x))

    x = images(8)
    result = attacked(Network(), x, predicted(Layers(), x), Threat(norm, 0.05), name=name)
    assert (result.success | result.rejected).all()
