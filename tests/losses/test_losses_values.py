"""Every registered objective against its paper: values, derivatives, minima, extreme inputs, precision."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from loss_cases import CASES, Minimum, make
from loss_problems import C, D, N, every, every_variant, naive, problem
from torch import Tensor, nn

from isce import losses


@every
def test_worked_values(name):
    for params, logits, target, embedding, expected in CASES[name].worked:
        labels = torch.tensor(target)
        loss = make(name, **params).per_example(
            torch.tensor(logits).double(),
            labels.double() if labels.is_floating_point() else labels,
            embedding and torch.tensor(embedding).double(),
        )
        torch.testing.assert_close(loss, torch.tensor(expected).double(), rtol=1e-6, atol=1e-6)


@every_variant
def test_agrees_with_the_loss_written_out(name, params):
    for seed in range(3):
        logits, target, embedding = problem(name, seed)
        loss = make(name, **params).per_example(logits, target, embedding)
        torch.testing.assert_close(loss, naive(name, params, logits, target, embedding), rtol=1e-6, atol=1e-6)


@every
def test_label_smoothing_acts_on_the_changed_logits(name):
    if "label_smoothing" in losses.build(name).exempt:
        return  # that it is refused is tested with the other parameters
    logits, target, embedding = problem(name)
    for params in CASES[name].variants:
        loss = make(name, **params | {"label_smoothing": 0.3}).per_example(logits, target, embedding)
        expected = naive(name, params, logits, target, embedding, smoothing=0.3)
        torch.testing.assert_close(loss, expected, rtol=1e-6, atol=1e-6)


@every_variant
def test_first_and_second_derivatives(name, params):
    logits, target, embedding = problem(name, seed=1)
    objective = make(name, **params, weight=[1.0, 2.0, 0.5, 1.5])
    inputs = (logits.requires_grad_(), embedding.requires_grad_())

    def loss(logits: Tensor, embedding: Tensor) -> Tensor:
        return objective(logits, target, embedding)

    assert torch.autograd.gradcheck(loss, inputs)
    assert torch.autograd.gradgradcheck(loss, inputs, fast_mode=True)  # along random directions


@every
def test_derivative_of_the_matched_attack(name):
    logits, target, embedding = problem(name, seed=1)
    assert torch.autograd.gradcheck(lambda z: make(name).matched(z, target, embedding), logits.requires_grad_())


@pytest.mark.parametrize("maker", [pytest.param(m, id=n) for n, case in CASES.items() for m in case.minima])
def test_gradient_is_zero_at_a_smooth_minimum_and_slopes_rise_from_a_kink(maker: Callable[[], Minimum]):
    minimum = maker()
    x = minimum.point.clone().requires_grad_()
    least = minimum.function(x)
    (gradient,) = torch.autograd.grad(least, x)
    assert gradient.isfinite().all()
    if minimum.direction is None:
        assert gradient.abs().max() < 1e-6
        # It is a minimum and not just a stationary point.
        moves = torch.randn(20, *x.shape, generator=torch.Generator().manual_seed(0), dtype=x.dtype)
        assert all(minimum.function(x + 0.1 * move) >= least - 1e-12 for move in moves)
    else:
        step = 1e-6
        for sign in (-1, 1):
            slope = (minimum.function(x + sign * step * minimum.direction) - least) / step
            assert slope > 0.01


EXTREMES = {
    "huge": [1e4, -1e4, 1e4, -1e4],
    "equal": [7.0, 7.0, 7.0, 7.0],
    "dominant": [1e4, 0.0, 0.0, 0.0],
    "dominated": [-1e4, 0.0, 0.0, 0.0],
    "zero": [0.0, 0.0, 0.0, 0.0],
}


@every_variant
def test_extreme_inputs_are_finite_and_right(name, params):
    for row in EXTREMES.values():
        check_extreme(name, params, row)


def check_extreme(name, params, row):
    logits = torch.tensor([row] * N)
    target = torch.tensor([0, 1, 2, 3, 0, 1])
    embedding = logits[:, :D] * torch.tensor([1.0, 1.0, -1.0, 1.0, 1.0, -1.0]).reshape(N, 1)
    inputs = (logits.requires_grad_(), embedding.detach().requires_grad_())
    objective = make(name, **params)
    loss = objective.per_example(inputs[0], target, inputs[1])
    expected = naive(name, params, logits, target, embedding)
    # A term added to a score of 1e4 is rounded to the spacing of float32 there, 1e-3.
    spacing = torch.finfo(torch.float32).eps * float(logits.detach().abs().max())
    torch.testing.assert_close(loss.double(), expected, rtol=1e-5, atol=1e-5 + spacing)
    for function in (objective.per_example, objective.matched):
        value = function(inputs[0], target, inputs[1])
        gradients = torch.autograd.grad(value.sum(), inputs, allow_unused=True)
        assert value.isfinite().all()
        assert all(g is None or bool(g.isfinite().all()) for g in gradients)


@every_variant
def test_precision(name, params):
    logits, target, embedding = problem(name, dtype=torch.float32)
    objective = make(name, **params)
    full = objective.per_example(logits, target, embedding)
    assert full.dtype == torch.float32
    torch.testing.assert_close(full.double(), naive(name, params, logits, target, embedding), rtol=1e-5, atol=1e-5)
    for half in (torch.bfloat16, torch.float16):
        s, h = logits.to(half), embedding.to(half)
        expected = objective(s.float(), target, h.float())
        with torch.autocast("cpu", dtype=torch.bfloat16):
            loss, matched = objective(s, target, h), objective.matched(s, target, h)
        assert loss.dtype == matched.dtype == torch.float32
        assert torch.equal(loss, expected)
        assert torch.equal(matched, objective.matched(s.float(), target, h.float()))
        assert torch.equal(objective(s, target, h), expected)  # without autocast as well


@every
def test_score_map_in_half_precision(name):
    """Under autocast and as half modules: float32 where the map is the objective's own, of the weights as they are."""
    torch.manual_seed(0)
    objective = losses.build(name)
    logits = objective.score_map(D, C)
    embedding = torch.randn(N, D)
    own = not isinstance(logits, nn.Linear)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rough = logits(embedding.bfloat16())
    assert rough.shape == (N, C)
    if own:
        assert rough.dtype == torch.float32
        assert torch.equal(rough, logits(embedding.bfloat16().float()))
    for half in (torch.float16, torch.bfloat16):
        target = torch.tensor([0, 1, 2, 3, 0, 1])
        narrow, h = copy.deepcopy(logits).to(half), embedding.to(half)
        found = narrow(h)
        if own:
            torch.testing.assert_close(found, copy.deepcopy(narrow).float()(h.float()), rtol=1e-6, atol=1e-6)
        loss = objective.to(half)(found, target, h)
        assert loss.dtype == torch.float32
        gradients = torch.autograd.grad(loss, [*narrow.parameters()]) if [*narrow.parameters()] else [loss]
        assert all(bool(g.isfinite().all()) for g in gradients)
