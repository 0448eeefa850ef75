"""The statements on both readings of I-SCE that the book proves: reweighting, gradient, max-margin limit, the kink."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from isce import losses
from isce.losses import inference_softmax_cross_entropy as isce
from isce.losses import released_inference_softmax_cross_entropy as released

TERMS = [-5.0, -2.0, -0.5, 0.5, 2.0, 5.0]


def problem(n: int = 64, c: int = 10, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return 3 * torch.randn(n, c, generator=generator).double(), torch.randint(c, (n,), generator=generator)


def gradient(loss: Callable[[Tensor], Tensor], z: Tensor) -> Tensor:
    """Gradient of the sum over examples: of each example by its own logits."""
    z = z.clone().requires_grad_()
    return torch.autograd.grad(loss(z).sum(), z)[0]


# The text reading with a scalar term only reweights.


@settings(deadline=None)
@given(m=st.floats(-20, 20), z=st.lists(st.floats(-15, 15), min_size=2, max_size=6))
def test_scalar_term_is_an_increasing_function_of_sce(m, z):
    logits, y = torch.tensor([z]).double(), torch.tensor([0])
    sce = float(isce(logits, y, 0.0))
    rounding = 1e-14 * max(1, math.exp(m))  # either side is small as a difference of two logits
    assert float(isce(logits, y, m)) == pytest.approx(math.log1p(math.exp(m) * math.expm1(sce)), rel=1e-9, abs=rounding)


@pytest.mark.parametrize("m", TERMS)
def test_scalar_term_reweights_the_gradient_of_sce(m):
    z, y = problem()
    p = z.softmax(1).gather(1, y.unsqueeze(1))
    weight = math.exp(m) / (p + math.exp(m) * (1 - p))
    plain = gradient(lambda z: isce(z, y, 0.0, reduction="none"), z)
    termed = gradient(lambda z: isce(z, y, m, reduction="none"), z)
    torch.testing.assert_close(termed, weight * plain)
    assert torch.equal(termed.sign(), plain.sign())  # so a step along the sign of the gradient is the same
    assert ((weight > 1) == (m > 0)).all()


def test_weight_tends_to_e_to_the_m_for_confident_examples():
    z = torch.tensor([[20.0, 0.0]]).double()
    y = torch.tensor([0])
    ratio = gradient(lambda z: isce(z, y, 2.0), z) / gradient(lambda z: isce(z, y, 0.0), z)
    torch.testing.assert_close(ratio, torch.full_like(ratio, math.exp(2)), rtol=1e-3, atol=0)


def test_a_term_for_each_class_keeps_the_direction_of_each_example_and_one_for_each_pair_does_not():
    """A vector m[y] is a scalar to each example: only the batch's gradient turns. A matrix turns each example's."""
    z, y = problem(c=3)
    vector = torch.tensor([2.0, -1.0, 0.5]).double()
    matrix = torch.tensor([[0.0, 3.0, -3.0], [1.0, 0.0, 0.0], [0.0, 2.0, 0.0]]).double()

    def cosine(a: Tensor, b: Tensor, dim: int) -> Tensor:
        return torch.nn.functional.cosine_similarity(a, b, dim=dim)

    plain = gradient(lambda z: isce(z, y, 0.0, reduction="none"), z)
    by_class = gradient(lambda z: isce(z, y, vector, reduction="none"), z)
    by_pair = gradient(lambda z: isce(z, y, matrix, reduction="none"), z)
    torch.testing.assert_close(cosine(plain, by_class, 1), torch.ones(len(y)).double())
    assert cosine(plain.flatten(), by_class.flatten(), 0) < 0.99
    assert cosine(plain, by_pair, 1).min() < 0.9


@pytest.mark.parametrize("m", [-2.0, 0.0, 2.0])
def test_linear_model_on_separable_data_tends_to_the_max_margin_direction(m):
    """By normalised gradient descent, for every constant m.

    Class 1 lies at u and beyond along u, at u on both sides, class 0 opposite: so a mix of the nearest points is u
    itself, which makes u the direction of largest margin (the constant column, a bias, has no part in it).
    """
    u = torch.tensor([0.8, 0.6]).double()
    across = torch.tensor([-0.6, 0.8]).double()
    generator = torch.Generator().manual_seed(3)
    along = torch.cat([torch.ones(2), 1.3 + torch.rand(18, generator=generator)]).double()
    aside = torch.cat([torch.tensor([-0.5, 1.5]), 2 * torch.randn(18, generator=generator) + 1]).double()
    side = along[:, None] * u + aside[:, None] * across
    inputs = torch.cat([torch.cat([side, -side]), torch.ones(40, 1).double()], 1)
    y = (torch.arange(40) < 20).long()
    best = torch.cat([u, torch.zeros(1).double()])
    weight = torch.zeros(2, 3, dtype=torch.float64)
    angles = []
    for step in range(301):
        slope = gradient(lambda w: isce(inputs @ w.T, y, m), weight)
        weight = weight - 0.2 * slope / slope.norm()
        if step in (7, 75, 300):
            cosine = torch.nn.functional.cosine_similarity(weight[1] - weight[0], best, dim=0)
            angles.append(math.degrees(math.acos(min(float(cosine), 1.0))))
    assert angles[0] > 4 > angles[1] > angles[2], angles
    assert angles[2] < 0.5, angles


# The gradient of the text reading, and where float32 loses it.


@pytest.mark.parametrize("m", TERMS)
def test_gradient_of_a_wrong_class_is_its_softmax_after_the_term_and_grows_with_it(m):
    z, y = problem()
    shift = m * torch.nn.functional.one_hot(y, 10)
    slope = gradient(lambda z: isce(z, y, m, reduction="none"), z)
    wrong = torch.nn.functional.one_hot(y, 10) == 0
    torch.testing.assert_close(slope[wrong], (z - shift).softmax(1)[wrong])
    more = gradient(lambda z: isce(z, y, m + 0.1, reduction="none"), z)
    assert (more[wrong] > slope[wrong]).all()


@pytest.mark.parametrize("m", [-2.0, 0.0, 2.0])
def test_float32_loses_the_true_class_long_before_the_wrong_ones(m):
    """Two classes: p_y - 1 is 0 from a gap of 24 ln 2 = 16.6 on, the other entry only from about 104; each plus m."""
    gaps = torch.arange(10, 115, 0.05)
    z = torch.stack([gaps, torch.zeros_like(gaps)], 1)
    y = torch.zeros(len(gaps), dtype=torch.int64)
    slope = gradient(lambda z: isce(z, y, m, reduction="none"), z)
    last = [float(gaps[slope[:, k] != 0].max()) - m for k in (0, 1)]
    assert last[0] == pytest.approx(24 * math.log(2), abs=0.8)
    assert last[1] == pytest.approx(149.5 * math.log(2), abs=0.8)


# The released reading on the unit sphere, with 10 classes and the wrong ones equal.


def on_sphere(t: float, c: int = 10) -> Tensor:
    """t_y = t for class 0, the other classes equal and negative."""
    z = torch.full((1, c), -math.sqrt((1 - t * t) / (c - 1)), dtype=torch.float64)
    z[0, 0] = t
    return z


def value(t: float, **params: float | bool) -> float:
    return float(released(on_sphere(t), torch.tensor([0]), **params))


def golden_minimum(function: Callable[[float], float], low: float, high: float) -> float:
    """Point of the least value of a function with one valley."""
    ratio = (math.sqrt(5) - 1) / 2
    for _ in range(100):
        a, b = high - ratio * (high - low), low + ratio * (high - low)
        low, high = (low, b) if function(a) < function(b) else (a, high)
    return (low + high) / 2


MINIMA = {
    "plain": ({"inference": 0.0, "clip": False}, 1.4199, 0.9487, 0.242),
    "term": ({"inference": 0.1, "clip": False}, 1.3450, 0.9487, 0.261),
    "clipped": ({"inference": 0.1, "clip": True}, 1.3515, 0.9000, 0.259),
}


@pytest.mark.parametrize("kind", MINIMA)
def test_minima_of_the_released_reading(kind):
    params, least, at, probability = MINIMA[kind]
    t = golden_minimum(lambda t: value(t, **params), 0.5, 1.0)
    assert t == pytest.approx(at, abs=5e-5)
    assert value(t, **params) == pytest.approx(least, abs=5e-5)
    out = losses.released_outputs(on_sphere(t), **params)
    assert float(out.softmax(1).max()) == pytest.approx(probability, abs=5e-4)


@pytest.mark.parametrize("c", [3, 10, 100])
def test_unclipped_minimum_is_at_the_simplex(c):
    t = golden_minimum(lambda t: float(released(on_sphere(t, c), torch.tensor([0]), clip=False)), 0.3, 1.0)
    assert t == pytest.approx(math.sqrt((c - 1) / c), abs=1e-6)


def test_minimum_over_all_logits_is_the_one_with_equal_wrong_classes():
    """The table looks at equal wrong classes only: descent from random points finds nothing lower."""
    z = torch.randn(200, 10, generator=torch.Generator().manual_seed(0)).double()
    z[:, 0] += 3
    y = torch.zeros(200, dtype=torch.int64)
    for kind in ("plain", "term"):
        params, least, *_ = MINIMA[kind]
        point = z.clone()
        for _ in range(300):
            slope = gradient(lambda z: released(z, y, reduction="none", **params), point)  # noqa: B023
            point = torch.nn.functional.normalize(point - 0.5 * slope, dim=1)
        assert released(point, y, reduction="none", **params).min() == pytest.approx(least, abs=5e-5)


def test_clip_makes_a_kink_at_0_9():
    h = 1e-6
    left = (value(0.9) - value(0.9 - h)) / h
    right = (value(0.9 + h) - value(0.9)) / h
    p = math.exp(1.0) / (math.exp(1.0) + 9 * math.exp(-math.sqrt(0.19 / 9)))
    rise = (1 - p) * 0.9 / math.sqrt(9 * 0.19)  # of the wrong classes, as t_y turns towards 1
    assert right == pytest.approx(rise, rel=1e-3)
    assert left == pytest.approx(rise - (1 - p), rel=1e-3)
    assert left < 0 < right


def test_loss_rises_again_beyond_the_kink_up_to_the_true_class():
    values = [value(t) for t in (0.90, 0.92, 0.94, 0.96, 0.98, 1.0)]
    assert values == sorted(values)
    assert values[-1] == pytest.approx(1.461, abs=5e-4)
    assert values[-1] == pytest.approx(math.log(1 + 9 * math.exp(-1)))


@pytest.mark.parametrize("t", [0.91, 0.93, 0.97])
def test_first_ascent_step_beyond_the_kink_moves_towards_the_true_class(t):
    """Below the simplex, t_y = 0.9487, that is away from the boundary: the margin rises. Beyond it the margin falls."""
    z, y = on_sphere(t), torch.tensor([0])
    slope = gradient(lambda z: released(z, y), z)
    moved = torch.nn.functional.normalize(z + 1e-3 * slope / slope.norm(), dim=1)
    assert moved[0, 0] > t
    rise = (moved[0, 0] - moved[0, 1]) - (z[0, 0] - z[0, 1])
    assert (rise > 0) == (t < math.sqrt(0.9))
    clipped = gradient(lambda z: losses.released_outputs(z)[:, 0], z)
    assert (clipped == 0).all()  # the true class no longer pulls


@pytest.mark.parametrize("t", [0.5, 0.93, 0.97])
def test_matched_ascent_always_lowers_the_margin(t):
    z, y = on_sphere(t), torch.tensor([0])
    objective = losses.build("isce-released")
    slope = gradient(lambda z: objective.matched(z, y), z)
    assert objective.matched(z + 1e-3 * slope, y) > objective.matched(z, y)


def test_below_the_kink_ascent_goes_the_right_way():
    slope = gradient(lambda z: released(z, torch.tensor([0])), on_sphere(0.85))
    assert slope[0, 0] < 0


def test_loss_jumps_by_the_term_at_the_decision_boundary():
    """At a two-way tie, the other outputs 0: from 1.70 on the side of the true class to 1.80."""
    z = torch.zeros(2, 10, dtype=torch.float64)
    z[:, :2] = 1.0
    z[0, 0] += 1e-9
    z[1, 1] += 1e-9
    y = torch.tensor([0, 0])
    assert released(z, y, reduction="none").tolist() == pytest.approx([1.7000, 1.8000], abs=5e-5)
    plain = released(z, y, inference=0.0, reduction="none")
    assert float(plain[0] - plain[1]) == pytest.approx(0.0, abs=1e-8)


def test_term_is_a_penalty_on_a_misclassified_example():
    z, y = problem(500)
    wrong = z.argmax(1) != y
    with_term, without = (released(z, y, m, clip=False, reduction="none") for m in (0.1, 0.0))
    assert torch.equal(with_term > without, wrong)
