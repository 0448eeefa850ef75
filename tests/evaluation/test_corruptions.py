"""Corruptions: what each does to an image, and accuracies that are known in closed form."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from mean_model import Mean
from torch import nn

from isce.compat import import_transforms
from isce.evaluation import wilson
from isce.evaluation.corruptions import STRENGTHS, corrupted, corruptions

INDEX = torch.arange(40)
X = torch.rand(40, 1, 8, 8, generator=torch.Generator().manual_seed(0))


class Centre(nn.Module):
    """Class 1 where the pixel in the middle exceeds 0.5."""

    def forward(self, x):
        value = x[:, 0, x.shape[2] // 2, x.shape[3] // 2] - 0.5
        return torch.stack([-value, value], 1)


def constant(value, n=4, size=32):
    return torch.full((n, 1, size, size), value, dtype=torch.float64)


def accuracies(classifier, images, labels, name):
    rows = corruptions(classifier, images, torch.full((len(images),), labels), seed=0)
    return [row["accuracy"] for row in rows if row["name"] == name]


@pytest.mark.parametrize("name", STRENGTHS)
def test_severity_0_is_the_image_as_it_is_and_each_further_one_is_farther_from_it(name):
    assert torch.equal(corrupted(X, name, 0, 0, INDEX), X)
    moves = [(corrupted(X, name, severity, 0, INDEX) - X).norm().item() for severity in range(4)]
    assert moves == sorted(set(moves))


@pytest.mark.parametrize("name", STRENGTHS)
def test_an_image_is_corrupted_alike_whatever_it_is_with(name):
    whole = corrupted(X, name, 2, 3, INDEX)
    chosen = torch.tensor([7, 2])
    torch.testing.assert_close(corrupted(X[chosen], name, 2, 3, INDEX[chosen]), whole[chosen])
    assert 0 <= whole.min() < whole.max() <= 1


@pytest.mark.parametrize(("name", "drawn"), [("gaussian noise", True), ("gaussian blur", False), ("rotation", True)])
def test_another_seed_or_place_gives_another_draw(name, drawn):
    first = corrupted(X, name, 1, 0, INDEX)
    assert torch.equal(first, corrupted(X, name, 1, 0, INDEX))
    assert torch.equal(first, corrupted(X, name, 1, 1, INDEX)) is not drawn
    assert torch.equal(first, corrupted(X, name, 1, 0, INDEX + 100)) is not drawn


def test_noise_is_normal_of_its_deviation_with_the_same_draws_at_each_severity():
    x = constant(0.5, n=40)
    by_severity = [corrupted(x, "gaussian noise", severity, 0, INDEX) - x for severity in (1, 2)]
    inside = by_severity[1].abs() < 0.5
    torch.testing.assert_close(by_severity[1][inside], 2 * by_severity[0][inside], rtol=0, atol=1e-7)
    noise = by_severity[0] / 0.1
    assert abs(noise.mean().item()) < 5 / math.sqrt(noise.numel())
    assert noise.std().item() == pytest.approx(1, abs=5 / math.sqrt(2 * noise.numel()))
    assert (noise.abs() < 1).double().mean().item() == pytest.approx(0.6827, abs=0.015)


def test_rotation_is_torchvisions_one_way_or_the_other():
    rotate = import_transforms().functional.rotate
    kind = import_transforms().InterpolationMode.BILINEAR
    found = corrupted(X, "rotation", 2, 0, INDEX)
    left, right = (rotate(X, angle, interpolation=kind) for angle in (30.0, -30.0))
    ways = [[torch.allclose(one, way) for one, way in zip(found, turned, strict=True)] for turned in (left, right)]
    assert all(a != b for a, b in zip(*ways, strict=True))
    assert 8 <= sum(ways[0]) <= 32


def test_the_accuracy_after_a_rotation_is_that_of_the_area_that_is_left():
    """A constant square keeps 2 / (1 + cos + sin) of its brightness: 0.90, 0.85 and 0.83 at 15, 30 and 45 degrees."""
    assert accuracies(Mean(), constant(0.58), 1, "rotation") == [1, 0, 0]  # 0.52, 0.49, 0.48
    assert accuracies(Mean(), constant(0.57), 1, "rotation") == [1, 0, 0]
    assert accuracies(Mean(), constant(0.595), 1, "rotation") == [1, 1, 0]
    assert accuracies(Mean(), constant(0.54), 1, "rotation") == [0, 0, 0]
    assert accuracies(Mean(), constant(0.9), 1, "rotation") == [1, 1, 1]


def test_the_accuracy_after_a_blur_is_that_of_the_kernel():
    """A point keeps the square of the kernel's middle: 0.62, 0.16 and 0.04 on images 25 pixels wide."""
    x = torch.zeros(3, 1, 25, 25)
    x[:, :, 12, 12] = 1
    for severity, sigma in ((1, 0.5), (2, 1.0), (3, 2.0)):
        weights = np.exp(-(np.arange(-math.ceil(3 * sigma), math.ceil(3 * sigma) + 1) ** 2) / (2 * sigma**2))
        blurred = corrupted(x, "gaussian blur", severity, 0, INDEX[:3])
        torch.testing.assert_close(blurred[:, 0, 12, 12], torch.full((3,), float(weights.max() / weights.sum()) ** 2))
    assert accuracies(Centre(), x, 1, "gaussian blur") == [1, 0, 0]
    assert accuracies(Centre(), 0.8 * x, 1, "gaussian blur") == [0, 0, 0]


def test_a_constant_image_has_no_blur_and_its_mean_no_noise():
    for value, label in ((0.4, 0), (0.6, 1)):
        assert accuracies(Mean(), constant(value), label, "gaussian blur") == [1, 1, 1]
        assert accuracies(Mean(), constant(value), label, "gaussian noise") == [1, 1, 1]


def test_a_row_is_the_share_that_is_right_over_all_batches():
    x = torch.cat([constant(0.9, n=300, size=4), constant(0.1, n=100, size=4)])
    rows = corruptions(Mean(), x, torch.ones(400, dtype=torch.int64), seed=0)
    assert [(row["name"], row["severity"]) for row in rows] == [(name, k) for name in STRENGTHS for k in (1, 2, 3)]
    assert [row["strength"] for row in rows] == [one for values in STRENGTHS.values() for one in values]
    row = rows[3]  # blur, which changes nothing here
    low, high = wilson(300, 400)
    expected = {"accuracy": 0.75, "correct": 300, "n": 400, "low": low, "high": high}
    assert {key: row[key] for key in expected} == expected


def test_the_network_is_left_as_it_was_and_evaluated_in_evaluation_mode():
    modes = []

    class Watched(Mean):
        def forward(self, x):
            modes.append((self.training, torch.is_grad_enabled()))
            return super().forward(x)

    network = Watched().train()
    corruptions(network, constant(0.9, size=4), torch.ones(4, dtype=torch.int64), seed=0)
    assert set(modes) == {(False, False)}
    assert network.training
    assert network.gain.requires_grad


def test_logits_that_are_not_finite_have_no_accuracy():
    network = Mean()
    network.gain.data.fill_(math.nan)
    with pytest.raises(ValueError, match="gaussian noise 1 are not finite"):
        corruptions(network, constant(0.9, size=4), torch.ones(4, dtype=torch.int64), seed=0)


def test_what_is_unknown_is_refused():
    with pytest.raises(ValueError, match="unknown corruption 'fog'"):
        corrupted(X, "fog", 1, 0, INDEX)
    with pytest.raises(ValueError, match="severity must be 0 to 3, got 4"):
        corrupted(X, "rotation", 4, 0, INDEX)


@pytest.mark.parametrize(
    ("x", "y", "error", "words"),
    [
        (X, torch.ones(1, dtype=torch.int64), ValueError, "labels must have shape"),
        (X * 255, torch.ones(len(X), dtype=torch.int64), ValueError, r"images must lie in \[0, 1\]"),
        (X, torch.ones(len(X)), TypeError, "labels must be int64"),
        (X[:0], torch.ones(0, dtype=torch.int64), ValueError, "empty batch"),
    ],
)
def test_images_and_labels_that_nothing_can_be_evaluated_on_are_refused(x, y, error, words):
    with pytest.raises(error, match=words):
        corruptions(Mean(), x, y, seed=0)
