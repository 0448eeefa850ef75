from __future__ import annotations

import math

import pandas as pd
import pytest
import torch
import torch.nn.functional as F

from isce.minmax import covering_inference, inner_gap, linear_constants, projected_ascent


@pytest.fixture(scope="module")
def two_classes(linear_classifier):
    """A linear problem away from the box's walls: its inner maximum over an l_p ball is known exactly."""
    weight = torch.tensor([[1.0, -2.0, 0.5], [-1.0, 0.0, 0.5]], dtype=torch.float64)
    x = 0.4 + 0.2 * torch.rand(8, 1, 1, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    classifier = linear_classifier(weight, torch.tensor([1.0, 0.0], dtype=torch.float64))
    return classifier, x, torch.tensor([0, 1] * 4), weight


@pytest.mark.parametrize(("norm", "p"), [("linf", math.inf), ("l2", 2.0)])
def test_the_exact_m_covers_and_no_smaller_one_does(two_classes, norm, p):
    classifier, x, y, weight = two_classes
    exact = linear_constants(weight, p)[0, 1].item() * 0.1
    frame = inner_gap(classifier, x, y, 0.1, [0.0, 0.99 * exact, exact + 1e-9, 2 * exact], norm=norm)
    assert frame["m"].tolist() == [0.0, 0.99 * exact, exact + 1e-9, 2 * exact]
    assert frame["covered"].tolist() == [0.0, 0.0, 1.0, 1.0]
    assert frame["mean_gap"][2] == pytest.approx(0, abs=1e-6)
    scores = classifier(x).detach()
    truth = F.softplus(scores.gather(1, 1 - y[:, None]) - scores.gather(1, y[:, None]) + exact)
    assert frame["mean_inner"].tolist() == pytest.approx([truth.mean().item()] * 4)
    assert (frame["mean_bound"] - frame["mean_inner"]).tolist() == pytest.approx(frame["mean_gap"].tolist())
    assert frame["median_gap"][3] > 0


def test_shares_follow_from_the_m_each_example_needs(digits):
    classifier, x, y = digits
    moved = projected_ascent(classifier, x, y, eps=0.05, steps=10, restarts=1)
    with torch.no_grad():
        needed = covering_inference(classifier(x), classifier(moved), y)
    ms = needed.quantile(torch.tensor([0.25, 0.5, 0.75], dtype=torch.float64)).tolist()
    frame = inner_gap(classifier, x, y, 0.05, ms, attack=lambda *_: moved)
    expected = [(needed <= m).double().mean().item() for m in ms]
    assert frame["covered"].tolist() == pytest.approx(expected, abs=1 / len(x))
    assert frame["mean_gap"].is_monotonic_increasing


def test_coverage_keeps_its_digits_where_the_losses_round_to_zero(linear_classifier):
    """True-class lead 60 against 59: both losses are 0 in float64, and still m = 0.9 does not cover the move."""
    classifier = linear_classifier(torch.eye(2, dtype=torch.float64), torch.tensor([60.0, 0.5], dtype=torch.float64))
    x, y = torch.full((1, 1, 1, 2), 0.5, dtype=torch.float64), torch.tensor([0])
    frame = inner_gap(classifier, x, y, 0.5, [0.9, 1.0 + 1e-9])
    assert frame["mean_inner"].tolist() == [0.0, 0.0]
    assert frame["covered"].tolist() == [0.0, 1.0]


def test_a_useless_attack_counts_with_the_clean_loss(digits):
    classifier, x, y = digits

    def friend(model, images, labels):
        return projected_ascent(
            model,
            images,
            labels,
            eps=0.1,
            loss=lambda z, t: -F.cross_entropy(z, t, reduction="none"),
            steps=5,
            restarts=1,
        )

    frame = inner_gap(classifier, x, y, 0.1, [0.0], attack=friend)
    assert frame["covered"].tolist() == [1.0]
    assert frame["mean_gap"].tolist() == [0.0]


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_ascent_stays_inside_and_beats_random_points(digits, norm):
    classifier, x, y = digits
    eps = 0.1 if norm == "linf" else 0.8
    moved = projected_ascent(classifier, x, y, eps=eps, norm=norm, steps=20, restarts=2)
    shift = (moved - x).flatten(1)
    length = shift.abs().amax(1) if norm == "linf" else shift.norm(dim=1)
    assert (length <= eps + 1e-6).all()
    assert moved.min() >= 0
    assert moved.max() <= 1
    noise = eps * torch.randn(x.shape, generator=torch.Generator().manual_seed(1)).sign()
    if norm == "l2":
        noise = noise / 8
    with torch.no_grad():
        reached, chance = (
            F.cross_entropy(classifier(z), y, reduction="none") for z in (moved, (x + noise).clamp(0, 1))
        )
    assert (reached >= chance).all()
    assert reached.mean() > 10 * chance.mean()


def test_ascent_is_deterministic_and_blind_to_the_batch(digits):
    classifier, x, y = digits
    settings = {"eps": 0.1, "steps": 5, "restarts": 2}
    first = projected_ascent(classifier, x[:4], y[:4], **settings)
    assert torch.equal(first, projected_ascent(classifier, x[:4], y[:4], **settings))
    more = projected_ascent(classifier, x[:8], y[:8], **settings)
    torch.testing.assert_close(more[:4], first, atol=1e-5, rtol=0)
    rest = projected_ascent(classifier, x[4:8], y[4:8], index=torch.arange(4, 8), **settings)
    torch.testing.assert_close(more[4:], rest, atol=1e-5, rtol=0)
    whole, parts = (inner_gap(classifier, x[:8], y[:8], 0.1, [1.0, 8.0], batch_size=n) for n in (None, 3))
    pd.testing.assert_frame_equal(whole, parts, rtol=1e-3)


def test_ascent_leaves_the_model_alone(digits):
    classifier, x, y = digits
    before = {name: value.clone() for name, value in classifier.state_dict().items()}
    projected_ascent(classifier, x[:4], y[:4], eps=0.1, steps=2, restarts=1)
    assert all(torch.equal(before[name], value) for name, value in classifier.state_dict().items())
    classifier.zero_grad()
    projected_ascent(classifier, x[:4], y[:4], eps=0.1, steps=2, restarts=1)
    assert all(parameter.grad is None for parameter in classifier.parameters())
    assert not x.requires_grad


def test_bad_input(digits):
    classifier, x, y = digits
    with pytest.raises(ValueError, match="batch_size must be at least 1, got 0"):
        inner_gap(classifier, x, y, 0.1, [1.0], batch_size=0)
    with pytest.raises(ValueError, match="at least one value of m"):
        inner_gap(classifier, x, y, 0.1, [])
    with pytest.raises(ValueError, match=r"eps must be finite and not negative, got -0\.1"):
        inner_gap(classifier, x, y, -0.1, [1.0])
    with pytest.raises(ValueError, match="unknown norm 'l1'; known: linf, l2"):
        inner_gap(classifier, x, y, 0.1, [1.0], norm="l1")
    with pytest.raises(ValueError, match="left the ball or the box"):
        inner_gap(classifier, x, y, 0.1, [1.0], attack=lambda model, images, labels: (images + 0.2).clamp(0, 1))
    with pytest.raises(ValueError, match="left the ball or the box"):
        inner_gap(classifier, x, y, 0.1, [1.0], attack=lambda model, images, labels: images - 0.05)
    with pytest.raises(ValueError, match="finite images of shape"):
        inner_gap(classifier, x, y, 0.1, [1.0], attack=lambda model, images, labels: images[:1])
    with pytest.raises(ValueError, match="training mode"):
        inner_gap(torch.nn.Linear(2, 2), x, y, 0.1, [1.0])
