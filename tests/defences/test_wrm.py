from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from defence_batches import batch_of, points
from pixels import linear

from isce import defences, losses
from isce.defences.wrm import Certificate, certificate, penalised
from isce.parameters.training import TrainParameters
from isce.training.loop import train

GAMMA = 0.5


def softmax_model(seed=0, size=2, classes=3):
    """A linear model whose loss has less curvature than 2 gamma: that of the softmax is at most 1/2."""
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(classes, size, generator=generator, dtype=torch.float64)
    weight *= 1.3 / torch.linalg.matrix_norm(weight, 2)
    return linear(weight, torch.randn(classes, generator=generator, dtype=torch.float64))


def worst_on_a_grid(classifier, x, y):
    """phi of each image by brute force, in two dimensions."""
    axis = torch.linspace(-2, 2, 801, dtype=torch.float64)
    moves = torch.cartesian_prod(axis, axis)
    logits = classifier.score_map(x.reshape(len(x), 1, 2) + moves)
    loss = F.cross_entropy(logits.flatten(0, 1), y.repeat_interleave(len(moves)), reduction="none")
    return (loss.detach().view(len(x), -1) - GAMMA * moves.square().sum(1)).amax(1)


def test_first_steps_by_hand():
    """On a linear loss w z the first step moves by w / (2 gamma), the maximum, and the others stay there."""
    w, x = torch.tensor([3.0, -4.0]), torch.tensor([[0.2, 0.9]])
    for steps in (1, 2, 15):
        torch.testing.assert_close(penalised(lambda z: z @ w, x, 0.5, steps), torch.tensor([[3.2, -3.1]]))


def test_second_step_is_shorter_by_the_root_of_two():
    x = torch.ones(1, 1)
    # loss z^2 / 2, gamma 1: z1 = x + x / 2, z2 = z1 + (z1 / 2 - (z1 - x)) / sqrt(2)
    found = penalised(lambda z: z[:, 0].square() / 2, x, 1.0, 2)
    torch.testing.assert_close(found, torch.tensor([[1.5 + (0.75 - 0.5) / math.sqrt(2)]]))


def test_the_ascent_finds_phi_of_a_linear_model():
    x, y = points(5, 2, 3)
    classifier = softmax_model().eval()
    found = certificate(classifier, losses.build("sce"), x, y, gamma=GAMMA, steps=50)
    assert found.value == pytest.approx(float(worst_on_a_grid(classifier, x, y).mean()), abs=2e-5)


def test_at_its_own_cost_the_bound_is_the_mean_loss_of_its_points():
    x, y = points(8, 2, 3)
    classifier, objective = softmax_model().eval(), losses.build("sce")

    def loss(z):
        return F.cross_entropy(classifier(z), y, reduction="none")

    z = penalised(loss, x, GAMMA, 15)
    found = certificate(classifier, objective, x, y, gamma=GAMMA)
    assert found.cost == pytest.approx(float((z - x).square().sum((1, 2, 3)).mean()))
    assert found.bound(found.cost) == pytest.approx(loss(z).mean().item())


@pytest.mark.parametrize("seed", range(3))
def test_no_perturbation_of_any_mean_cost_beats_the_bound(seed):
    x, y = points(8, 2, 3, seed)
    classifier = softmax_model(seed).eval()
    found = certificate(classifier, losses.build("sce"), x, y, gamma=GAMMA, steps=200)
    generator = torch.Generator().manual_seed(seed)
    moved = [torch.randn(x.shape, generator=generator, dtype=torch.float64) for _ in range(50)]
    for other in (0.1, 0.3, 0.5, 1.0, 3.0):  # the worst points at other penalties: the strongest at their own cost
        z = penalised(lambda z: F.cross_entropy(classifier(z), y, reduction="none"), x, other, 200)
        moved += [z - x]
    for move in moved:
        for length in (0.0, 0.3, 1.0, 3.0):
            mean = F.cross_entropy(classifier(x + length * move), y).item()
            cost = float((length * move).square().sum((1, 2, 3)).mean())
            assert mean <= found.bound(cost) + 1e-9


def test_bound_by_hand():
    assert Certificate(gamma=0.5, value=2.0, cost=1.0).bound(3.0) == 3.5
    with pytest.raises(ValueError, match="rho must be at least 0, got -1"):
        Certificate(0.5, 2.0, 1.0).bound(-1)


def test_the_loss_is_that_of_the_moved_images_and_has_no_gradient_through_the_moves():
    x, y = points(6, 3, 4)
    classifier = softmax_model(size=3, classes=4)
    given = batch_of(classifier, x, y)
    loss, logits = defences.build("wrm", gamma=GAMMA).loss(given)

    z = x.clone()
    for t in range(1, 16):  # derived again, with the closed gradient W^T (p - e_y) of a linear model
        residual = classifier(z).softmax(1) - F.one_hot(y, 4)
        z = z + (residual @ classifier.score_map.weight).view_as(x) / (2 * GAMMA * t**0.5) - (z - x) / t**0.5
    torch.testing.assert_close(logits, classifier(z.detach()))
    torch.testing.assert_close(loss, F.cross_entropy(classifier(z.detach()), y))
    (slope,) = torch.autograd.grad(loss, classifier.score_map.weight)
    (plain,) = torch.autograd.grad(F.cross_entropy(classifier(z.detach()), y), classifier.score_map.weight)
    torch.testing.assert_close(slope, plain)
    assert torch.equal(loss, defences.build("wrm", gamma=GAMMA).loss(given)[0])
    assert loss > F.cross_entropy(classifier(x), y)


def test_a_network_in_training_mode_has_no_certificate():
    x, y = points(2, 2, 3)
    with pytest.raises(ValueError, match="evaluation mode"):
        certificate(softmax_model().train(), losses.build("sce"), x, y)


def test_a_smooth_network_learns(tmp_path):
    given = {"model": "elu-cnn", "epochs": 2, "train_images": 100, "objective": {"name": "isce"}}
    result = train(TrainParameters.model_validate(given | {"defence": {"name": "wrm"}}), tmp_path, progress=False)
    assert result.diverged is None
    assert result.history[1]["train_loss"] < result.history[0]["train_loss"]
