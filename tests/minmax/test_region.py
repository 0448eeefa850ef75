from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.linalg import sqrtm
from sklearn.covariance import ledoit_wolf

from isce.minmax import frechet_distance, inference_region, projected_ascent


def region_of(classifier, x, moved, y):
    with torch.no_grad():
        clean, attacked = (classifier(images, return_embedding=True) for images in (x, moved))
    return inference_region(clean, attacked, y)


@pytest.fixture(scope="module")
def by_hand():
    """Logits are ten times the two features; the attack moves 0.1 from the first feature to the second."""
    features = torch.tensor([[0.9, 0.1], [0.6, 0.5], [0.2, 0.7]], dtype=torch.float64)
    moved = features + torch.tensor([-0.1, 0.1], dtype=torch.float64)
    return inference_region((10 * features, features), (10 * moved, moved), torch.tensor([0, 0, 1]))


def test_every_column_by_hand(by_hand):
    examples = by_hand.examples
    assert examples["label"].tolist() == [0, 0, 1]
    assert examples["prediction"].tolist() == [0, 0, 1]
    assert examples["adversarial_prediction"].tolist() == [0, 1, 1]
    assert examples["margin"].tolist() == pytest.approx([8, 1, 5])
    assert examples["adversarial_margin"].tolist() == pytest.approx([6, -1, 7])
    assert examples["margin_drop"].tolist() == pytest.approx([2, 2, -2])
    assert examples["logit_shift"].tolist() == pytest.approx([1, 1, 1])
    assert examples["covered"].tolist() == [True, False, True]

    def share(margin):
        return 1 / (1 + math.exp(-margin))

    def divergence(first, second):
        return sum(p * math.log(p / q) for p, q in ((first, second), (1 - first, 1 - second)))

    expected = [divergence(share(a), share(b)) for a, b in ((8, 6), (1, -1), (-5, -7))]
    assert examples["kl_clean_adversarial"].tolist() == pytest.approx(expected)
    assert examples["kl_truth_clean"].tolist() == pytest.approx([-math.log(share(m)) for m in (8, 1, 5)])
    assert examples["kl_truth_adversarial"].tolist() == pytest.approx([-math.log(share(m)) for m in (6, -1, 7)])


def test_classes_by_hand(by_hand):
    classes = by_hand.classes
    assert classes.index.tolist() == [0, 1, "all"]
    assert classes["examples"].tolist() == [2, 1, 3]
    assert classes["covered"].tolist() == pytest.approx([0.5, 1, 2 / 3])
    assert classes["margin_drop"].tolist() == pytest.approx([2, -2, 2 / 3])
    assert classes["feature_shift"].tolist() == pytest.approx([0.1 * math.sqrt(2)] * 3)
    assert classes["feature_spread"].tolist() == pytest.approx([0.25, 0, math.sqrt(1.3 / 9)])
    # the same shift everywhere: nothing but the means differs
    assert classes["frechet_distance"].tolist() == pytest.approx([0.02, math.nan, 0.02], nan_ok=True)


def test_on_a_trained_network(digits):
    classifier, x, y = digits
    moved = projected_ascent(classifier, x, y, eps=0.1, steps=10, restarts=1)
    examples, classes = region_of(classifier, x, moved, y)
    with torch.no_grad():
        truth = F.cross_entropy(classifier(x).double(), y, reduction="none")
    np.testing.assert_allclose(examples["kl_truth_clean"], truth, atol=1e-6)
    broken = examples["adversarial_prediction"] != examples["label"]
    assert broken.mean() > 0.1
    assert not examples["covered"][broken].any()  # covered means that no shift of that size changes the prediction
    assert (examples["kl_clean_adversarial"] >= 0).all()
    assert (examples["kl_truth_adversarial"] >= examples["kl_truth_clean"] - 1e-6).all()
    assert (examples["margin_drop"] <= 2 * examples["logit_shift"] + 1e-6).all()
    assert classes["examples"][:-1].sum() == classes["examples"]["all"] == len(x)
    assert (classes["frechet_distance"] > 0).all()
    assert (classes["frechet_distance"] >= classes["feature_shift"] ** 2 - 1e-6).all()


def test_no_attack_no_region(digits):
    classifier, x, y = digits
    region = region_of(classifier, x, x, y)
    for column in ("margin_drop", "logit_shift", "kl_clean_adversarial"):
        assert not region.examples[column].any()
    np.testing.assert_allclose(region.classes[["feature_shift", "frechet_distance"]], 0, atol=1e-6)


def test_frechet_distance_against_the_formula():
    generator = torch.Generator().manual_seed(0)
    first = (
        torch.randn(60, 5, generator=generator, dtype=torch.float64) @ torch.randn(5, 5, generator=generator).double()
    )
    second = torch.randn(40, 5, generator=generator, dtype=torch.float64) + 1
    one, other = (ledoit_wolf(f.numpy())[0] for f in (first, second))
    means = ((first.mean(0) - second.mean(0)) ** 2).sum().item()
    expected = means + np.trace(one + other - 2 * np.real(sqrtm(one @ other)))
    assert frechet_distance(first, second) == pytest.approx(expected)
    assert frechet_distance(second, first) == pytest.approx(expected)


def test_frechet_distance_of_known_gaussians():
    generator = torch.Generator().manual_seed(0)
    normal = torch.randn(200_000, 3, generator=generator, dtype=torch.float64)
    shifted = normal * torch.tensor([1.0, 2.0, 0.5], dtype=torch.float64) + 1
    assert frechet_distance(normal, shifted) == pytest.approx(3 + 0 + 1 + 0.25, rel=0.01)


@pytest.mark.parametrize("examples", [2, 3, 5])
def test_frechet_distance_with_fewer_examples_than_dimensions(examples):
    features = torch.randn(examples, 20, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert frechet_distance(features, features + 2) == pytest.approx(20 * 4)
    assert frechet_distance(torch.ones(examples, 20), torch.ones(examples, 20)) == pytest.approx(0, abs=1e-12)
    assert math.isnan(frechet_distance(features[:1], features))


def test_bad_input():
    logits, features = torch.zeros(2, 3), torch.zeros(2, 5)
    with pytest.raises(ValueError, match="logits must be finite"):
        inference_region((logits, features), (logits * math.nan, features), torch.tensor([0, 1]))
    with pytest.raises(ValueError, match=r"labels must lie in \[0, 3\), got 3"):
        inference_region((logits, features), (logits, features), torch.tensor([0, 3]))
