from __future__ import annotations

import math
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from defence_batches import batch_of, points
from pixels import linear
from torch import nn

from isce import attacks, data, defences, losses, models
from isce.attacks import Threat
from isce.attacks.spec import AttackSpec
from isce.defences.spectral import conv_norm
from isce.minmax import certified, layers, network_constants
from isce.models import Classifier
from isce.parameters.training import TrainParameters
from isce.training.checkpoint import load_checkpoint
from isce.training.loop import train


def network(name="small-cnn", seed=0):
    torch.manual_seed(seed)
    backbone = models.build(name, input_shape=(1, 8, 8), mean=[0.3], std=[0.4], embedding_dim=16)
    return Classifier(backbone, nn.Linear(16, 10))


def matrix(layer, shape):
    """A convolution without its bias as a matrix, column by column."""
    eye = torch.eye(math.prod(shape)).double().view(-1, *shape)
    return (layer(eye) - layer(torch.zeros(1, *shape).double())).flatten(1).detach().T


def norms(classifier, x):
    """Exact norm of every layer."""
    found, handles = {}, []

    def note(name, layer, args, output):
        found[name] = layer, args[0].shape[1:]

    for name, layer in classifier.named_modules():
        if isinstance(layer, nn.Conv2d):
            handles.append(layer.register_forward_hook(partial(note, name)))
    classifier(x)
    for handle in handles:
        handle.remove()
    exact = {name: matrix(layer, shape) for name, (layer, shape) in found.items()}
    exact |= {n: layer.weight.detach() for n, layer in classifier.named_modules() if isinstance(layer, nn.Linear)}
    return {name: float(torch.linalg.matrix_norm(weight, 2)) for name, weight in exact.items()}


@pytest.mark.parametrize(
    "options",
    [
        {"kernel_size": 3, "padding": 1},
        {"kernel_size": 4, "stride": 2, "padding": 1},
        {"kernel_size": 3, "stride": 2, "bias": False},
        {"kernel_size": 3, "dilation": 2, "groups": 2},
    ],
)
def test_norm_of_a_convolution_is_that_of_its_matrix(options):
    torch.manual_seed(0)
    layer = nn.Conv2d(2, 4, **options).double()
    found, vector = conv_norm(layer, torch.randn(1, 2, 7, 6).double())
    exact = float(torch.linalg.matrix_norm(matrix(layer, (2, 7, 6)), 2))
    assert exact * (1 - 1e-3) <= found <= exact * (1 + 1e-9)
    assert conv_norm(layer, vector)[0] >= found * (1 - 1e-9)  # going on from there comes closer
    if "dilation" not in options:
        pad, stride = options.get("padding", 0), options.get("stride", 1)
        assert found <= layers.conv_norm(layer.weight, 7 + 2 * pad, 6 + 2 * pad, stride)


def test_norm_of_a_convolution_by_hand():
    layer = nn.Conv2d(1, 1, 1)
    nn.init.constant_(layer.weight, -3.0)
    with torch.no_grad():
        assert conv_norm(layer, torch.rand(1, 1, 4, 4))[0] == pytest.approx(3)
        nn.init.zeros_(layer.weight)
        assert conv_norm(layer, torch.rand(1, 1, 4, 4))[0] == 0


def test_a_long_layer_is_scaled_and_a_short_one_stays():
    classifier = linear(torch.tensor([[3.0, 0.0], [0.0, 0.5]]), torch.ones(2))
    x, y = points(3, 2, 2)
    for beta, expected in ((1.5, [[1.5, 0.0], [0.0, 0.25]]), (1.6, [[1.5, 0.0], [0.0, 0.25]])):
        defence = defences.build("spectral", beta=beta)
        loss, logits = defence.loss(batch_of(classifier, x, y))
        torch.testing.assert_close(loss, F.cross_entropy(classifier(x), y))
        assert torch.equal(logits, classifier(x))
        defence.after_step(classifier)
        torch.testing.assert_close(classifier.score_map.weight.detach(), torch.tensor(expected).double())
    assert torch.equal(classifier.score_map.bias, torch.ones(2).double())  # a bias has no part in a norm


@pytest.mark.parametrize("name", ["small-cnn", "elu-cnn", "interval-cnn"])
def test_every_layer_of_a_network_is_held(name):
    classifier, x = network(name).double(), torch.rand(3, 1, 8, 8).double()
    before = norms(classifier, x)
    beta = sorted(before.values())[1] * 1.01  # two layers are shorter, the others are not
    defence = defences.build("spectral", beta=beta)
    for _ in range(2):
        loss, _ = defence.loss(batch_of(classifier, x, torch.tensor([0, 1, 2])))
        loss.backward()
        defence.after_step(classifier)
    after = norms(classifier, x)
    assert len(after) >= 4
    for layer, length in after.items():
        assert length == pytest.approx(min(before[layer], beta), rel=2e-3)
        assert length <= beta * (1 + 2e-3)


def test_an_epoch_does_not_depend_on_the_ones_before_but_by_the_weights():
    """A killed run goes on at an epoch, with a defence that has seen nothing."""
    first, second = network(), network()
    x, y = torch.rand(4, 1, 8, 8), torch.arange(4)
    used, fresh = (defences.build("spectral", beta=0.7) for _ in range(2))
    earlier = batch_of(first, x, y)
    for _ in range(3):
        used.loss(earlier)
        used.after_step(first)
    second.load_state_dict(first.state_dict())
    for classifier, defence in ((first, used), (second, fresh)):
        for weight in classifier.parameters():
            weight.data *= 1.5
        defence.loss(batch_of(classifier, x, y, seed=1))
        defence.after_step(classifier)
    for one, other in zip(first.parameters(), second.parameters(), strict=True):
        assert torch.equal(one, other)


def test_a_network_whose_weights_are_computed_is_refused():
    torch.manual_seed(0)
    backbone = models.build("lipschitz-dense", input_shape=(1, 8, 8), mean=[0.3], std=[0.4], embedding_dim=8)
    with pytest.raises(ValueError, match=r"that of backbone\.layers\.1 is computed: take another network"):
        defences.build("spectral").after_step(Classifier(backbone, nn.Linear(8, 10)))


@pytest.fixture(scope="module")
def trained_network(tmp_path_factory):
    folder = tmp_path_factory.mktemp("spectral")
    given = {
        "epochs": 6,
        "defence": {"name": "spectral", "params": {"beta": 1.2}},
        "adversarial": {"kind": "pgd", "eps": 0.02, "steps": 1, "step_size": 0.02},
    }
    train(TrainParameters.model_validate(given), folder, progress=False)
    return load_checkpoint(folder / "last.safetensors").classifier.eval()


def test_norms_of_a_trained_network_and_its_constant(trained_network):
    x = data.load("digits").test.unit()[:2]
    found = norms(trained_network.double(), x.double())
    assert max(found.values()) <= 1.2 * (1 + 2e-3)
    constants = network_constants(trained_network, "l2")
    std = float(trained_network.backbone.std.min())
    # The constant's own upper bounds of a norm are at most 1.2 times as large on images of this size.
    assert 0 < constants.max() <= math.sqrt(2) * 1.2 ** len(found) / std * 1.2**2
    trained_network.float()


def test_no_point_breaks_what_its_margins_prove(trained_network):
    test = data.load("digits").test.subset(100)
    x, y, index = test.unit(), test.labels, test.index
    for eps in (0.01, 0.05):
        threat = Threat("l2", eps)
        proved = certified(trained_network, x, y, threat, "lipschitz")
        assert eps > 0.01 or proved.sum() > 10
        generator = torch.Generator().manual_seed(0)
        for _ in range(20):
            moved = threat.project(x + torch.randn(x.shape, generator=generator), x)
            assert (trained_network(moved).argmax(1) == y)[proved].all()
        for row in ({"attack": "pgd", "steps": 10, "step_size": eps / 4}, {"attack": "deepfool", "steps": 20}):
            result = attacks.run(
                AttackSpec.model_validate(row), trained_network, losses.build("sce"), x, y, threat, seed=0, index=index
            )
            assert (trained_network(result.adversarial).argmax(1) == y)[proved].all()
