"""Training on bounds: what it proves, what it keeps, what it refuses; and the networks made for proofs."""

from __future__ import annotations

import pytest
import torch
from short_training import KilledError, contents, few, run
from torch import nn
from torch.nn.utils import parametrize

from isce import losses, models
from isce.attacks import Threat
from isce.minmax import certified, network_constants
from isce.minmax.layers import conv_norm
from isce.models import Classifier
from isce.models.lipschitz import MaxMin
from isce.parameters.training import TrainParameters
from isce.training import load_checkpoint
from isce.training.state import State


@pytest.fixture(scope="module")
def digits():
    return few(300, 60)


CERTIFIED = {
    "model": "interval-cnn",
    "objective": {"name": "isce-certified", "params": {"eps": 0.05, "ramp": 0.3}},
    "epochs": 12,
    "optimizer": {"name": "adam", "lr": 3e-3},
}


def test_it_proves_what_plain_training_does_not(digits, tmp_path):
    shares = []
    for objective in (CERTIFIED["objective"], {"name": "sce"}):
        result = run(tmp_path / objective["name"], digits, **CERTIFIED | {"objective": objective})
        network = load_checkpoint(tmp_path / objective["name"] / "best.safetensors").classifier
        x, y = digits.validation.unit(), digits.validation.labels
        shares.append(float(certified(network, x, y, Threat("linf", 0.05), "interval").float().mean()))
        if objective["name"] == "isce-certified":
            best = max(row["validation_certified"] for row in result.history)
            assert result.history[result.best_epoch - 1]["validation_certified"] == best
            assert shares[0] == pytest.approx(best, abs=0.02)  # float32 there, float64 with slack here
    assert shares[0] > 0.3 > 0.05 > shares[1]


def test_a_killed_run_ends_in_the_same_weights(digits, tmp_path):
    run(tmp_path / "whole", digits, **CERTIFIED | {"epochs": 4})
    with pytest.raises(KilledError):
        run(tmp_path / "two", digits, kill=2, **CERTIFIED | {"epochs": 4})
    assert run(tmp_path / "two", digits, **CERTIFIED | {"epochs": 4}).resumed == 2
    assert contents(tmp_path / "whole") == contents(tmp_path / "two")


def test_attacks_and_bounds_do_not_go_together():
    attack = {"kind": "pgd", "eps": 0.1, "steps": 2, "step_size": 0.05}
    with pytest.raises(ValueError, match="isce-certified trains on bounds over the ball: adversarial must be None"):
        TrainParameters.model_validate(CERTIFIED | {"adversarial": attack})


def test_a_network_without_bounds_is_refused_before_any_work(digits, tmp_path):
    with pytest.raises(ValueError, match="no bounds for the layer"):
        run(tmp_path, digits, **CERTIFIED | {"model": "preact-resnet-20"})
    assert not list(tmp_path.iterdir())


# --- networks


def lipschitz(kind, shape=(1, 8, 8)):
    torch.manual_seed(0)
    backbone = models.build(kind, input_shape=shape, mean=[0.3] * shape[0], std=[0.2] * shape[0])
    return Classifier(backbone, backbone.scores(nn.Linear(backbone.embedding_dim, 10))).eval()


@pytest.mark.parametrize("kind", ["lipschitz-dense", "lipschitz-cnn"])
@pytest.mark.parametrize("shape", [(1, 8, 8), (2, 13, 10)])
def test_a_difference_of_logits_moves_by_at_most_sqrt_2(kind, shape):
    """Before and after a step of training: by the constants, and by pairs of images."""
    network = lipschitz(kind, shape)
    for _ in range(2):
        constants = network_constants(network, "l2")
        assert constants.max() <= 2**0.5 * (1 + 1e-4)
        if kind == "lipschitz-dense":
            assert constants[0, 1] == pytest.approx(2**0.5, rel=1e-4)
        with torch.no_grad():
            x, other = torch.rand(2, 50, *shape)
            moved = network(x) - network(other)
        rows = (moved.amax(1) - moved.amin(1)) / (x - other).flatten(1).norm(dim=1)
        assert (rows <= 2**0.5 * (1 + 1e-4)).all()
        optimizer = torch.optim.SGD(network.parameters(), lr=0.5)
        losses.build("isce")(network(torch.rand(8, *shape)), torch.arange(8)).backward()
        optimizer.step()


def test_layers_are_orthogonal_and_rescaled_convolutions_have_norm_at_most_one():
    for layer in lipschitz("lipschitz-dense").modules():
        if isinstance(layer, nn.Linear):
            weight = layer.weight.detach()
            short = weight @ weight.T if len(weight) <= weight.shape[1] else weight.T @ weight
            torch.testing.assert_close(short, torch.eye(len(short)), atol=1e-5, rtol=0)
    convolutions = [m for m in lipschitz("lipschitz-cnn").modules() if isinstance(m, nn.Conv2d)]
    assert len(convolutions) == 2
    for layer in convolutions:
        weight = layer.weight.detach().double()
        assert conv_norm(weight, 10, 10, stride=2) <= 1 + 1e-6
        basis = torch.eye(weight.shape[1] * 64).double().view(-1, weight.shape[1], 8, 8)
        dense = nn.functional.conv2d(basis, weight, stride=2, padding=1).flatten(1)
        assert 0.1 < float(torch.linalg.matrix_norm(dense, 2)) <= 1 + 1e-6


def test_maxmin_sorts_pairs_and_keeps_lengths():
    x = torch.tensor([[3.0, -1.0, 2.0, 5.0]])
    assert MaxMin()(x).tolist() == [[3.0, 5.0, 2.0, -1.0]]
    x, y = torch.randn(2, 100, 8).double()
    assert ((MaxMin()(x) - MaxMin()(y)).norm(dim=1) <= (x - y).norm(dim=1) + 1e-12).all()
    torch.testing.assert_close(MaxMin()(x).norm(dim=1), x.norm(dim=1))


def test_a_loaded_network_has_plain_weights_and_the_same_logits(digits, tmp_path):
    given = {"model": "lipschitz-dense", "epochs": 1, "objective": {"name": "isce", "params": {"inference": 1.0}}}
    captured = []
    finish = State.finish

    def kept(state):
        captured.append(state.classifier.eval()(digits.validation.unit()).detach())
        finish(state)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(State, "finish", kept)
        run(tmp_path, digits, **CERTIFIED | given)
    network = load_checkpoint(tmp_path / "last.safetensors").classifier
    assert not any(parametrize.is_parametrized(layer) for layer in network.modules())
    torch.testing.assert_close(network(digits.validation.unit()), captured[0])


def test_score_maps_without_a_constant_and_odd_widths_are_refused():
    backbone = models.build("lipschitz-dense", input_shape=(1, 8, 8), mean=[0.3], std=[0.2])
    with pytest.raises(ValueError, match="needs linear logits, got SimplexScores"):
        backbone.scores(losses.build("mmc").score_map(256, 10))
    for kind in ("lipschitz-dense", "lipschitz-cnn"):
        with pytest.raises(ValueError, match="must be even, got 7"):
            models.build(kind, input_shape=(1, 8, 8), mean=[0.3], std=[0.2], embedding_dim=7)
