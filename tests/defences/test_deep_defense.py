from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from defence_batches import batch_of, points
from pixels import around, linear
from torch import nn

from isce import defences, models
from isce.defences.deep_defense import lengths, perturbation
from isce.models import Classifier
from isce.parameters.training import TrainParameters
from isce.training.checkpoint import load_checkpoint
from isce.training.loop import train


def linear_model(seed=0, size=5, classes=4):
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(classes, size, generator=generator, dtype=torch.float64)
    return linear(weight, torch.randn(classes, generator=generator, dtype=torch.float64))


def smooth_model(seed=0, size=5, classes=4, width=8):
    """Curved enough for DeepFool to take several steps."""
    torch.manual_seed(seed)
    layers = nn.Sequential(nn.Linear(size, width), nn.Tanh(), nn.Linear(width, classes))
    classifier = around(layers, (1, 1, size))
    for weight in classifier.parameters():
        weight.data *= 2.5
    return classifier


def exact_distance(classifier, x, y):
    """To the nearest boundary of a linear network: for a wrong image to that between its prediction and its label."""
    weight, logits = classifier.score_map.weight, classifier(x)
    found = []
    for scores, label in zip(logits, y, strict=True):
        own = int(scores.argmax())
        rivals = [k for k in range(len(scores)) if k != own] if own == label else [int(label)]
        gaps = [(scores[own] - scores[k]) / (weight[own] - weight[k]).norm() for k in rivals]
        found.append(min(float(gap.detach()) for gap in gaps))
    return torch.tensor(found, dtype=torch.float64)


def test_distance_by_hand():
    classifier = linear(torch.tensor([[3.0, 4.0], [0.0, 0.0]]), torch.tensor([0.0, 0.0]))
    x = torch.tensor([1.0, 0.5]).double().view(1, 1, 1, 2)  # gap 5, slope of length 5
    for label in (0, 1):  # right, and wrong
        move = perturbation(classifier, x, torch.tensor([label]), 5)
        torch.testing.assert_close(move.flatten(), torch.tensor([-0.6, -0.8]).double())
        assert lengths(move).item() == pytest.approx(1)


def test_distance_of_a_linear_network_is_exact():
    x, y = points(30, 5, 4)
    classifier = linear_model()
    logits = classifier(x)
    right = logits.argmax(1) == y
    # Two boundaries only are crossed in one step by a wrong image: take those whose label comes second.
    second = logits.topk(2).indices[:, 1] == y
    x, y = x[right | second], y[right | second]
    assert right.sum() > 3
    assert second.sum() > 3
    torch.testing.assert_close(
        lengths(perturbation(classifier, x, y, 5)), exact_distance(classifier, x, y), rtol=1e-9, atol=1e-12
    )


def test_the_loss_by_hand():
    x, y = points(30, 5, 4)
    classifier = linear_model()
    second = classifier(x).topk(2).indices
    kept = (second == y[:, None]).any(1)
    x, y = x[kept], y[kept]
    share = exact_distance(classifier, x, y) / x.flatten(1).norm(dim=1)
    right = classifier(x).argmax(1) == y
    terms = [
        math.exp(-7 * s) if ok else math.exp(2 * min(s, 1))
        for s, ok in zip(share.tolist(), right.tolist(), strict=True)
    ]
    loss, logits = defences.build("deep-defense", weight=3, c=7, d=2).loss(batch_of(classifier, x, y))
    expected = F.cross_entropy(logits, y).item() + 3 * sum(terms) / len(terms)
    assert loss.item() == pytest.approx(expected)
    assert torch.equal(logits, classifier(x))


def test_a_wrong_image_far_from_its_class_counts_as_one_as_long_as_itself():
    classifier = linear(torch.tensor([[1e-3, 0.0], [0.0, 0.0]]), torch.tensor([5.0, 0.0]))
    x = torch.tensor([0.6, 0.8]).double().view(1, 1, 1, 2)
    loss, logits = defences.build("deep-defense").loss(batch_of(classifier, x, torch.tensor([1])))
    assert loss.item() == pytest.approx(F.cross_entropy(logits, torch.tensor([1])).item() + 15 * math.exp(5))


def test_steps_lead_across_a_curved_boundary():
    classifier = smooth_model()
    x, y = points(60, 5, 4)
    y = classifier(x).argmax(1)
    one, five = (1.02 * perturbation(classifier, x, y, steps) for steps in (1, 5))
    broken = [classifier(x + move).argmax(1) != y for move in (one, five)]
    assert broken[0].sum() < broken[1].sum()  # the network is curved
    far = lengths(five) > lengths(x)
    assert (broken[1] | far).all()
    assert (~far).sum() > 10


@pytest.mark.parametrize("wrong", [False, True])
def test_gradient_is_that_of_the_whole_recursion(wrong):
    classifier = smooth_model()
    x, y = points(60, 5, 4)
    y = classifier(x).topk(2).indices[:, int(wrong)]
    one, many = (perturbation(classifier, x, y, steps) for steps in (1, 5))
    kept = (lengths(one - many) > 1e-4) & (lengths(many) < lengths(x))  # more than one step counts
    x, y = x[kept][:6], y[kept][:6]
    assert len(x) >= 2
    defence = defences.build("deep-defense", weight=1.5, c=4, d=1, rate=1.0)
    weights = list(classifier.parameters())

    def loss():
        return defence.loss(batch_of(classifier, x, y))[0]

    slopes = torch.autograd.grad(loss(), weights)
    generator = torch.Generator().manual_seed(0)
    for _ in range(5):
        directions = [torch.randn(w.shape, generator=generator, dtype=torch.float64) for w in weights]
        values = []
        for side in (1, -1):
            for weight, direction in zip(weights, directions, strict=True):
                weight.data += side * 1e-6 * direction
            values.append(loss().item())
            for weight, direction in zip(weights, directions, strict=True):
                weight.data -= side * 1e-6 * direction
        expected = sum((s * d).sum().item() for s, d in zip(slopes, directions, strict=True))
        assert (values[0] - values[1]) / 2e-6 == pytest.approx(expected, rel=1e-5, abs=1e-7)


def test_gradient_through_max_pooling_in_float32_is_that_in_float64():
    torch.manual_seed(0)
    backbone = models.build("small-cnn", input_shape=(1, 8, 8), mean=[0.3], std=[0.4])
    classifier = Classifier(backbone, nn.Linear(128, 10))
    x = torch.rand(8, 1, 8, 8)
    y = classifier(x).argmax(1)
    y[:2] = (y[:2] + 1) % 10
    slopes = []
    for kind in (torch.float32, torch.float64):
        loss, _ = defences.build("deep-defense").loss(batch_of(classifier.to(kind), x.to(kind), y))
        slopes.append(torch.autograd.grad(loss, list(classifier.parameters())))
        classifier = Classifier(backbone, classifier.score_map)
    for single, double in zip(*slopes, strict=True):
        assert single.isfinite().all()
        torch.testing.assert_close(single.double(), double, rtol=1e-2, atol=1e-3 * double.abs().max().item())


def test_a_flat_network_moves_no_point_and_has_a_finite_gradient():
    classifier = linear(torch.zeros(3, 4), torch.tensor([1.0, 0.0, 0.0]))
    x, _ = points(2, 4, 3)
    y = torch.tensor([0, 1])
    assert perturbation(classifier, x, y, 3).abs().max() == 0
    loss, _ = defences.build("deep-defense").loss(batch_of(classifier, x, y))
    assert loss.item() == pytest.approx(F.cross_entropy(classifier(x), y).item() + 15)
    (slope,) = torch.autograd.grad(loss, classifier.score_map.weight)
    assert slope.isfinite().all()


def test_rate_scales_the_gradient_and_not_the_loss():
    x, y = points(8, 5, 4)
    classifier = linear_model()
    weight = classifier.score_map.weight
    whole, tenth = (
        defences.build("deep-defense", rate=rate).loss(batch_of(classifier, x, y))[0] for rate in (1.0, 0.1)
    )
    assert whole.item() == tenth.item()
    slopes = [torch.autograd.grad(loss, weight)[0] for loss in (whole, tenth)]
    torch.testing.assert_close(slopes[1], 0.1 * slopes[0])


def test_it_goes_down_its_own_loss():
    """Steps along the gradient make the perturbations of images that are right longer."""
    classifier = smooth_model()
    x, y = points(200, 5, 4)
    kept = classifier(x).argmax(1) == y
    x, y = x[kept], y[kept]
    defence = defences.build("deep-defense", c=2, rate=1.0)
    optimizer = torch.optim.SGD(classifier.parameters(), lr=0.01)
    before = lengths(perturbation(classifier, x, y, 5)).mean().item()
    for _ in range(20):
        optimizer.zero_grad()
        defence.loss(batch_of(classifier, x, y))[0].backward()
        optimizer.step()
    assert lengths(perturbation(classifier, x, y, 5)).mean().item() > 1.2 * before


def test_it_goes_on_with_the_network_without_a_defence(tmp_path):
    given = {"epochs": 2, "train_images": 100}
    tuned = given | {"defence": {"name": "deep-defense", "params": {"rate": 1e-12}}}
    for name, values in {"plain": given, "tuned": tuned}.items():
        result = train(TrainParameters.model_validate(values), tmp_path / name, progress=False)
        assert result.diverged is None
    plain, tuned = (load_checkpoint(tmp_path / name / "last.safetensors").classifier for name in ("plain", "tuned"))
    for one, other in zip(plain.parameters(), tuned.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-7)
