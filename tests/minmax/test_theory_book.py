"""Theorems of the book's theory part that no other file checks, each test named after its label."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from isce.losses import inference_softmax_cross_entropy, released_inference_softmax_cross_entropy

LOGITS = arrays.arrays("float64", 5, elements=st.floats(-20, 20))
SHIFTS = arrays.arrays("float64", 5, elements=st.floats(-6, 6))


def margin(z, y):
    return z[y] - torch.cat([z[:y], z[y + 1 :]]).max()


@settings(deadline=None)
@given(LOGITS, SHIFTS)
def test_thm_kl_divergence_is_bounded_by_the_logit_shift(z, d):
    z, d = torch.from_numpy(z), torch.from_numpy(d)
    r = float(d.abs().max())
    log_p, log_moved = F.log_softmax(z, 0), F.log_softmax(z + d, 0)
    divergence = float((log_p.exp() * (log_p - log_moved)).sum())
    assert divergence <= min(r**2 / 2, 2 * r) + 1e-9


def test_thm_kl_both_bounds_are_approached():
    """Half of r squared for small shifts of two equal logits, 2 r for a sure class that is pushed against the rest."""
    log_p, log_moved = (F.log_softmax(torch.tensor(z).double(), 0) for z in ([0.0, 0.0], [1e-2, -1e-2]))
    assert float((log_p.exp() * (log_p - log_moved)).sum()) == pytest.approx(0.5e-4, rel=1e-3)
    log_p, log_moved = (F.log_softmax(torch.tensor(z).double(), 0) for z in ([30.0, 0.0], [-30.0, 60.0]))
    assert float((log_p.exp() * (log_p - log_moved)).sum()) > 0.7 * 2 * 60


@settings(deadline=None)
@given(LOGITS, st.integers(0, 4), st.floats(0.01, 5))
def test_thm_coverage_factor_two_is_needed_and_enough(z, y, r):
    z = torch.from_numpy(z)
    worst = z + r
    worst[y] -= 2 * r
    assert float(margin(worst, y)) == pytest.approx(float(margin(z, y)) - 2 * r, abs=1e-9)
    wrong = z.clone()
    wrong[y] = -torch.inf
    moved = z.clone()
    moved[int(wrong.argmax())] += r
    moved[y] -= r
    if 0 < margin(z, y) <= 2 * r:
        assert float(margin(moved, y)) <= 1e-9


@pytest.mark.parametrize("m", [-5.0, 0.0, 2.0, 20.0])
def test_thm_sce_scale_and_thm_vacuous_any_fixed_m_is_met_by_scaling(m):
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(50, 4, dtype=torch.float64, generator=generator)
    y = logits.argmax(1)
    losses = [float(inference_softmax_cross_entropy(c * logits, y, m)) for c in (1.0, 10.0, 1e3, 1e6)]
    assert losses == sorted(losses, reverse=True)
    assert losses[-1] < 1e-6
    assert torch.equal((1e6 * logits).argmax(1), y)


@pytest.mark.parametrize("m", [0.05, 0.1, 0.29, 0.5, 0.9])
@pytest.mark.parametrize("a", [0.2, 0.5, 0.7])
def test_thm_jump_is_m_or_what_the_clip_leaves(m, a):
    rest = (1 - 2 * a**2) ** 0.5
    tie = torch.tensor([[a, a, rest, 0.0]], dtype=torch.float64)
    if rest >= a:  # the tie must be between the two largest outputs
        tie = torch.tensor([[a, a, -rest, 0.0]], dtype=torch.float64)
    nudge = torch.tensor([[1e-9, 0.0, 0.0, 0.0]], dtype=torch.float64)
    right, wrong = (
        float(released_inference_softmax_cross_entropy(z, torch.tensor([0]), inference=m))
        for z in (tie + nudge, tie - nudge)
    )
    assert wrong - right == pytest.approx(min(m, 1 - a), abs=1e-6)
