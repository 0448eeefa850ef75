"""One-step adversarial training: which way the second half is moved, how far, and how the halves are weighed."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from defence_batches import batch_of, digits_batch, flat, shown_to
from pixels import linear
from scipy.stats import kstest, truncnorm

from isce.defences.onestep import OneStep

WEIGHT = [[2.0, 0.5], [-0.3, 1.0], [0.2, -0.1]]
X = flat([[0.3, 0.4], [0.8, 0.0], [0.1, 0.9], [0.9, 0.2], [0.5, 0.5]])
Y = [0, 1, 2, 0, 1]


def sizes(k, seed=0, clip=0.3, deviation=50 / 255):
    draws = torch.Generator().manual_seed(seed)
    return torch.nn.init.trunc_normal_(torch.empty(k, 1, 1, 1), 0, deviation, 0, clip, generator=draws).double()


def test_the_second_half_takes_one_step_towards_the_least_likely_class():
    batch = batch_of(linear(WEIGHT), X, Y)
    shown = shown_to(batch)
    OneStep().loss(batch)
    tried, both = shown
    assert torch.equal(tried, X[3:])
    assert torch.equal(both[:3], X[:3])
    # Logits of (.9, .2): 1.9, -.07, .16, so towards class 1; of (.5, .5): 1.25, .35, .05, so towards class 2.
    # d CE / d x = sum_k p_k w_k - w_ll: its first entry is above 0 in both (2 outweighs), its second below 0 for
    # the first (class 1 has the largest second weight) and above 0 for the second.
    signs = torch.tensor([[1.0, -1.0], [1.0, 1.0]]).view(2, 1, 1, 2)
    torch.testing.assert_close(both[3:], (X[3:] - sizes(2) * signs).clamp(0, 1))


def test_the_loss_weighs_the_sums_of_both_halves():
    batch = batch_of(linear(WEIGHT), X, Y)
    shown = shown_to(batch)
    loss, logits = OneStep(weight=0.3).loss(batch)
    losses = F.cross_entropy(batch.classifier(shown[1]), batch.y, reduction="none")
    torch.testing.assert_close(loss, (losses[:3].sum() + 0.3 * losses[3:].sum()) / (3 + 0.3 * 2))
    torch.testing.assert_close(logits, batch.classifier(shown[1]))


def test_weight_0_is_the_clean_half_alone():
    batch = batch_of(linear(WEIGHT), X, Y)
    torch.testing.assert_close(OneStep(0.0).loss(batch)[0], F.cross_entropy(batch.classifier(X[:3]), batch.y[:3]))


def test_points_stay_in_ball_and_box_and_eps_differs_between_images():
    batch = digits_batch(n=41)
    shown = shown_to(batch)
    OneStep(clip=0.1).loss(batch)
    moved, clean = shown[1][21:], batch.x[21:]
    assert moved.min() >= 0
    assert moved.max() <= 1
    reach = (moved - clean).flatten(1).abs().amax(1)
    assert reach.max() <= 0.1 + 1e-6
    assert len(reach.unique()) == 20
    assert torch.equal(shown[1][:21], batch.x[:21])


def test_eps_is_a_truncated_half_normal():
    batch = batch_of(linear([[1.0, 0.0], [-1.0, 0.0]]), flat([[0.5, 0.5]] * 4000), [0] * 4000)
    shown = shown_to(batch)
    OneStep(clip=0.3, deviation=0.2).loss(batch)
    drawn = (shown[1][2000:] - 0.5).abs().amax((1, 2, 3))
    assert kstest(drawn.numpy(), truncnorm(0, 1.5, scale=0.2).cdf).pvalue > 0.01


def test_the_gradient_does_not_fade_for_a_confident_network():
    """Towards a class that float32 gives the probability 0 the cross-entropy still has its whole gradient."""
    batch = batch_of(linear([[500.0, 100.0], [-500.0, 0.0]]).float(), X.float(), [0] * 5)
    assert batch.outputs(batch.x)[0].softmax(1)[:, 1].max() == 0
    shown = shown_to(batch)
    OneStep().loss(batch)
    assert (shown[1][3:] != X[3:].float()).all()


def test_the_default_is_that_of_the_public_comparison():
    assert (OneStep().weight, OneStep().clip) == (0.3, 0.3)
    assert math.isclose(OneStep().deviation, 0.196, abs_tol=1e-3)
