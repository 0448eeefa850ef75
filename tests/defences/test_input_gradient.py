"""Input gradient regularisation: the penalty in closed form, and its own gradient through a network with pooling."""

from __future__ import annotations

import pytest
import torch
from defence_batches import batch_of, digits_batch, flat
from pixels import linear

from isce.defences.gradient import InputGradient

WEIGHT = [[2.0, 0.5], [-0.3, 1.0], [0.2, 0.1]]
X = flat([[0.3, 0.4], [0.8, 0.0], [0.1, 0.9]])
Y = [0, 1, 2]


def test_is_the_loss_and_the_mean_squared_norm_in_closed_form():
    batch = batch_of(linear(WEIGHT), X, Y)
    loss, logits = InputGradient(7.0).loss(batch)
    p = logits.softmax(1)
    slope = (p - torch.eye(3)) @ torch.tensor(WEIGHT, dtype=torch.float64)  # of each image's own cross-entropy
    expected = -p.diagonal().log().mean() + 7.0 * slope.square().sum(1).mean()
    torch.testing.assert_close(loss, expected)


def test_the_penalty_does_not_depend_on_the_size_of_the_batch():
    once = InputGradient().loss(batch_of(linear(WEIGHT), X, Y))[0]
    twice = InputGradient().loss(batch_of(linear(WEIGHT), torch.cat([X, X]), Y + Y))[0]
    torch.testing.assert_close(once, twice)


@pytest.mark.parametrize("objective", ["sce", "isce", "isce-released", "cosface"])
def test_its_gradient_is_the_numerical_one_through_max_pooling(objective):
    batch = digits_batch(objective, double=True)
    parameters = list(batch.classifier.parameters())
    defence = InputGradient(3.0)
    slopes = torch.autograd.grad(defence.loss(batch)[0], parameters)
    draws = torch.Generator().manual_seed(1)
    directions = [torch.randn(p.shape, generator=draws, dtype=p.dtype) for p in parameters]
    exact = sum((s * d).sum().item() for s, d in zip(slopes, directions, strict=True))
    values, step = [], 1e-7
    for sign in (1, -2):
        with torch.no_grad():
            for parameter, direction in zip(parameters, directions, strict=True):
                parameter += sign * step * direction
        values.append(defence.loss(batch)[0].item())
    assert exact == pytest.approx((values[0] - values[1]) / (2 * step), rel=1e-4)


def test_float32_agrees_with_float64():
    found = []
    for double in (False, True):
        batch = digits_batch(double=double)
        loss, _ = InputGradient(100.0).loss(batch)
        found.append([s.double() for s in torch.autograd.grad(loss, list(batch.classifier.parameters()))])
    for single, double in zip(*found, strict=True):
        torch.testing.assert_close(single, double, rtol=1e-3, atol=1e-4 * double.abs().max().item())
