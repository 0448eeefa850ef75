from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize
from scipy.special import wrightomega

from isce.minmax import logit_ball_maximum, logit_ball_minimum, logit_box_maximum, logit_box_minimum
from isce.minmax.ball import _bound_cells, _product_log, _smaller_root, _top_range, _wrong_logits


def brute_force_maxima(logits, target, radius, generator, starts=40):
    """Ends of d <- r grad f / ||grad f||, which climbs a convex f on a sphere, from every class and random starts."""
    rows, classes = logits.shape
    truth = F.one_hot(target, classes).double()
    shift = torch.randn(starts + classes, rows, classes, generator=generator, dtype=torch.float64)
    for k in range(classes):
        shift[k] = 2.0 * F.one_hot(torch.tensor(k), classes) - truth + 0.01 * shift[k]
    for _ in range(300):
        shift = torch.softmax(logits + radius * F.normalize(shift, dim=2, eps=1e-300), dim=2) - truth
    return radius * F.normalize(shift, dim=2, eps=1e-300)


def losses(logits, shift, target):
    """SCE by a form of its own that keeps its digits down to 1e-300."""
    moved = logits + shift
    label = target.expand(shift.shape[:-1])[..., None]
    wrong = (moved - moved.gather(-1, label)).scatter(-1, label, -math.inf)
    return torch.log1p(wrong.exp().sum(-1))


def problem(seed, classes, spread, ties=False, rows=6):
    generator = torch.Generator().manual_seed(seed)
    logits = spread * torch.randn(rows, classes, generator=generator, dtype=torch.float64)
    return logits.round() if ties else logits, torch.randint(classes, (rows,), generator=generator), generator


def assert_certified(extremum, logits, target, radius):
    assert (extremum.shift.norm(dim=1) <= radius).all()
    torch.testing.assert_close(losses(logits, extremum.shift, target), extremum.value, rtol=1e-9, atol=1e-12)
    assert (extremum.lower <= extremum.value).all()
    assert (extremum.value <= extremum.upper).all()
    assert (extremum.upper - extremum.lower <= 2e-9 + 1e-9 * extremum.value).all()


cases = given(
    st.integers(0, 10**6),
    st.integers(2, 8),
    st.sampled_from([0.0, 0.3, 1.0, 4.0, 20.0]),
    st.floats(0.01, 12),
    st.booleans(),
)


@settings(max_examples=25, deadline=None)
@cases
def test_no_brute_force_beats_the_maximum(seed, classes, spread, radius, ties):
    logits, target, generator = problem(seed, classes, spread, ties)
    extremum = logit_ball_maximum(logits, target, radius)
    assert_certified(extremum, logits, target, radius)
    reached = losses(logits, brute_force_maxima(logits, target, radius, generator), target)
    assert (reached <= extremum.upper).all()


@settings(max_examples=25, deadline=None)
@cases
def test_no_brute_force_beats_the_minimum(seed, classes, spread, radius, ties):
    logits, target, generator = problem(seed, classes, spread, ties)
    extremum = logit_ball_minimum(logits, target, radius)
    assert_certified(extremum, logits, target, radius)
    noise = F.normalize(torch.randn(500, *logits.shape, generator=generator, dtype=torch.float64), dim=2) * radius
    near = extremum.shift + 0.03 * noise
    near = near * (radius / near.norm(dim=2, keepdim=True)).clamp(max=1)
    for inside in (noise, near):
        assert (losses(logits, inside, target) >= extremum.lower).all()


def test_the_minimum_agrees_with_a_general_solver():
    logits, target, _ = problem(3, 5, 2.0, rows=4)
    extremum = logit_ball_minimum(logits, target, 1.5)
    for row, label, value in zip(logits, target, extremum.value, strict=True):
        solved = minimize(
            lambda d, row=row, label=label: F.cross_entropy(row + torch.from_numpy(d), label).item(),
            [0.0] * 5,
            method="SLSQP",
            constraints={"type": "ineq", "fun": lambda d: 1.5**2 - d @ d},
            options={"ftol": 1e-14, "maxiter": 500},
        )
        assert value.item() == pytest.approx(solved.fun, abs=1e-7)


def test_the_sphere_in_three_dimensions_scanned():
    generator = torch.Generator().manual_seed(0)
    sphere = F.normalize(torch.randn(200_000, 1, 3, generator=generator, dtype=torch.float64), dim=2)
    for logits, radius in (([0.0, 0.0, 0.0], 2.5), ([3.0, 1.0, 0.9], 4.0), ([1.0, 5.0, 5.0], 0.7)):
        scores, target = torch.tensor([logits], dtype=torch.float64), torch.tensor([0])
        scanned = losses(scores, radius * sphere, target)
        assert scanned.max().item() == pytest.approx(logit_ball_maximum(scores, target, radius).value.item(), rel=2e-4)
        assert scanned.min().item() == pytest.approx(logit_ball_minimum(scores, target, radius).value.item(), rel=3e-4)


@pytest.mark.parametrize("radius", [0.0, 0.01, 1.0, 30.0])
def test_two_classes_have_a_closed_form(radius):
    logits, target, _ = problem(1, 2, 3.0)
    evidence = logits.gather(1, 1 - target[:, None])[:, 0] - logits.gather(1, target[:, None])[:, 0]
    most, least = (f(logits, target, radius).value for f in (logit_ball_maximum, logit_ball_minimum))
    torch.testing.assert_close(most, F.softplus(evidence + math.sqrt(2) * radius))
    torch.testing.assert_close(least, F.softplus(evidence - math.sqrt(2) * radius))


def test_equal_logits_break_their_symmetry_at_a_large_radius():
    """n equal wrong logits: the even shift gives log(1 + n exp(r sqrt((n + 1) / n))), best for small r alone."""
    logits, target = torch.zeros(1, 10, dtype=torch.float64), torch.tensor([0])
    even = [math.log(1 + 9 * math.exp(r * math.sqrt(10 / 9))) for r in (0.5, 20.0)]
    small, large = (logit_ball_maximum(logits, target, r) for r in (0.5, 20.0))
    assert small.value.item() == pytest.approx(even[0], abs=1e-9)
    assert large.value.item() > even[1] + 3
    assert (large.shift > 1).sum() == 1


@pytest.mark.parametrize("radius", [math.sqrt(6) - 1e-3, math.sqrt(6), math.sqrt(6) + 1e-9, math.sqrt(6) + 1e-3])
def test_the_certificate_stays_tight_where_the_two_branches_meet(radius):
    """Three equal logits: t = 1 is a double root at r^2 = 6, the hardest spot of the branch and bound."""
    logits, target = torch.zeros(1, 3, dtype=torch.float64), torch.tensor([1])
    assert_certified(logit_ball_maximum(logits, target, radius), logits, target, radius)


def test_at_most_one_class_moves_by_more_than_one():
    logits, target, generator = problem(5, 6, 2.0, rows=20)
    for radius in (1.0, 3.0, 6.0, 15.0):
        shift = brute_force_maxima(logits, target, radius, generator)
        best = losses(logits, shift, target).argmax(0)
        moved = shift[best, torch.arange(20)].scatter(1, target[:, None], 0.0)
        wrong = logits.scatter(1, target[:, None], -math.inf)
        assert ((moved > 1 + 1e-6).sum(1) <= 1).all()
        assert (moved.argmax(1) == wrong.argmax(1)).all()


wide = [(torch.randn(5, generator=torch.Generator().manual_seed(seed)).tolist(), 2.0) for seed in range(3)]
even = [([0.0] * 10, radius) for radius in (6.0, 8.0, 9.3)]  # several roots: the even shift, a saddle, one class alone


@pytest.mark.parametrize(("logits", "radius"), [*wide, *even, ([0.0, 9.0], 3.0), ([0.0, 9.0, 9.0], 4.0)])
def test_the_bound_holds_on_wide_intervals_of_the_branch_and_bound(logits, radius):
    """Step 4 of the derivation where its terms of second order are large: any interval around the maximum's t."""
    scores, target = torch.tensor([logits], dtype=torch.float64), torch.tensor([0])
    extremum = logit_ball_maximum(scores, target, radius)
    wrong, order = _wrong_logits(scores, target)
    t = extremum.shift.gather(1, order[:, :1]).item()
    low, high = _top_range(radius, len(logits) - 1)
    shares = torch.linspace(1e-4, 1, 300, dtype=torch.float64)
    left = t - shares * (t - (max(low, 1.0) if t > 1 else low))
    for right in (t + 1e-6, t + 0.3 * (high - t), high):
        right = min(right, 1.0) if t < 1 else right
        _, bound, holds_root = _bound_cells(wrong.expand(300, -1), left, torch.full_like(left, right), radius)
        assert holds_root.all()
        assert (bound >= extremum.value - 1e-9).all()


def test_between_the_boxes_inside_and_around():
    logits, target, _ = problem(9, 7, 3.0)
    for radius in (0.2, 2.0, 9.0):
        most, least = logit_ball_maximum(logits, target, radius), logit_ball_minimum(logits, target, radius)
        inner = radius / math.sqrt(7)
        assert (most.value >= logit_box_maximum(logits, target, inner)).all()
        assert (least.value <= logit_box_minimum(logits, target, inner)).all()
        # every difference of two logits moves by at most sqrt(2) r
        assert (most.upper <= logit_box_maximum(logits, target, radius / math.sqrt(2)) + 1e-9).all()
        assert (least.lower >= logit_box_minimum(logits, target, radius / math.sqrt(2)) - 1e-9).all()


def test_classes_are_interchangeable_and_examples_independent():
    logits, target, generator = problem(2, 6, 2.0)
    order = torch.randperm(6, generator=generator)
    for function in (logit_ball_maximum, logit_ball_minimum):
        plain, mixed = function(logits, target, 3.0), function(logits[:, order], order.argsort()[target], 3.0)
        torch.testing.assert_close(mixed.value, plain.value)
        torch.testing.assert_close(mixed.shift, plain.shift[:, order], atol=1e-6, rtol=1e-6)
        alone = function(logits[2:3], target[2:3], 3.0)
        torch.testing.assert_close(alone.value, plain.value[2:3], rtol=1e-12, atol=0)


def test_extreme_logits_stay_finite():
    logits = torch.tensor([[1e3, 0.0, -1e3], [-1e3, 0.0, 1e3], [0.0, -700.0, -700.0]], dtype=torch.float64)
    target = torch.tensor([0, 0, 0])
    for function in (logit_ball_maximum, logit_ball_minimum):
        for radius in (1e-3, 1.0, 100.0):
            extremum = function(logits, target, radius)
            assert all(torch.isfinite(part).all() for part in extremum)
            assert (extremum.lower <= extremum.upper).all()
    assert logit_ball_maximum(logits.float(), target, 1.0).value.dtype == torch.float64


def test_the_two_scalar_roots():
    w = torch.cat(
        [torch.logspace(-200, -1, 50, dtype=torch.float64), torch.linspace(0.1, 1, 2000, dtype=torch.float64)]
    )
    torch.testing.assert_close(_smaller_root(w - 1 - w.log()), w, rtol=1e-7, atol=0)
    t = torch.linspace(-700, 2000, 5001, dtype=torch.float64)
    torch.testing.assert_close(_product_log(t), torch.from_numpy(wrightomega(t.numpy())), rtol=1e-12, atol=0)


@pytest.mark.parametrize("function", [logit_ball_maximum, logit_ball_minimum])
def test_bad_input(function):
    with pytest.raises(ValueError, match="radius must be finite and not negative, got -1"):
        function(torch.zeros(1, 2), torch.tensor([0]), -1.0)
    with pytest.raises(ValueError, match="scores must be finite"):
        function(torch.tensor([[math.inf, 0.0]]), torch.tensor([0]), 1.0)


def test_bad_tolerance():
    with pytest.raises(ValueError, match="tolerance must be positive, got 0"):
        logit_ball_maximum(torch.zeros(1, 2), torch.tensor([0]), 1.0, tolerance=0)
