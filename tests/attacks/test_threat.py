"""Threat models fuzzed: whatever is handed over, what comes back lies inside and as near as the norm allows."""

from __future__ import annotations

import math

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given, settings

from isce.attacks import Threat
from isce.attacks.keys import random_targets, seeded

THREATS = st.one_of(
    st.builds(Threat, st.just("linf"), st.floats(1e-4, 1)),
    st.builds(Threat, st.just("l2"), st.floats(1e-4, 50)),
    st.builds(Threat, st.just("l0"), st.integers(1, 30).map(float)),
    st.sampled_from([Threat("spatial", 1), Threat("released", 1)]),
)


@settings(max_examples=150, deadline=None)
@given(
    threat=THREATS,
    seed=st.integers(0, 2**31),
    reach=st.floats(0, 100),
    channels=st.sampled_from([1, 3]),
    dtype=st.sampled_from([torch.float32, torch.float64]),
)
def test_projected_points_lie_inside_and_stay_where_they_are(threat, seed, reach, channels, dtype):
    generator = torch.Generator().manual_seed(seed)
    x = torch.rand(4, channels, 3, 5, generator=generator, dtype=dtype).mul(1.5).sub(0.25).clamp(0, 1)
    wild = x + reach * torch.randn(x.shape, generator=generator, dtype=dtype)
    inside = threat.project(wild, x)
    assert threat.inside(inside, x).all()
    assert inside.min() >= 0
    assert inside.max() <= 1
    again = threat.project(inside, x)
    assert (again - inside).abs().max() <= 1e-5 * (1 + threat.eps)
    assert torch.equal(threat.project(x, x), x)


@settings(max_examples=50, deadline=None)
@given(pixels=st.integers(1, 14), seed=st.integers(0, 2**31))
def test_the_nearest_point_of_the_l0_ball_keeps_the_largest_changes(pixels, seed):
    generator = torch.Generator().manual_seed(seed)
    x, wild = torch.rand(2, 3, 2, 3, 5, generator=generator, dtype=torch.float64)
    found = Threat("l0", pixels).project(wild, x)
    change = (wild - x).square().sum(1).flatten(1).sort(1, descending=True).values
    left_out = (found - wild).square().sum(1).flatten(1).sum(1)
    assert (left_out - change[:, pixels:].sum(1)).abs().max() < 1e-12
    assert (Threat("l0", pixels).distance(found, x) == pixels).all()


@pytest.mark.parametrize("value", [math.nan, math.inf, 1.1, -0.1])
@pytest.mark.parametrize("norm", ["linf", "l2", "l0", "spatial", "released"])
def test_no_image_is_never_inside(norm, value):
    x = torch.full((1, 1, 2, 2), 0.5)
    point = x.clone()
    point[0, 0, 0, 0] = value
    assert not Threat(norm, 1).inside(point, x).any()


BAD_EPS = {"linf": [-0.1, 0, 1.01, math.nan, math.inf], "l2": [-1.0, 0, math.nan, math.inf], "l0": [0, 1.5]}


@pytest.mark.parametrize(
    ("norm", "eps"),
    [*((norm, eps) for norm, values in BAD_EPS.items() for eps in values), ("spatial", 0.5), ("l1", 1)],
)
def test_budgets_that_mean_nothing_are_refused(norm, eps):
    with pytest.raises(ValueError, match=str(eps) if norm != "l1" else "unknown norm 'l1'; known: linf, l2, l0"):
        Threat(norm, eps)


def test_targets_are_wrong_classes_drawn_by_key():
    y, index = torch.arange(300) % 3, torch.arange(300)
    drawn = random_targets(0, index, y, 3)
    assert (drawn != y).all()
    assert (torch.bincount(drawn * 3 + y, minlength=9).view(3, 3).fill_diagonal_(50) > 25).all()
    order = torch.randperm(300, generator=torch.Generator().manual_seed(1))
    assert torch.equal(random_targets(0, index[order], y[order], 3), drawn[order])
    assert not torch.equal(random_targets(1, index, y, 3), drawn)


def test_seeded_gives_back_every_generator_even_after_an_error():
    import numpy as np

    state, numpy_state = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    draws = []

    def draw(key):
        with seeded(0, key):
            draws.append((float(torch.rand(())), float(np.random.rand())))  # noqa: NPY002
            raise ZeroDivisionError

    for key in (1, 1, 2):
        with pytest.raises(ZeroDivisionError):
            draw(key)
    assert draws[0] == draws[1] != draws[2]
    assert torch.equal(torch.get_rng_state(), state)
    assert np.array_equal(np.random.get_state()[1], numpy_state)  # noqa: NPY002
