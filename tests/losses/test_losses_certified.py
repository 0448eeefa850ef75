"""Certified I-SCE: per-example terms, the schedule, and the known trainings that are its special cases."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from isce import losses
from isce.losses import inference_softmax_cross_entropy as isce
from isce.losses.certified import CertifiedInferenceSoftmaxCrossEntropy as Certified


def problem(n=6, c=4, seed=0):
    generator = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn(n, c, generator=generator).double()
    return logits, torch.randint(c, (n,), generator=generator), torch.randn(n, c, generator=generator).double()


def test_per_example_terms_are_added_to_the_wrong_logits():
    logits, target, m = problem()
    found = isce(logits, target, m, per_example=True, reduction="none")
    for i, y in enumerate(target.tolist()):
        others = (math.exp(logits[i, k] - logits[i, y] + m[i, k]) for k in range(4) if k != y)
        assert float(found[i]) == pytest.approx(math.log(1 + sum(others)))


def test_as_many_examples_as_classes_are_not_taken_for_a_matrix():
    logits, target, m = problem(n=4)
    target = torch.tensor([1, 0, 3, 2])  # no example has its own place as label
    by_example = isce(logits, target, m, per_example=True)
    assert not torch.isclose(by_example, isce(logits, target, m))
    torch.testing.assert_close(by_example, isce(logits, target, m[torch.tensor([1, 0, 3, 2])]))


def test_per_example_terms_have_gradients_and_trailing_dimensions():
    logits, target, m = problem()
    m.requires_grad_()
    assert torch.autograd.gradcheck(lambda m: isce(logits, target, m, per_example=True), m)
    (gradient,) = torch.autograd.grad(isce(logits, target, m, per_example=True), m)
    assert (gradient.gather(1, target[:, None]) == 0).all()
    wide, labels = logits.T.reshape(1, 4, 2, 3), target.reshape(1, 2, 3)
    spread = isce(wide, labels, m.T.reshape(1, 4, 2, 3), per_example=True)
    torch.testing.assert_close(spread, isce(logits, target, m, per_example=True))


@pytest.mark.parametrize(
    ("m", "error", "message"),
    [
        (torch.zeros(5, 4), ValueError, r"shaped as the logits, \(6, 4\), got \(5, 4\)"),
        (torch.zeros(4, 4), ValueError, "shaped as the logits"),
        (2.0, ValueError, r"got 2\.0"),
    ],
)
def test_other_shapes_are_refused(m, error, message):
    logits, target, _ = problem()
    with pytest.raises(error, match=message):
        isce(logits, target, m, per_example=True)


def test_terms_of_examples_need_labels():
    logits, _, m = problem()
    with pytest.raises(TypeError, match="int64 labels only"):
        isce(logits, logits.softmax(1), m, per_example=True)


def test_the_loss_is_the_log_of_one_plus_the_sum_of_bounds_and_no_less_than_any_point_of_the_ball():
    logits, target, slack = problem()
    upper = logits - logits.gather(1, target[:, None]) + slack.abs()
    loss = Certified(reduction="none").certified(logits, target, upper, 0.0)
    wrong = upper.scatter(1, target[:, None], -math.inf)
    torch.testing.assert_close(loss, torch.log1p(wrong.exp().sum(1)))
    for seed in range(20):
        move = slack.abs() * torch.rand(slack.shape, generator=torch.Generator().manual_seed(seed)).double()
        moved = logits + move.scatter(1, target[:, None], 0.0)
        assert (F.cross_entropy(moved, target, reduction="none") <= loss + 1e-12).all()


SPECIAL = {
    "softmax cross-entropy: no ball": lambda z, y: (
        F.cross_entropy(z, y),
        isce(z, y, torch.zeros_like(z), per_example=True),
    ),
    "interval training: worst-case logits": lambda z, y: _interval(z, y),
    "Lipschitz-margin training: one constant": lambda z, y: (
        F.cross_entropy(z + 0.7 * math.sqrt(2) * 3 * (1 - F.one_hot(y, 4)), y),  # eps 0.7, constant 3
        isce(z, y, math.sqrt(2) * 0.7 * 3),
    ),
    "pairwise margins (GloRo, EMMA)": lambda z, y: _pairs(z, y),
    "AOL's offset: with a temperature": lambda z, y: (
        0.25 * F.cross_entropy((z - math.sqrt(2) * F.one_hot(y, 4)) / 0.25, y),
        losses.build("isce", inference=math.sqrt(2), temperature=0.25)(z, y),
    ),
}  # fmt: skip


def _interval(z, y):
    """Gowal et al.: cross-entropy of the worst-case logits of a linear last layer, elided with the label's."""
    generator = torch.Generator().manual_seed(5)
    weight, low = torch.randn(4, 3, generator=generator).double(), torch.randn(6, 3, generator=generator).double()
    high = low + torch.rand(6, 3, generator=generator).double()
    worst = torch.zeros_like(z)
    for i, label in enumerate(y.tolist()):
        for k in range(4):
            slope = weight[k] - weight[label]
            worst[i, k] = sum(
                float(s * (h if s > 0 else low_)) for s, low_, h in zip(slope, low[i], high[i], strict=True)
            )
    return F.cross_entropy(worst, y), Certified().certified(z, y, worst, 0.0)


def _pairs(z, y):
    """EMMA and GloRo: each wrong logit raised by eps times the constant of its pair."""
    constants = torch.rand(4, 4, generator=torch.Generator().manual_seed(2)).double()
    raised = z.clone()
    for i, label in enumerate(y.tolist()):
        for k in range(4):
            raised[i, k] += 0.3 * float(constants[label, k]) if k != label else 0
    return F.cross_entropy(raised, y), isce(z, y, 0.3 * constants)


@pytest.mark.parametrize("name", SPECIAL)
def test_known_certified_trainings_are_special_cases(name):
    logits, target, _ = problem()
    known, ours = SPECIAL[name](logits, target)
    torch.testing.assert_close(known, ours)


def test_the_schedule():
    objective = Certified(eps=0.1, stretch=2.0, wait=0.1, ramp=0.4, plain=0.25)
    assert objective.schedule(0.0) == (0.0, 1.0)
    assert objective.schedule(0.1) == (0.0, 1.0)
    assert objective.schedule(0.3) == pytest.approx((0.1, 0.625))
    assert objective.schedule(0.5) == pytest.approx((0.2, 0.25))
    assert objective.schedule(1.0) == pytest.approx((0.2, 0.25))
    assert Certified(wait=0.5, ramp=0.0).schedule(0.49)[0] == 0
    assert Certified(wait=0.5, ramp=0.0).schedule(0.5) == pytest.approx((0.1, 0.0))


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"eps": 0.0}, "eps must be above 0"),
        ({"eps": 1.5}, "at most 1"),
        ({"stretch": 0.5}, "stretch must be at least 1"),
        ({"eps": 0.6, "stretch": 2.0}, r"stretch \* eps must be at most 1"),
        ({"wait": 0.6, "ramp": 0.5}, r"wait \+ ramp at most 1"),
        ({"wait": 1.0, "ramp": 0.0}, "wait must be below 1"),
        ({"plain": 1.5}, "plain must be"),
    ],
)
def test_parameters_out_of_range_are_refused(parameters, message):
    with pytest.raises(ValueError, match=message):
        losses.build("isce-certified", **parameters)


def test_without_bounds_it_is_softmax_cross_entropy_and_the_mix_is_even():
    logits, target, slack = problem()
    objective = Certified()
    torch.testing.assert_close(objective(logits, target), F.cross_entropy(logits, target))
    upper = logits - logits.gather(1, target[:, None]) + slack.abs()
    parts = [objective.certified(logits, target, upper, share) for share in (0.0, 0.25, 1.0)]
    torch.testing.assert_close(parts[1], 0.75 * parts[0] + 0.25 * parts[2])
    torch.testing.assert_close(parts[2], F.cross_entropy(logits, target))


def test_a_small_temperature_is_the_hinge():
    logits, target, _ = problem()
    margin = nn.MultiMarginLoss(margin=1.0, reduction="none")(logits, target)
    found = losses.build("isce", inference=1.0, temperature=1e-3).per_example(logits, target)
    largest = (1 + logits - logits.gather(1, target[:, None])).scatter(1, target[:, None], 0.0).amax(1).clamp(min=0)
    torch.testing.assert_close(found, largest, atol=1e-2, rtol=0)
    assert (found <= 4 * margin + 1e-2).all()
