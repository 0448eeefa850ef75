"""Noisy softmax: the loss written out, where it is no noise at all, and what it is not defined for."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from defence_batches import batch_of, digits_batch, flat
from pixels import linear

from isce import losses
from isce.defences.noisy import NoisySoftmax

X = flat([[0.3, 0.4], [0.8, 0.0]])
Y = [0, 1]


@pytest.mark.parametrize("bias", [None, [0.5, -1.0]])
def test_is_the_loss_written_out(bias):
    batch = batch_of(linear([[2.0, 0.0], [0.0, 1.0]], bias), X, Y, seed=3)
    loss, logits = NoisySoftmax(0.25).loss(batch)
    xi = torch.randn(2, generator=torch.Generator().manual_seed(3)).abs().double()
    # w_0 = (2, 0), x_0 = (0.3, 0.4): 2 * 0.5 - 0.6 = 0.4; w_1 = (0, 1), x_1 = (0.8, 0), a right angle: 0.8.
    margin = 0.5 * torch.tensor([0.4, 0.8]) * xi
    b = torch.tensor(bias or [0.0, 0.0])
    true = torch.tensor([0.6, 0.0]) + b
    other = torch.tensor([0.4, 1.6]) + b.flip(0)
    torch.testing.assert_close(loss, F.softplus(other - true + margin).mean(), check_dtype=False)
    torch.testing.assert_close(logits, batch.outputs(X)[0])


def test_no_noise_where_the_embedding_points_as_the_class_does_nor_at_alpha_0():
    aligned = batch_of(linear([[2.0, 0.0], [0.0, 1.0]]), flat([[0.9, 0.0], [0.0, 0.2]]), Y)
    for batch, alpha_squared in ((aligned, 0.1), (batch_of(linear([[2.0, 0.0], [0.0, 1.0]]), X, Y), 0.0)):
        plain = batch.objective(batch.outputs(batch.x)[0], batch.y)
        torch.testing.assert_close(NoisySoftmax(alpha_squared).loss(batch)[0], plain)


def test_the_margin_is_never_negative():
    batch = digits_batch(n=50)
    plain = batch.objective(batch.outputs(batch.x)[0], batch.y)
    assert all(NoisySoftmax(10.0).loss(batch)[0] > plain for _ in range(5))


def test_the_gradient_goes_through_the_factor_of_the_noise():
    classifier = linear([[2.0, 0.5], [-0.3, 1.0], [0.2, 0.1]], [0.1, -0.2, 0.3])
    batch = batch_of(classifier, X, Y)
    parameters = [classifier.score_map.weight, classifier.score_map.bias]
    slopes = torch.autograd.grad(NoisySoftmax(0.1).loss(batch)[0], parameters)
    for parameter, slope in zip(parameters, slopes, strict=True):
        for place in range(parameter.numel()):
            values = []
            for step in (1e-6, -1e-6):
                with torch.no_grad():
                    parameter.view(-1)[place] += step
                    values.append(NoisySoftmax(0.1).loss(batch_of(classifier, X, Y))[0].item())
                    parameter.view(-1)[place] -= step
            assert slope.view(-1)[place].item() == pytest.approx((values[0] - values[1]) / 2e-6, abs=1e-6)


NOT_LINEAR = {"arcface", "cosface", "lgm", "mmc"}


@pytest.mark.parametrize("name", losses.names())
def test_logits_that_are_not_linear_are_refused_by_name(name):
    objective = losses.build(name)
    if name in NOT_LINEAR | {"isce-certified"}:
        with pytest.raises(ValueError, match=rf"noisy-softmax.*{name}"):
            NoisySoftmax().check(objective)
    else:
        NoisySoftmax().check(objective)


def test_the_check_leaves_objective_and_generator_alone():
    objective, before = losses.build("center"), torch.random.get_rng_state()
    NoisySoftmax().check(objective)
    assert objective.centres is None
    assert torch.equal(before, torch.random.get_rng_state())
