"""The numbered statements on I-SCE's text reading, L_m = log(1 + sum_{k != y} exp(z_k - z_y + m)), each checked.

That a constant only reweights, and what the gradient is, stands in ``tests/losses/test_losses_theory.py``.
"""

from __future__ import annotations

import copy
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from linear import linear_constants
from sklearn.svm import SVC, LinearSVC

from isce.losses import inference_softmax_cross_entropy
from isce.minmax import (
    certified_radius,
    input_bound,
    logit_box_maximum,
    logit_box_minimum,
    projected_ascent,
    wrong_evidence,
)


def loss(z, y, m):
    return inference_softmax_cross_entropy(z, y, m, reduction="none")


def logits(seed=0, rows=40, classes=6, spread=3.0):
    generator = torch.Generator().manual_seed(seed)
    z = spread * torch.randn(rows, classes, generator=generator, dtype=torch.float64)
    return z, torch.randint(classes, (rows,), generator=generator), generator


def slope(z, y, m):
    z = z.detach().requires_grad_()
    return torch.autograd.grad(loss(z, y, m).sum(), z)[0]


@pytest.mark.parametrize("r", [0.1, 1.0, 4.0])
def test_2_1_exact_counterpart(r):
    z, y, generator = logits()
    worst = r * (1 - 2 * F.one_hot(y, 6))
    torch.testing.assert_close(F.cross_entropy(z + worst, y, reduction="none"), loss(z, y, 2 * r))
    torch.testing.assert_close(F.cross_entropy(z - worst, y, reduction="none"), loss(z, y, -2 * r))
    for _ in range(100):
        d = r * (2 * torch.rand(z.shape, generator=generator, dtype=torch.float64) - 1).sign()
        d[::2] *= torch.rand(d[::2].shape, generator=generator, dtype=torch.float64)
        moved = F.cross_entropy(z + d, y, reduction="none")
        assert (moved <= logit_box_maximum(z, y, r) + 1e-12).all()
        assert (moved >= logit_box_minimum(z, y, r) - 1e-12).all()


def test_2_1_training_with_m_above_0_is_the_min_max_problem_in_logit_space():
    """The gradient of L_2r is that of SCE at the worst shift (Danskin)."""
    z, y, _ = logits()
    worst = 0.5 * (1 - 2 * F.one_hot(y, 6))
    torch.testing.assert_close(slope(z, y, 1.0), slope(z + worst, y, 0.0))
    torch.testing.assert_close(slope(z, y, -1.0), slope(z - worst, y, 0.0))


def test_2_2_bound_and_certificate(digits):
    """On a network, with K measured on the attacked pairs themselves: what the statement asks of K, and no more."""
    classifier, x, y = digits
    moved = projected_ascent(classifier, x, y, eps=0.1, steps=10, restarts=1)
    with torch.no_grad():
        before, after = classifier(x).double(), classifier(moved).double()
    change = (after - after.gather(1, y[:, None])) - (before - before.gather(1, y[:, None]))
    for i in range(len(x)):
        constants = (change[i].clamp(min=0) / 0.1).expand(10, 10)
        clean, label = before[i : i + 1], y[i : i + 1]
        attacked = F.cross_entropy(after[i : i + 1], label)
        pairwise = input_bound(clean, label, constants, 0.1).item()
        assert attacked <= pairwise + 1e-9 <= input_bound(clean, label, constants.max().item(), 0.1).item() + 2e-9
        if certified_radius(clean, label, constants) > 0.1:
            assert after[i].argmax() == label


def test_2_2_two_linear_classes_are_exact_and_the_pairwise_form_is_tighter():
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(5, 7, generator=generator, dtype=torch.float64)
    x = torch.randn(30, 7, generator=generator, dtype=torch.float64)
    y = torch.randint(5, (30,), generator=generator)
    for p in (2.0, math.inf):
        pair = linear_constants(weight, p)
        assert (input_bound(x @ weight.T, y, pair, 0.2) < input_bound(x @ weight.T, y, pair.max().item(), 0.2)).all()
        two, label = x @ weight[:2].T, y % 2
        gap = weight[1 - label] - weight[label]
        worst = 0.2 * (gap.sign() if p == math.inf else F.normalize(gap, dim=1))
        exact = F.cross_entropy((x + worst) @ weight[:2].T, label, reduction="none")
        torch.testing.assert_close(input_bound(two, label, linear_constants(weight[:2], p), 0.2), exact)


def test_2_2_lipschitz_margin_training_is_a_special_case():
    """||w_k - w_y||_2 <= sqrt(2) ||W||_2: sqrt(2) eps Lip(f) on the other logits (Tsuzuku et al. 2018) is a valid m."""
    for seed in range(20):
        weight = torch.randn(4, 9, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        lipschitz = torch.linalg.matrix_norm(weight, ord=2)
        assert (linear_constants(weight, 2.0) <= math.sqrt(2) * lipschitz + 1e-12).all()
    tight = torch.eye(4, dtype=torch.float64)
    assert linear_constants(tight, 2.0)[0, 1].item() == pytest.approx(math.sqrt(2))


@pytest.mark.parametrize("m", [-2.0, 2.0])
def test_2_3_sign_gradient_attacks_take_the_same_steps(digits, m):
    classifier, x, y = digits
    classifier, x = copy.deepcopy(classifier).double(), x[:24].double()
    paths = []
    for term in (0.0, m):
        point = x
        for _ in range(10):
            point = point.detach().requires_grad_()
            (gradient,) = torch.autograd.grad(loss(classifier(point), y[:24], term).sum(), point)
            point = (point + 0.02 * gradient.sign()).clamp(0, 1)
        paths.append(point.detach())
    assert (paths[0] - x).abs().max() > 0.15
    torch.testing.assert_close(paths[1], paths[0], rtol=0, atol=1e-12)


def separable(classes, seed):
    generator = torch.Generator().manual_seed(seed)
    centres = 3 * F.normalize(torch.randn(classes, 2, generator=generator, dtype=torch.float64))
    labels = torch.arange(classes).repeat_interleave(15)
    return centres[labels] + 0.5 * torch.randn(len(labels), 2, generator=generator, dtype=torch.float64), labels


def max_margin_direction(x, y, classes):
    """Hard-margin solution without intercept: an SVM on {x, -x} for two classes, Crammer and Singer's for more."""
    if classes == 2:
        signed = (x * (2 * y[:, None] - 1)).numpy()
        both, labels = np.concatenate([signed, -signed]), np.repeat([1, -1], len(signed))
        row = SVC(kernel="linear", C=1e6, tol=1e-8).fit(both, labels).coef_
        weight = np.concatenate([-row, row])
    else:
        svm = LinearSVC(
            multi_class="crammer_singer", fit_intercept=False, C=1e4, tol=1e-9, max_iter=10**6, random_state=0
        )
        weight = svm.fit(x.numpy(), y.numpy()).coef_
    weight = torch.from_numpy(weight)
    return weight - weight.mean(0)


def angle(weight, direction):
    return math.degrees(math.acos(min(1.0, F.cosine_similarity(weight.flatten(), direction.flatten(), dim=0).item())))


@pytest.mark.parametrize("m", [-2.0, 0.0, 2.0])
@pytest.mark.parametrize(("classes", "seed", "rate"), [(2, 3, 0.1), (3, 1, 0.3)])
def test_2_3_max_margin_limit_of_a_linear_model(classes, seed, rate, m):
    x, y = separable(classes, seed)
    direction = max_margin_direction(x, y, classes)
    angles = {}
    for kind in ("normalised", "plain"):
        weight = torch.zeros(classes, 2, dtype=torch.float64)
        for step in range(1, 401):
            weight = weight.detach().requires_grad_()
            evidence = wrong_evidence(x @ weight.T, y) + m
            value = torch.logaddexp(evidence, torch.zeros_like(evidence)).mean()  # L_m, with all its digits
            (gradient,) = torch.autograd.grad(value, weight)
            weight = weight.detach() - rate * (gradient / value.detach() if kind == "normalised" else gradient)
            if step in (25, 100, 400):
                angles[kind, step] = angle(weight, direction)
        assert torch.isfinite(weight).all()
    assert angles["normalised", 400] < 1.0
    assert angles["normalised", 400] < angles["normalised", 100] < angles["normalised", 25]
    assert angles["plain", 400] > 5 * angles["normalised", 400]  # the same limit, far slower


def first_zero(entry, classes=2, m=0.0):
    """Smallest logit gap, in steps of 0.01, at which an entry of the float32 gradient is exactly 0."""
    gap = torch.arange(1000, 13000) / 100
    z = torch.zeros(len(gap), classes)
    z[:, 0] = gap
    gradient = slope(z, torch.zeros(len(gap), dtype=torch.int64), m)[:, entry]
    stuck = gradient == 0
    assert bool(stuck.any())
    assert bool((stuck.diff().sum() == 1).item())  # from there on for good
    return gap[stuck][0].item()


def test_2_4_both_float32_underflow_points():
    # p_y: 1 + e^-gap rounds to 1 once e^-gap <= 2^-24; the others: e^-gap rounds to 0 once it is <= 2^-150
    assert first_zero(0) == pytest.approx(24 * math.log(2), abs=0.011) == pytest.approx(16.64, abs=0.01)
    assert first_zero(1) == pytest.approx(150 * math.log(2), abs=0.011) == pytest.approx(103.97, abs=0.01)
    # more classes only help the true-class entry (by up to log(C - 1), as the order of the processor's sum rounds), and
    # m moves both points by m
    assert first_zero(0) <= first_zero(0, classes=10) <= 24 * math.log(2) + math.log(9) + 0.011
    assert first_zero(1, classes=10) == pytest.approx(first_zero(1), abs=0.011)
    for entry in (0, 1):
        assert first_zero(entry, m=5.0) == pytest.approx(first_zero(entry) + 5, abs=0.011)
