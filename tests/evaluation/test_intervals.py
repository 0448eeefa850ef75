"""The paired test over seeds, and why there is no bootstrap."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from isce.evaluation import mean_interval, paired_images, paired_seeds, wilson

SHARES = st.floats(0, 1)


def test_wilson_of_none_starts_at_0_and_of_all_ends_at_1():
    """The other bound by hand: z^2 / (n + z^2) away, z the normal distribution's 97.5% point."""
    square = 1.959963984540054**2
    for n in range(1, 200):
        (zero, high), (low, one) = wilson(0, n), wilson(n, n)
        assert (zero, one) == (0, 1)
        assert (high, low) == pytest.approx((square / (n + square), n / (n + square)))


def test_paired_images_of_one_seed_is_the_interval_of_agresti_and_min():
    """With b and c images robust on one side alone: (b - c) / (n + 2) and their formula for its standard error."""
    n, b, c = 100, 20, 5
    place = np.arange(n)
    first, second = (place < 60) | (place >= n - b), (place < 60 + c)
    low, high = paired_images(first[None], second[None])
    middle, wide = (b - c) / (n + 2), n + 2
    error = ((b + c + 1) - (b - c) ** 2 / wide) ** 0.5 / wide
    assert (low, high) == pytest.approx((middle - 1.959963985 * error, middle + 1.959963985 * error))
    assert paired_images(second[None], first[None]) == pytest.approx((-high, -low))


def test_paired_images_of_seeds_is_that_of_their_mean_difference_and_has_a_width_where_none_differs():
    place = np.arange(100)
    one, two = place < 60, place < 50
    narrow, wide = paired_images(np.array([one, two]), np.array([two, two])), paired_images(one[None], two[None])
    assert narrow[1] - narrow[0] < wide[1] - wide[0]
    assert sum(narrow) == pytest.approx(sum(wide) / 2)
    low, high = paired_images(one[None], one[None])
    assert low == -high < 0
    assert paired_images(one[None], ~one[None]) != (low, high)
    every = np.ones((1, 3), dtype=bool)
    assert all(-1 <= bound <= 1 for bound in paired_images(every, ~every))


@pytest.mark.parametrize(
    ("first", "second"),
    [([[True]], [[True, False]]), ([True], [True]), ([[1]], [[1]]), (np.ones((0, 3), bool), np.ones((0, 3), bool))],
)
def test_paired_images_refuses_what_is_not_paired(first, second):
    with pytest.raises(ValueError, match="two bool masks, seeds by images"):
        paired_images(first, second)


def test_paired_seeds_by_hand():
    """Differences 0.1, 0.2, 0.3: mean 0.2, s = 0.1, t = 0.2 / (0.1 / sqrt(3)) = 2 sqrt(3), two degrees of freedom.

    With two degrees of freedom P(|T| > t) = 1 - t / sqrt(2 + t^2), and the 97.5% point is 4.302653.
    """
    found = paired_seeds([0.5, 0.7, 0.9], [0.4, 0.5, 0.6])
    t = 2 * math.sqrt(3)
    assert found.n == 3
    assert found.difference == pytest.approx(0.2)
    assert found.p_value == pytest.approx(1 - t / math.sqrt(2 + t * t))
    assert (found.low, found.high) == pytest.approx((0.2 - 4.302653 * 0.1 / 3**0.5, 0.2 + 4.302653 * 0.1 / 3**0.5))


@pytest.mark.parametrize(("first", "second"), [([0.0, 0.0], [0.0, 0.0]), ([0.3, 0.8, 0.9], [0.2, 0.7, 0.8])])
def test_differences_without_spread_claim_nothing(first, second):
    found = paired_seeds(first, second)
    assert found.difference == pytest.approx(first[0] - second[0])
    assert (found.low, found.high, found.p_value) == (None, None, None)


@pytest.mark.parametrize(
    ("first", "second"),
    [([], []), ([0.1], [0.2]), ([0.1, 0.2], [0.1]), ([0.1, math.nan], [0.1, 0.2]), ([0.1, math.inf], [0.1, 0.2])],
)
def test_paired_seeds_refuses_what_is_not_paired(first, second):
    with pytest.raises(ValueError, match="at least two finite values of each objective"):
        paired_seeds(first, second)


#: Accuracies as records hold them: counts among test images. Nearer to each other than 1e-300 the p-value is nan.
COUNTED = st.integers(0, 10_000).map(lambda count: count / 10_000)


@given(st.lists(st.tuples(COUNTED, COUNTED), min_size=2, max_size=8))
def test_paired_seeds_is_the_interval_of_the_differences_and_turns_with_the_sides(pairs):
    first, second = np.array(pairs).T
    found, turned = paired_seeds(first, second), paired_seeds(second, first)
    assert found.difference == pytest.approx(-turned.difference)
    if found.low is None or found.high is None or found.p_value is None:
        assert np.ptp(first - second) < 1e-11
        assert turned.low is None
        return
    assert turned.low is not None
    assert turned.high is not None
    assert (found.low, found.high) == pytest.approx(mean_interval(first - second), rel=1e-6, abs=1e-15)
    assert (found.low, found.high) == pytest.approx((-turned.high, -turned.low))
    assert found.low <= found.difference <= found.high
    assert 0 <= found.p_value <= 1
    if abs(found.p_value - 0.05) > 1e-6:  # test and interval agree
        assert (found.p_value < 0.05) == (not found.low <= 0 <= found.high)


@pytest.mark.parametrize(("seeds", "bootstrap"), [(3, 3 / 4), (5, 5 / 6)])
def test_a_bootstrap_over_few_seeds_holds_the_mean_too_rarely_and_the_t_interval_as_often_as_it_says(seeds, bootstrap):
    generator = np.random.default_rng(0)
    values = generator.normal(size=(2000, seeds))
    means = values[:, generator.integers(seeds, size=(500, seeds))].mean(2)
    low, high = np.quantile(means, [0.025, 0.975], axis=1)
    assert ((low <= 0) & (high >= 0)).mean() == pytest.approx(bootstrap, abs=0.03)
    held = [low <= 0 <= high for low, high in map(mean_interval, values)]
    assert np.mean(held) == pytest.approx(0.95, abs=0.015)
