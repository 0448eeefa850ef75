from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from linear import linear_constants

from isce.minmax import analyse, covering_inference, inner_gap, projected_ascent
from isce.parameters.analysis import MinmaxParameters


def logits(classifier, *images):
    with torch.no_grad():
        return [classifier(x).double() for x in images]


@pytest.mark.parametrize(("norm", "p"), [("linf", math.inf), ("l2", 2.0)])
def test_the_exact_m_covers_and_no_smaller_one_does(linear_classifier, norm, p):
    """A linear problem away from the box's walls: its inner maximum over an l_p ball is known exactly."""
    weight = torch.tensor([[1.0, -2.0, 0.5], [-1.0, 0.0, 0.5]], dtype=torch.float64)
    x = 0.4 + 0.2 * torch.rand(8, 1, 1, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    classifier = linear_classifier(weight, torch.tensor([1.0, 0.0], dtype=torch.float64))
    y = torch.tensor([0, 1] * 4)
    exact = linear_constants(weight, p)[0, 1].item() * 0.1
    clean, attacked = logits(classifier, x, projected_ascent(classifier, x, y, eps=0.1, norm=norm))
    frame = inner_gap(clean, attacked, y, [0.0, 0.99 * exact, exact + 1e-9, 2 * exact])
    assert frame["m"].tolist() == [0.0, 0.99 * exact, exact + 1e-9, 2 * exact]
    assert frame["covered"].tolist() == [0.0, 0.0, 1.0, 1.0]
    assert frame["mean_gap"][2] == pytest.approx(0, abs=1e-6)
    truth = F.softplus(clean.gather(1, 1 - y[:, None]) - clean.gather(1, y[:, None]) + exact)
    assert frame["mean_inner"].tolist() == pytest.approx([truth.mean().item()] * 4)
    assert (frame["mean_bound"] - frame["mean_inner"]).tolist() == pytest.approx(frame["mean_gap"].tolist())
    assert frame["median_gap"][3] > 0


def test_shares_follow_from_the_m_each_example_needs(digits):
    classifier, x, y = digits
    clean, attacked = logits(classifier, x, projected_ascent(classifier, x, y, eps=0.05, steps=10, restarts=1))
    needed = covering_inference(clean, attacked, y)
    ms = needed.quantile(torch.tensor([0.25, 0.5, 0.75], dtype=torch.float64)).tolist()
    frame = inner_gap(clean, attacked, y, ms)
    expected = [(needed <= m).double().mean().item() for m in ms]
    assert frame["covered"].tolist() == pytest.approx(expected, abs=1 / len(x))
    assert frame["mean_gap"].is_monotonic_increasing


def test_coverage_keeps_its_digits_where_the_losses_round_to_zero():
    """True-class lead 60 against 59: both losses are 0 in float64, and still m = 0.9 does not cover the move."""
    clean, attacked = torch.tensor([[[60.0, 0.0]], [[59.5, 0.5]]], dtype=torch.float64)
    frame = inner_gap(clean, attacked, torch.tensor([0]), [0.9, 1.0 + 1e-9])
    assert frame["mean_inner"].tolist() == [0.0, 0.0]
    assert frame["covered"].tolist() == [0.0, 1.0]


def test_a_useless_attack_counts_with_the_clean_loss():
    clean = torch.tensor([[2.0, 1.0], [0.0, 1.0]])
    frame = inner_gap(clean, clean + torch.tensor([1.0, 0.0]), torch.tensor([0, 0]), [0.0])
    assert frame["covered"].tolist() == [1.0]
    assert frame["mean_gap"].tolist() == pytest.approx([0.0])


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


def test_ascent_leaves_the_model_alone(digits):
    classifier, x, y = digits
    before = {name: value.clone() for name, value in classifier.state_dict().items()}
    projected_ascent(classifier, x[:4], y[:4], eps=0.1, steps=2, restarts=1)
    assert all(torch.equal(before[name], value) for name, value in classifier.state_dict().items())
    classifier.zero_grad()
    projected_ascent(classifier, x[:4], y[:4], eps=0.1, steps=2, restarts=1)
    assert all(parameter.grad is None for parameter in classifier.parameters())
    assert not x.requires_grad


def test_an_ascent_that_leaves_ball_or_box_is_no_measure(digits, monkeypatch):
    parameters = MinmaxParameters(checkpoint="", eps=[0.1], inference=[1.0])
    for shift, bounded in ((0.2, True), (-0.05, False), (math.nan, False)):
        moved = (digits[1] + shift).clamp(0, 1) if bounded else digits[1] + shift
        monkeypatch.setattr("isce.minmax.analysis.projected_ascent", lambda *_, moved=moved, **__: moved)
        with pytest.raises(RuntimeError, match=r"left the linf ball of radius 0\.1, or the box"):
            analyse(*digits, parameters, progress=False)


class Root(torch.autograd.Function):
    """The identity, whose gradient is NaN."""

    @staticmethod
    def forward(ctx, values):
        return values.clone()

    @staticmethod
    def backward(ctx, *grad_outputs):
        return grad_outputs[0] * math.nan


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_a_gradient_that_is_not_finite_is_no_robustness(digits, norm):
    classifier, x, y = digits

    class Masked(torch.nn.Module):
        def forward(self, images):
            return classifier(Root.apply(images))

    with pytest.raises(RuntimeError, match=r"the gradient is not finite for 4 of 4 images"):
        projected_ascent(Masked().eval(), x[:4], y[:4], eps=0.1, norm=norm, steps=2, restarts=1)


def test_bad_input(digits):
    classifier, x, y = digits
    with pytest.raises(ValueError, match="at least one value of m"):
        inner_gap(torch.zeros(2, 3), torch.zeros(2, 3), torch.tensor([0, 1]), [])
    with pytest.raises(ValueError, match=r"eps must be finite and not negative, got -0\.1"):
        projected_ascent(classifier, x, y, eps=-0.1)
    with pytest.raises(ValueError, match="unknown norm 'l1'; known: linf, l2"):
        projected_ascent(classifier, x, y, eps=0.1, norm="l1")
    with pytest.raises(ValueError, match="training mode"):
        projected_ascent(torch.nn.Linear(2, 2), x, y, eps=0.1)
