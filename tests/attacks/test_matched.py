from __future__ import annotations

import hypothesis.strategies as st
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from tiny import Hidden
from torch import nn

from isce import attacks
from isce.attacks import Threat, run
from isce.attacks.ascent import ascended, pull
from isce.attacks.base import margin
from isce.attacks.spec import AttackSpec
from isce.losses import build


def spec(objective="margin", steps=20, restarts=1, **more) -> AttackSpec:
    return AttackSpec(attack="matched", objective=objective, steps=steps, restarts=restarts, **more)


class Linear(nn.Module):
    """Logits W x + b over four pixels and five classes; the true class leads by so much that nothing falls."""

    def __init__(self, seed: int, lead: float = 50.0) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.weight = torch.randn(5, 4, generator=generator, dtype=torch.float64)
        self.bias = torch.tensor([lead, 0, 0, 0, 0], dtype=torch.float64)

    def forward(self, x):
        return x.flatten(1) @ self.weight.T + self.bias


def lowest_margin(model: Linear, x, threat: Threat):
    """The exact minimum over ball and box: for each rival a linear function, least at the end of clip(x - t w)."""
    found = []
    for rival in range(1, 5):
        w = model.weight[0] - model.weight[rival]
        if threat.norm == "linf":
            z = (x.flatten(1) - threat.eps * w.sign()).clamp(0, 1)
        else:
            low, high = torch.zeros(len(x), 1, dtype=x.dtype), torch.full((len(x), 1), 1e3, dtype=x.dtype)
            for _ in range(100):
                middle = (low + high) / 2
                inside = ((x.flatten(1) - middle * w).clamp(0, 1) - x.flatten(1)).norm(dim=1, keepdim=True) < threat.eps
                low, high = torch.where(inside, middle, low), torch.where(inside, high, middle)
            z = (x.flatten(1) - low * w).clamp(0, 1)
        found.append(z @ w + model.bias[0] - model.bias[rival])
    return torch.stack(found).amin(0)


@settings(max_examples=8, deadline=None)
@given(seed=st.integers(0, 10_000), norm=st.sampled_from(["linf", "l2"]), eps=st.floats(0.02, 0.8))
def test_the_optimum_of_a_linear_model_is_found(seed, norm, eps):
    """One restart for each rival class; each is a linear programme over ball and box."""
    model, threat = Linear(seed), Threat(norm, eps)
    x = torch.rand(6, 1, 2, 2, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    y = torch.zeros(6, dtype=torch.int64)
    result = run(spec("targeted", steps=40, restarts=4), model, build("sce"), x, y, threat, seed=0)
    reached = margin(model(result.adversarial), y)
    best = lowest_margin(model, x, threat)
    assert (reached >= best - 1e-6).all()
    assert (reached - best).max() < 2e-2 * eps


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    norm=st.sampled_from(["linf", "l2"]),
    eps=st.floats(0.001, 1.0),
    objective=st.sampled_from(attacks.about("matched").objectives),
    step_size=st.floats(0.01, 50.0),
)
def test_no_result_ever_leaves_ball_or_box(seed, norm, eps, objective, step_size):
    generator = torch.Generator().manual_seed(seed)
    weights = 10 * torch.randn(12, 4, generator=generator), torch.randn(3, 12, generator=generator)

    class Model(nn.Module):
        def forward(self, x):
            return torch.relu(x.flatten(1) @ weights[0].T) @ weights[1].T

    x = torch.rand(5, 1, 2, 2, generator=generator).mul(1.5).sub(0.25).clamp(0, 1)
    y = torch.randint(3, (5,), generator=generator)
    threat = Threat(norm, eps)
    chosen = spec(objective, steps=4, restarts=2, step_size=step_size)
    result = run(chosen, Model(), build("isce-released"), x, y, threat, seed=seed)
    assert threat.inside(result.adversarial, x).all()
    assert result.adversarial.min() >= 0
    assert result.adversarial.max() <= 1
    assert not result.rejected.any()
    assert torch.equal(result.success, Model()(result.adversarial).argmax(1) != y)


@pytest.mark.parametrize("threat", [Threat("linf", 0.1), Threat("l2", 0.6)], ids=lambda t: t.label)
@pytest.mark.parametrize("which", ["target", "released"])
def test_it_breaks_at_least_what_advertorchs_pgd_breaks_with_the_same_steps(request, which, threat):
    target = request.getfixturevalue(which)

    def broken(chosen):
        result = run(chosen, target.classifier, target.objective, target.x, target.y, threat, seed=0)
        return int(result.success.sum())

    theirs = broken(AttackSpec(attack="pgd", objective="matched", steps=50))
    ours = broken(spec("margin", steps=50))
    assert 5 < theirs < 40
    assert ours >= theirs


class Scaled(nn.Module):
    """The same decisions, with logits so far apart that a softmax is 1 and 0 exactly."""

    def __init__(self, classifier, factor) -> None:
        super().__init__()
        self.classifier, self.factor = classifier, factor

    def forward(self, x):
        return self.factor * self.classifier(x)


@pytest.mark.parametrize("objective", ["training", "ce"])
@pytest.mark.parametrize("factor", [1e3, 1e6])
def test_saturated_logits_do_not_stall_it(target, objective, factor):
    threat, model = Threat("linf", 0.15), Scaled(target.classifier, factor)
    args = (build("sce"), target.x, target.y, threat)
    stalled = run(AttackSpec(attack="pgd", steps=20), model, *args, seed=0).success.sum()
    ours = run(spec(objective), model, *args, seed=0).success.sum()
    unscaled = run(spec(objective), target.classifier, *args, seed=0).success.sum()
    assert ours >= unscaled - 1
    assert ours >= stalled + 10


def test_cross_entropy_in_a_constant_saturation_still_has_its_direction():
    """The soft margin's gradient is the cross-entropy's, rescaled; by hand for three classes."""
    logits, y = torch.tensor([[4.0, 1.0, 0.0]], dtype=torch.float64), torch.tensor([0])
    loss_logits = logits.clone().requires_grad_()
    F.cross_entropy(loss_logits, y).backward()
    expected = loss_logits.grad / loss_logits.grad.abs().max()
    function, constants = ascended("ce", build("sce"), logits, y, restart=1)
    _, gradient, _ = pull(function, logits, y, None, torch.ones_like(constants))
    assert torch.allclose(gradient, expected)
    _, far, _ = pull(function, 1e5 * logits, y, None, torch.ones_like(constants))
    assert far.tolist() == [[-1.0, 1.0, 0.0]]


@pytest.mark.parametrize("name", ["sce", "isce", "isce-released"])
def test_pull_is_the_gradient_of_the_training_loss_where_that_has_one(name):
    objective, generator = build(name), torch.Generator().manual_seed(0)
    logits = torch.randn(8, 4, generator=generator)
    y = torch.randint(4, (8,), generator=generator)
    exact = logits.double().requires_grad_()
    objective.per_example(exact, y).sum().backward()
    function, constants = ascended("training", objective, logits, y, restart=0)
    value, gradient, embedding = pull(function, logits, y, None, constants)
    assert torch.allclose(value, objective.per_example(exact.detach(), y))
    assert torch.allclose(gradient, (exact.grad / exact.grad.abs().amax(1, keepdim=True)).float())
    assert embedding is None


@pytest.mark.parametrize("name", ["ce", "margin", "targeted"])
def test_gradients_in_closed_form_are_those_of_their_values(name):
    """By central differences."""
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(6, 5, generator=generator, dtype=torch.float64)
    y = torch.randint(5, (6,), generator=generator)
    function, constants = ascended(name, build("sce"), logits, y, restart=1)
    _, gradient, _ = pull(function, logits, y, None, constants)
    for k in range(5):
        moved = 1e-6 * F.one_hot(torch.tensor(k), 5)
        up, down = (pull(function, logits + sign * moved, y, None, constants)[0] for sign in (1, -1))
        assert torch.allclose(gradient[:, k], (up - down) / 2e-6, atol=1e-6)
    assert torch.allclose(gradient.abs().amax(1), torch.ones(6, dtype=torch.float64))


def test_a_loss_without_gradient_gives_way_to_the_margin_and_ranks_lowest():
    logits, y = torch.tensor([[5e4, 0.0, 1e4], [1.0, 0.0, 0.5]]), torch.tensor([0, 0])
    function, constants = ascended("training", build("sce"), logits, y, restart=0)
    value, gradient, _ = pull(function, logits, y, None, constants)
    assert value[0].item() == -4e4
    assert value[1].item() > 0
    assert gradient[0].tolist() == [-1.0, 0.0, 1.0]


def test_dlr_by_hand_and_refused_for_two_classes():
    logits, y = torch.tensor([[5.0, 3.0, 1.0, 0.0]], dtype=torch.float64), torch.tensor([1])
    function, constants = ascended("dlr", build("sce"), logits, y, restart=0)
    assert function(logits, y, None, constants)[0].item() == pytest.approx((5 - 3) / (5 - 1))
    with pytest.raises(ValueError, match="dlr needs at least 3 classes, got 2"):
        ascended("dlr", build("sce"), logits[:, :2], y, restart=0)


def test_targets_are_the_wrong_classes_in_the_order_of_their_logits():
    logits, y = torch.tensor([[5.0, 3.0, 1.0, 2.0]], dtype=torch.float64), torch.tensor([1])
    for restart, expected in enumerate([0, 3, 2, 0]):
        _, target = ascended("targeted", build("sce"), logits, y, restart)
        assert target.tolist() == [[expected]]


class Mean(nn.Module):
    """Class 1 wins where the mean pixel exceeds 0.5; notes the size of every batch it sees."""

    def __init__(self) -> None:
        super().__init__()
        self.sizes: list[int] = []

    def forward(self, x):
        self.sizes.append(len(x))
        mean = 10 * (x.flatten(1).mean(1) - 0.5)
        return torch.stack([-mean, mean], 1)


def test_images_leave_the_batch_the_step_they_fall():
    """Steps of 0.08, 0.064, ... : pixel sums 0.08, 0.144 + momentum; images at distance 0.05, 0.12 and 0.9 of eps."""
    x = torch.tensor([0.45, 0.38, 0.1], dtype=torch.float64).view(3, 1, 1, 1)
    y, model = torch.zeros(3, dtype=torch.int64), Mean()
    result = run(spec(steps=5, step_size=0.4), model, build("sce"), x, y, Threat("linf", 0.2), seed=0)
    assert result.first_success.tolist() == [1, 2, -1]
    # The clean logits and those of one image alone, five steps, the last point, the verification.
    assert model.sizes == [3, 1, 3, 3, 2, 1, 1, 1, 3]
    model.sizes.clear()
    known = torch.stack([-10 * (x[:, 0, 0, 0] - 0.5), 10 * (x[:, 0, 0, 0] - 0.5)], 1)
    run(spec(steps=5, step_size=0.4), model, build("sce"), x, y, Threat("linf", 0.2), seed=0, logits=known)
    assert model.sizes == [3, 3, 2, 1, 1, 1, 3]  # clean logits that are known are not computed again


def test_squares_find_what_gradients_hide():
    x, y = torch.full((4, 1, 4, 4), 0.45), torch.zeros(4, dtype=torch.int64)
    threat = Threat("linf", 0.1)
    stuck = run(spec(steps=40, restarts=1), Hidden(), build("sce"), x, y, threat, seed=0)
    freed = run(spec(steps=40, restarts=2), Hidden(), build("sce"), x, y, threat, seed=0)
    assert not stuck.success.any()
    assert freed.success.all()
    assert ((freed.first_success > 40) & (freed.first_success <= 80)).all()


@pytest.mark.parametrize(
    "chosen", [spec("margin", steps=5), AttackSpec(attack="pgd", steps=3)], ids=lambda row: row.label
)
def test_more_restarts_never_lose(target, chosen):
    args = (target.classifier, target.objective, target.x, target.y, Threat("linf", 0.08))
    one, four = (run(chosen.model_copy(update={"restarts": r}), *args, seed=0) for r in (1, 4))
    assert (four.success | ~one.success).all()
    with torch.no_grad():
        low, high = (margin(target.classifier(r.adversarial), target.y) for r in (four, one))
    still = ~four.success
    assert (low[still] <= high[still] + 1e-5).all()


def test_a_tiny_gradient_is_still_followed_in_l2():
    """Squares of 1e-30 underflow in float32."""

    class Tiny(nn.Module):
        def forward(self, x):
            mean = 1e-30 * (x.flatten(1).mean(1) - 0.5)
            return torch.stack([-mean, mean], 1)

    x, y = torch.full((1, 1, 2, 2), 0.45), torch.tensor([0])
    result = run(spec(steps=3), Tiny(), build("sce"), x, y, Threat("l2", 0.3), seed=0)
    assert result.success.all()


def test_a_gradient_that_is_not_a_number_stops_nothing():
    """The square root's slope at 0 is infinite, times 0 it is NaN."""

    class Nan(nn.Module):
        def forward(self, x):
            mean = 10 * (x[:, 0, 0, 1] - 0.5) + 0 * (x[:, 0, 0, 0] - x[:, 0, 0, 0]).sqrt()
            return torch.stack([-mean, mean], 1)

    x, y = torch.full((2, 1, 1, 2), 0.45), torch.zeros(2, dtype=torch.int64)
    result = run(spec(steps=3, restarts=2), Nan(), build("sce"), x, y, Threat("linf", 0.1), seed=0)
    assert result.adversarial.isfinite().all()
    assert not result.rejected.any()
