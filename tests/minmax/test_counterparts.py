from __future__ import annotations

import itertools
import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from isce.minmax import covering_inference, logit_box_maximum, logit_box_minimum, wrong_evidence


def test_hand_computed():
    logits, target = torch.tensor([[2.0, 1.0, 0.0]], dtype=torch.float64), torch.tensor([0])
    assert logit_box_maximum(logits, target, 0.5).item() == pytest.approx(math.log(1 + 1 + math.exp(-1)))
    assert logit_box_minimum(logits, target, 0.5).item() == pytest.approx(math.log(1 + math.exp(-2) + math.exp(-3)))


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6), st.integers(2, 5), st.floats(0, 5))
def test_the_maximum_is_the_best_corner_of_the_box(seed, classes, radius):
    generator = torch.Generator().manual_seed(seed)
    logits = 4 * torch.randn(1, classes, generator=generator, dtype=torch.float64)
    target = torch.randint(classes, (1,), generator=generator)
    corners = radius * torch.tensor(list(itertools.product((-1.0, 1.0), repeat=classes)), dtype=torch.float64)
    losses = F.cross_entropy(logits + corners, target.expand(len(corners)), reduction="none")
    torch.testing.assert_close(logit_box_maximum(logits, target, radius)[0], losses.max())
    torch.testing.assert_close(logit_box_minimum(logits, target, radius)[0], losses.min())
    inside = corners[:1] * torch.rand(500, classes, generator=generator, dtype=torch.float64) * 2 - corners[:1]
    losses = F.cross_entropy(logits + inside, target.expand(500), reduction="none")
    assert (losses >= logit_box_minimum(logits, target, radius) - 1e-12).all()


def test_gradients_flow():
    logits = torch.randn(3, 4, dtype=torch.float64, requires_grad=True)
    target = torch.tensor([0, 3, 1])
    assert torch.autograd.gradcheck(lambda z: logit_box_maximum(z, target, 0.7), logits)
    assert torch.autograd.gradcheck(lambda z: logit_box_minimum(z, target, 0.7), logits)


def test_covering_inference_makes_the_loss_meet_the_move():
    generator = torch.Generator().manual_seed(0)
    logits, moved = torch.randn(2, 20, 6, generator=generator, dtype=torch.float64) * 3
    target = torch.randint(6, (20,), generator=generator)
    m = covering_inference(logits, moved, target)
    wanted = F.cross_entropy(moved, target, reduction="none")
    met = [F.cross_entropy(s[None] - v * F.one_hot(t, 6), t[None]) for s, v, t in zip(logits, m, target, strict=True)]
    torch.testing.assert_close(torch.stack(met), wanted)


def test_wrong_evidence_keeps_a_gradient_where_cross_entropy_has_lost_it():
    logits = torch.tensor([[200.0, 1.0, 0.0]], requires_grad=True)
    target = torch.tensor([0])
    (lost,) = torch.autograd.grad(F.cross_entropy(logits, target), logits)
    (kept,) = torch.autograd.grad(wrong_evidence(logits, target).sum(), logits)
    assert not lost.any()
    torch.testing.assert_close(kept, torch.tensor([[-1.0, math.e / (1 + math.e), 1 / (1 + math.e)]]))


@pytest.mark.parametrize("function", [logit_box_maximum, logit_box_minimum])
def test_bad_input(function):
    logits, target = torch.zeros(2, 3), torch.tensor([0, 2])
    for radius in (-0.1, math.nan, math.inf):
        with pytest.raises(ValueError, match="radius must be finite and not negative"):
            function(logits, target, radius)
    with pytest.raises(ValueError, match=r"labels must lie in \[0, 3\), got 3"):
        function(logits, torch.tensor([0, 3]), 1.0)
    with pytest.raises(ValueError, match=r"labels must lie in \[0, 3\), got -100"):
        function(logits, torch.tensor([0, -100]), 1.0)
    with pytest.raises(ValueError, match="logits must be finite"):
        function(torch.full((2, 3), math.nan), target, 1.0)
    with pytest.raises(ValueError, match=r"logits must have shape \(N, C\)"):
        function(torch.zeros(2, 3, 4), torch.zeros(2, 4, dtype=torch.int64), 1.0)
    with pytest.raises(TypeError, match="labels must be int64"):
        function(logits, torch.tensor([0.0, 1.0]), 1.0)


def test_covering_inference_refuses_another_shape():
    with pytest.raises(ValueError, match="moved must have the shape of logits"):
        covering_inference(torch.zeros(2, 3), torch.zeros(2, 4), torch.tensor([0, 1]))
