"""Soft targets: probabilities as mixup makes them, exactly as torch takes them, for every objective that has them."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from loss_cases import CASES, make
from loss_problems import C, N, by_label, every, every_soft, every_soft_variant, mixed, naive, problem
from torch import Tensor

from isce import losses

OPTIONS = [{}, {"weight": [1.0, 2.0, 0.5, 1.5]}, {"label_smoothing": 0.3}]
OPTIONS.append(OPTIONS[1] | OPTIONS[2])


def options(name: str) -> list[dict[str, Any]]:
    return [o for o in OPTIONS if "label_smoothing" not in o or "label_smoothing" not in losses.build(name).exempt]


# What the loss is.


@every_soft_variant
def test_is_the_loss_written_out_of_each_label_times_its_probability(name, params):
    logits, _, embedding = problem(name)
    p = mixed((N, C))
    each = [naive(name, params, logits, torch.full((N,), k), embedding) for k in range(C)]
    expected = (p * torch.stack(each, 1)).sum(1)
    torch.testing.assert_close(make(name, **params).per_example(logits, p, embedding), expected, rtol=1e-6, atol=1e-6)


@every_soft_variant
def test_is_the_expected_loss_with_weight_and_smoothing_and_a_mean_over_the_examples(name, params):
    logits, _, embedding = problem(name)
    p = mixed((N, C))
    for more in options(name):
        objective = make(name, **params | more)
        expected = (p * by_label(objective, logits)).sum(1)
        torch.testing.assert_close(objective.per_example(logits, p), expected)
        torch.testing.assert_close(objective(logits, p, embedding), expected.mean())
        torch.testing.assert_close(make(name, **params | more, reduction="sum")(logits, p), expected.sum())


@every_soft_variant
def test_one_hot_is_the_label(name, params):
    """Value and gradient, also where float32 can barely tell the true class from 1."""
    logits, target, _ = problem(name, dtype=torch.float32)
    logits[0, 0] = 60.0 if CASES[name].bound == 3.0 else logits[0, 0]
    for more in options(name):
        objective = make(name, **params | more)
        results = []
        for y in (target, F.one_hot(target, C).float()):
            z = logits.clone().requires_grad_()
            loss = objective.per_example(z, y)
            results.append((loss.detach(), torch.autograd.grad(loss.sum(), z)[0]))
        torch.testing.assert_close(*results, rtol=1e-5, atol=1e-5)


def test_gradient_of_a_sure_example_does_not_cancel():
    """As with labels, a wrong class's gradient lives as long as float32 holds it: here 1e-26."""
    z = torch.tensor([[60.0, 0.0, 0.0]])
    gradients = []
    for y in (torch.tensor([0]), torch.tensor([[1.0, 0.0, 0.0]])):
        logits = z.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(losses.inference_softmax_cross_entropy(logits, y, 1.0), logits)
        gradients.append(gradient[0, 1:])
    assert 0 < gradients[0][0] < 1e-25
    torch.testing.assert_close(gradients[1], gradients[0], rtol=1e-4, atol=0)


@every_soft_variant
def test_first_and_second_derivatives(name, params):
    logits, _, _ = problem(name, seed=1)
    objective = make(name, **params | options(name)[-1])
    inputs = (logits[:3].requires_grad_(), mixed((3, C)).requires_grad_())
    assert torch.autograd.gradcheck(objective, inputs)
    assert torch.autograd.gradgradcheck(objective, inputs, fast_mode=True)  # along random directions


@pytest.mark.parametrize("shape", [(), (C,), (C, C)])
def test_isce_can_be_differentiated_by_the_inference_information(shape):
    logits, _, _ = problem("isce")
    m = torch.randn(shape, generator=torch.Generator().manual_seed(0)).double().requires_grad_()
    p = mixed((N, C))
    assert torch.autograd.gradcheck(lambda m: losses.inference_softmax_cross_entropy(logits, p, m), m)


# How the loss is called.


@every_soft_variant
def test_shapes_and_vmap(name, params):
    objective = make(name, **params)
    logits = (2 * torch.rand(2, C, 3, generator=torch.Generator().manual_seed(0)) - 1) * CASES[name].bound
    p = mixed((2, C, 3), dtype=torch.float32)
    flat, soft = (values.movedim(1, -1).reshape(-1, C) for values in (logits, p))
    each = objective.per_example(flat, soft)
    torch.testing.assert_close(objective.per_example(logits, p), each.reshape(2, 3))
    torch.testing.assert_close(objective(logits, p), each.mean())
    torch.testing.assert_close(objective(flat[0], soft[0]), each[0])
    torch.testing.assert_close(torch.func.vmap(objective.per_example)(flat, soft), each)


@every_soft_variant
def test_extreme_logits_and_half_precision(name, params):
    objective = make(name, **params)
    target = torch.tensor([[0.5, 0.5, 0.0, 0.0], [0.0, 0.0, 1.0, 0.0], [0.25, 0.25, 0.25, 0.25]])
    for row in ([1e4, -1e4, 1e4, -1e4], [7.0] * 4, [1e4, 0.0, 0.0, 0.0], [0.0] * 4):
        z = torch.tensor([row] * 3).requires_grad_()
        loss = objective.per_example(z, target)
        expected = (target.double() * by_label(objective, z.detach().double())).sum(1)
        torch.testing.assert_close(loss.double(), expected, rtol=1e-5, atol=2e-3 if max(row) > 100 else 1e-5)
        assert torch.autograd.grad(loss.sum(), z)[0].isfinite().all()
    logits = problem(name, dtype=torch.float32)[0][:3]
    for half in (torch.bfloat16, torch.float16):
        expected = objective(logits.to(half).float(), target.to(half).float())
        with torch.autocast("cpu", dtype=torch.bfloat16):
            loss = objective(logits.to(half), target.to(half))
        assert loss.dtype == torch.float32
        assert torch.equal(loss, expected)


@every
def test_objectives_without_soft_targets_and_every_attack_refuse_them(name):
    logits, _, embedding = problem(name)
    p = mixed((N, C))
    objective = make(name)
    with pytest.raises(TypeError, match=r"labels must be int64, got torch\.float64"):
        objective.matched(logits, p, embedding)
    if "soft" in objective.exempt:
        with pytest.raises(TypeError, match=f"{name} takes int64 labels only, got torch.float64: the "):
            objective(logits, p, embedding)


@every_soft
def test_wrong_probabilities(name):
    logits, _, embedding = problem(name)
    for shape in ((N, C - 1), (N - 1, C), (C, N), (C,)):
        with pytest.raises(ValueError, match=r"probabilities must be shaped as logits \(6, 4\), got"):
            make(name)(logits, torch.rand(shape), embedding)
    with pytest.raises(TypeError, match=r"labels must be int64, got torch\.float32 \(or probabilities shaped as"):
        make(name)(logits, torch.rand(N), embedding)
    with pytest.raises(ValueError, match="ignore_index 2 is for labels: with probabilities it must be negative"):
        make(name, ignore_index=2)(logits, mixed((N, C)), embedding)


# Against torch.nn.CrossEntropyLoss.


@st.composite
def calls(draw: st.DrawFn) -> tuple[Tensor, Tensor, dict[str, Any]]:
    """Logits, target and parameters of :class:`torch.nn.CrossEntropyLoss`; some that torch refuses."""
    classes = draw(st.integers(2, 5))
    shape = draw(st.sampled_from([(classes,), (3, classes), (1, classes), (2, classes, 3)]))
    dtype = draw(st.sampled_from([torch.float32, torch.float64]))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 10**6)))
    logits = draw(st.sampled_from([0.1, 3.0, 100.0])) * torch.randn(shape, generator=generator, dtype=dtype)
    dim = min(len(shape) - 1, 1)
    if draw(st.booleans()):
        target = torch.randn(shape, generator=generator, dtype=dtype).softmax(dim)
    else:
        target = torch.randint(classes, shape[:dim] + shape[dim + 1 :], generator=generator)
        if draw(st.booleans()):
            target = target.where(torch.rand(target.shape, generator=generator) < 0.7, -100)
    return (
        logits,
        target,
        {
            "weight": draw(st.sampled_from([None, 3 * torch.rand(classes, generator=generator, dtype=dtype)])),
            "ignore_index": draw(st.sampled_from([-100, 1])),
            "reduction": draw(st.sampled_from(["none", "mean", "sum"])),
            "label_smoothing": draw(st.sampled_from([0.0, 0.3, 1.0])),
        },
    )


def outcome(function: torch.nn.Module, logits: Tensor, target: Tensor) -> tuple[Tensor, Tensor] | None:
    """Loss and gradient; None where the call is refused."""
    logits = logits.clone().requires_grad_()
    try:
        loss = function(logits, target)
    except (IndexError, RuntimeError, ValueError):
        return None
    return loss.detach(), torch.autograd.grad(loss.sum(), logits)[0]


@settings(deadline=None)
@given(call=calls())
def test_sce_and_isce_without_a_term_behave_like_torchs_loss(call):
    logits, target, params = call
    expected = outcome(torch.nn.CrossEntropyLoss(**params), logits, target)
    found = outcome(losses.SoftmaxCrossEntropy(**params), logits, target)
    assert (found is None) == (expected is None)
    classes = logits.shape[min(logits.dim() - 1, 1)]
    for m in (0.0, torch.zeros(classes), torch.zeros(classes, classes)):
        isce = outcome(losses.InferenceSoftmaxCrossEntropy(inference=m, **params), logits, target)
        assert (isce is None) == (expected is None)
        if expected is not None:
            torch.testing.assert_close(isce, expected, rtol=1e-4, atol=1e-4, equal_nan=True)
    if expected is not None:
        torch.testing.assert_close(found, expected, rtol=0, atol=0, equal_nan=True)
