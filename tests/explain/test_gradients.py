"""What a gradient promises, against closed forms; where float32 loses it, against the theory's threshold."""

import math

import pytest
import torch
from torch import nn

from isce.explain import boxed_distance, gradients
from isce.losses import build


def measured(model, x, y, name="sce", eps=0.05, **params):
    objective = build(name, **params)
    return gradients(model, objective.per_example, objective.matched, x, y, eps)


def test_slope_and_distance_of_a_linear_model_are_exact(two_classes):
    x = torch.full((1, 1, 2, 2), 0.5)
    y = two_classes(x).argmax(1)
    found = measured(two_classes, x, y)
    slope = float((two_classes.weight[0] - two_classes.weight[1]).detach().abs().sum())
    margin = float(found.margin)
    assert float(found.slope) == pytest.approx(slope)
    assert margin / slope < 0.5, "the box plays no part"
    assert float(found.distance) == pytest.approx(margin / slope, rel=1e-6)
    assert float(found.kept) == pytest.approx(1)
    assert float(found.aim) == pytest.approx(1)


@pytest.mark.parametrize("share", [0.99, 1.01])
def test_the_promised_distance_is_where_a_linear_model_falls(two_classes, share):
    x = torch.rand(40, 1, 2, 2, generator=torch.Generator().manual_seed(1))
    y = two_classes(x).argmax(1)
    far = measured(two_classes, x, y).distance
    reached = far < 1
    assert reached.sum() > 5
    corner = torch.where(y[:, None] == 0, -1.0, 1.0) * (two_classes.weight[0] - two_classes.weight[1]).sign()
    moved = (x + share * far.float().view(-1, 1, 1, 1) * corner.view_as(x)).clamp(0, 1)
    fell = two_classes(moved).argmax(1) != y
    assert bool((fell[reached] == (share > 1)).all())


def test_distance_by_hand_with_a_pixel_at_the_border():
    x = torch.tensor([[0.0, 0.5], [0.0, 0.5]]).view(2, 1, 1, 2)
    slope = torch.tensor([[-3.0, 1.0], [3.0, 1.0]]).view(2, 1, 1, 2)  # of the negative margin; -3 can't go below 0
    assert boxed_distance(torch.tensor([0.2, 0.2]), slope, x).tolist() == pytest.approx([0.2, 0.05], abs=1e-7)
    assert boxed_distance(torch.tensor([-1.0, 9.0]), slope, x).tolist() == [0, 1]


class Gap(nn.Module):
    """Two classes; the first leads by a gap that falls slowly with pixel 0, the second also gains from pixel 1."""

    def __init__(self, gap):
        super().__init__()
        self.gap = nn.Parameter(torch.tensor(float(gap)))

    def forward(self, x, return_embedding=False):
        a, b = x.flatten(1).T
        logits = torch.stack([self.gap - a, 0.1 * b], 1)
        return (logits, x.flatten(1)) if return_embedding else logits


@pytest.mark.parametrize(("gap", "expected"), [(10, 1.0), (16, 1.0), (19, 0.1 / 1.1), (30, 0.1 / 1.1), (120, 0.0)])
def test_float32_loses_the_true_class_then_everything(gap, expected):
    """Beyond about 17 only the rival's entry is left, a tenth of all there is here; from about 104 nothing is."""
    x, y = torch.zeros(1, 1, 1, 2), torch.zeros(1, dtype=torch.int64)
    found = measured(Gap(gap), x, y)
    assert float(found.aim) == pytest.approx(expected, abs=1e-3)
    assert (float(found.size) == 0) == (gap > 104)
    assert float(found.matched_size) == pytest.approx(1), "the margin has no such point"
    assert gap > 24 * math.log(2) or float(found.kept) == pytest.approx(1)


def test_one_step_is_taken_by_each_gradient():
    """The step that float32 leaves of the loss is too short to break what the other two break."""
    x, y = torch.full((1, 1, 1, 2), 0.5), torch.zeros(1, dtype=torch.int64)

    class Steep(Gap):
        def forward(self, x, return_embedding=False):
            a, b = x.flatten(1).T
            logits = torch.stack([self.gap - 100 * (a - 0.5), 100 * (b - 0.5)], 1)
            return (logits, x.flatten(1)) if return_embedding else logits

    right = measured(Steep(30), x, y, eps=0.2).one_step
    assert {name: bool(one) for name, one in right.items()} == {"training": True, "exact": False, "matched": False}


def test_the_classifier_stays_in_float32(linear, images):
    measured(linear, *images)
    assert all(p.dtype == torch.float32 for p in linear.parameters())
