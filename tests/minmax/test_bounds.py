from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from linear import linear_constants

from isce.minmax import certified_radius, input_bound, projected_ascent

NORMS = (1.0, 4 / 3, 2.0, 3.0, math.inf)


def steepest(direction, norm):
    """The d with ||d||_p = 1 and <direction, d> = ||direction||_q (equality in Hoelder's inequality)."""
    if norm == math.inf:
        return direction.sign()
    if norm == 1:
        return direction.sign() * F.one_hot(direction.abs().argmax(), len(direction))
    power = direction.sign() * direction.abs() ** (1 / (norm - 1))
    return power / torch.linalg.vector_norm(power, ord=norm)


def linear_problem(seed, classes):
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(classes, 4, generator=generator, dtype=torch.float64)
    bias = torch.randn(classes, generator=generator, dtype=torch.float64)
    x = torch.rand(5, 1, 1, 4, generator=generator, dtype=torch.float64)
    return weight, bias, x, torch.randint(classes, (5,), generator=generator)


def test_constants_by_hand():
    weight = torch.tensor([[1.0, 2.0], [-2.0, -2.0], [1.0, 2.0]])
    for norm, expected in ((math.inf, 7.0), (2.0, 5.0), (1.0, 4.0)):
        constants = linear_constants(weight, norm)
        assert constants.tolist() == [[0, expected, 0], [expected, 0, expected], [0, expected, 0]]


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from(NORMS), st.floats(0, 3))
def test_two_classes_exact(seed, norm, eps):
    """Robust logistic regression: the bound is the loss at the worst point of the ball, not only above it."""
    weight, bias, x, y = linear_problem(seed, 2)
    logits = x.flatten(1) @ weight.T + bias
    bound = input_bound(logits, y, linear_constants(weight, norm), eps)
    worst = torch.stack([eps * steepest(weight[1 - label] - weight[label], norm) for label in y])
    assert (torch.linalg.vector_norm(worst, ord=norm, dim=1) <= eps * (1 + 1e-9)).all()
    attained = F.cross_entropy((x.flatten(1) + worst) @ weight.T + bias, y, reduction="none")
    torch.testing.assert_close(bound, attained)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from(NORMS), st.integers(2, 5))
def test_the_linear_radius_is_the_exact_distance(seed, norm, classes):
    weight, bias, x, _ = linear_problem(seed, classes)
    logits = x.flatten(1) @ weight.T + bias
    y = logits.argmax(1)
    constants = linear_constants(weight, norm)
    radius = certified_radius(logits, y, constants)
    for i, label in enumerate(y):
        for scale, survives in ((1 - 1e-6, True), (1 + 1e-6, False)):
            moves = [
                radius[i] * scale * steepest(weight[k] - weight[label], norm) for k in range(classes) if k != label
            ]
            moved = (x[i].flatten() + torch.stack(moves)) @ weight.T + bias
            assert bool((moved.argmax(1) == label).all()) is survives
    assert (radius >= certified_radius(logits, y, constants.max().item())).all()


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_no_attack_on_a_linear_model_beats_the_bound(norm, linear_classifier):
    for seed in range(5):
        weight, bias, x, y = linear_problem(seed, 4)
        classifier = linear_classifier(weight, bias)
        constants = linear_constants(weight, math.inf if norm == "linf" else 2)
        moved = projected_ascent(classifier, x, y, eps=0.3, norm=norm)
        with torch.no_grad():
            reached = F.cross_entropy(classifier(moved), y, reduction="none")
            pairwise = input_bound(classifier(x), y, constants, 0.3)
            scalar = input_bound(classifier(x), y, constants.max().item(), 0.3)
        assert (reached <= pairwise).all()
        assert (pairwise <= scalar).all()


def test_bound_without_a_ball_is_the_loss():
    logits, y = torch.randn(6, 3, dtype=torch.float64), torch.tensor([0, 1, 2, 0, 1, 2])
    torch.testing.assert_close(input_bound(logits, y, 5.0, 0.0), F.cross_entropy(logits, y, reduction="none"))
    assert torch.autograd.gradcheck(lambda z: input_bound(z, y, torch.ones(3, 3), 0.5), logits.requires_grad_())


def test_radius_by_hand():
    logits = torch.tensor([[3.0, 1.0, 0.0], [1.0, 1.0, 0.0], [0.0, 2.0, 1.0]])
    constants = torch.tensor([[9.0, 1.0, 4.0], [1.0, 9.0, 2.0], [4.0, 2.0, 9.0]])
    assert certified_radius(logits, torch.tensor([0, 0, 0]), constants).tolist() == [0.75, 0.0, 0.0]
    assert certified_radius(logits, torch.tensor([0, 0, 1]), 2.0).tolist() == [1.0, 0.0, 0.5]
    assert certified_radius(logits[:1], torch.tensor([0]), 0.0).tolist() == [math.inf]


def test_bad_input():
    logits, y = torch.zeros(2, 3), torch.tensor([0, 2])
    with pytest.raises(ValueError, match="eps must be finite and not negative"):
        input_bound(logits, y, 1.0, -0.5)
    with pytest.raises(ValueError, match=r"constants must be a number or \(3, 3\), got \(3,\)"):
        input_bound(logits, y, torch.ones(3), 0.1)
    for bad in (-1.0, math.nan, math.inf):
        with pytest.raises(ValueError, match="constants must be finite and not negative"):
            certified_radius(logits, y, bad)
