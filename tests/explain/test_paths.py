"""The plain ascent against a closed form, and the sphere."""

import pytest
import torch

from isce.attacks import Threat
from isce.explain import Ascent, ascend, on_the_sphere
from isce.losses import build


@pytest.fixture
def sce():
    return build("sce")


def test_step_0_is_the_image_and_every_step_is_in_ball_and_box(linear, images, sce):
    x, y = images
    way = ascend(linear, sce.per_example, sce.matched, x, y, Threat("linf", 0.3), 7)
    assert way.logits.shape == (8, 12, 3)
    assert torch.equal(way.logits[0], linear(x).detach())
    assert torch.allclose(way.loss[0], sce.per_example(linear(x), y).detach())
    assert (way.last - x).abs().max() <= 0.3 + 1e-6
    assert way.last.min() >= 0
    assert way.last.max() <= 1


def test_two_classes_and_enough_steps_end_at_the_corner_of_the_ball(two_classes, images, sce):
    """For two classes the gradient's sign never changes: the last point is known, whatever is ascended."""
    x, model = images[0], two_classes
    y = model(x).argmax(1)
    corner = torch.where(y[:, None] == 0, -1.0, 1.0) * (model.weight[0] - model.weight[1]).sign().detach()
    expected = (x + 0.05 * corner.view_as(x)).clamp(0, 1)
    for function in (sce.per_example, sce.matched):
        way = ascend(model, sce.per_example, function, x, y, Threat("linf", 0.05), 5)
        assert torch.allclose(way.last, expected, atol=1e-6)


def test_an_image_that_fell_once_stands_no_more():
    y = torch.tensor([0, 0])
    logits = torch.tensor([[[2.0, 1], [2, 1]], [[1, 2], [2, 1]], [[2, 1], [2, 1]]])
    assert Ascent(logits, logits[..., 0], logits).standing(y).tolist() == [1.0, 0.5, 0.5]


def test_sphere_coordinates_by_hand_and_free_of_scale():
    logits = torch.tensor([[3.0, -4.0, 0.0], [0.0, 0.0, -2.0]])
    y = torch.tensor([0, 1])
    found = on_the_sphere(logits, y)
    assert torch.allclose(found, torch.tensor([[0.6, 0.0], [0.0, 0.0]]))
    assert torch.allclose(on_the_sphere(7 * logits, y), found)
    assert on_the_sphere(logits.expand(4, -1, -1), y).shape == (4, 2, 2)
