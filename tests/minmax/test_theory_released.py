"""Statements on the released reading of I-SCE (C = 10): minima over the whole sphere, and ways of ascent.

Kink, jump and penalty are checked in ``tests/losses/test_losses_theory.py``.
"""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from isce.losses import released_inference_softmax_cross_entropy, released_outputs

VARIANTS = {
    "plain": {"inference": 0.0, "clip": False},
    "term": {"inference": 0.1, "clip": False},
    "clip": {"inference": 0.1, "clip": True},
}


def loss(z, variant="clip", label=0):
    target = torch.full((len(z),), label)
    return released_inference_softmax_cross_entropy(z, target, reduction="none", **VARIANTS[variant])


def symmetric(true, classes=10):
    """Points of the unit sphere with t_y = true and the wrong classes equal and not positive; y is class 0."""
    true = torch.as_tensor(true, dtype=torch.float64).reshape(-1, 1)
    return torch.cat([true, -((1 - true**2) / (classes - 1)).clamp(min=0).sqrt().expand(-1, classes - 1)], dim=1)


def slope(z, variant="clip"):
    z = z.detach().requires_grad_()
    return torch.autograd.grad(loss(z, variant).sum(), z)[0]


@pytest.mark.parametrize(
    ("variant", "minimum", "true", "probability"),
    [("plain", 1.4199, 0.9487, 0.242), ("term", 1.3450, 0.9487, 0.261), ("clip", 1.3515, 0.9000, 0.259)],
)
def test_3_minimum_over_the_unit_sphere(variant, minimum, true, probability):
    """Descent from random rightly classified starts, with falling steps, since the minimum may be a kink."""
    generator = torch.Generator().manual_seed(0)
    z = torch.randn(8, 10, generator=generator, dtype=torch.float64)
    z[:, 0] = z.abs().amax(1) + 0.1
    z = F.normalize(z)
    best, best_loss = z, loss(z, variant)
    for i in range(700):
        z = F.normalize(z - 0.3 * 0.973**i * F.normalize(slope(z, variant)))
        value = loss(z, variant)
        better = value < best_loss
        best, best_loss = torch.where(better[:, None], z, best), torch.where(better, value, best_loss)
    torch.testing.assert_close(best_loss, best_loss.new_full((8,), minimum), rtol=0, atol=5e-5)
    torch.testing.assert_close(best[:, 0], best_loss.new_full((8,), true), rtol=0, atol=5e-4)
    torch.testing.assert_close(best[:, 1:], symmetric(best[:, 0])[:, 1:], rtol=0, atol=2e-3)
    largest = torch.softmax(released_outputs(best, **VARIANTS[variant]), dim=1).amax(1)
    torch.testing.assert_close(largest, best_loss.new_full((8,), probability), rtol=0, atol=5e-4)
    scan = loss(F.normalize(torch.randn(100_000, 10, generator=generator, dtype=torch.float64)), variant)
    assert scan.min() >= minimum - 5e-5


def margin(z):
    """Margin of the normalised output: sqrt(2) times the sine of the angle to the nearest decision boundary."""
    return (z[0, 0] - z[0, 1:].max()).item()


def ascend(start, direction, steps=60):
    """Ascent on the sphere in steps of 0.05, from the symmetric point with t_y = start."""
    path = [symmetric(start)]
    for _ in range(steps):
        path.append(F.normalize(path[-1] + 0.05 * F.normalize(direction(path[-1]))))
    return path


@pytest.mark.parametrize("start", [0.93, 0.97])
def test_3_first_wrong_way_steps_beyond_the_kink(start):
    """Ascent first climbs towards e_y; a long one passes it and comes back, a short one is spent."""
    path = ascend(start, slope)
    true = [z[0, 0].item() for z in path]
    top = true.index(max(true))
    assert top >= 3
    assert true[: top + 1] == sorted(true[: top + 1])
    assert max(true) > 0.998
    assert margin(path[-1]) < 0  # wrong by then
    raw = ascend(start, lambda z: (F.one_hot(z[:, 1:].argmax(1) + 1, 10) - F.one_hot(torch.tensor([0]), 10)).double())
    assert margin(path[8]) > 0.89 * margin(path[0])
    assert margin(raw[8]) < 0.68 * margin(path[0])  # the raw margin as objective wastes nothing
    assert [margin(z) for z in raw[:20]] == sorted((margin(z) for z in raw[:20]), reverse=True)


def test_3_towards_the_true_class_is_away_from_the_boundary_up_to_the_simplex_vertex_only():
    """The normalised margin peaks at t_y = sqrt(9/10): beyond it the way to e_y is a detour, no longer a retreat."""
    margins = [margin(z) for z in ascend(0.91, slope, 8)]
    assert margins[:3] == sorted(margins[:3])
    assert margins[2:] == sorted(margins[2:], reverse=True)
    assert max(margins) == pytest.approx(10 / 9 * math.sqrt(9 / 10), abs=1e-4)  # 1.0541, up from 1.0482
    margins = [margin(z) for z in ascend(0.97, slope, 8)]
    assert margins == sorted(margins, reverse=True)
    # from there the clip changes nothing: SCE on normalised outputs takes the same path
    for clipped, plain in zip(ascend(0.97, slope, 6), ascend(0.97, lambda z: slope(z, "plain"), 6), strict=True):
        torch.testing.assert_close(clipped, plain)


def test_3_ascent_that_starts_before_the_kink_goes_the_right_way():
    z = symmetric(0.89)
    for _ in range(20):
        z, before = F.normalize(z + 0.05 * F.normalize(slope(z))), z[0, 0]
        assert z[0, 0] < before


@pytest.mark.parametrize("inference", [0.0, 0.1, 0.7])
@pytest.mark.parametrize("clip", [True, False])
def test_3_the_term_never_changes_the_predicted_class(inference, clip):
    z = torch.randn(500, 10, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    assert torch.equal(released_outputs(z, inference, 1.0, clip).argmax(1), z.argmax(1))
