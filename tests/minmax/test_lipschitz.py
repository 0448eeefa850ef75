from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from linear import linear_constants
from torch import nn

from isce.losses.gaussian import GaussianScores, SimplexScores
from isce.minmax import certified_radius, input_bound, network_constants, projected_ascent
from isce.minmax.chain import difference_map
from isce.minmax.layers import LAYERS, conv_norm
from isce.models import Backbone, Classifier, build
from isce.models.base import BatchNorm
from isce.models.lipschitz import MaxMin


class Layers(Backbone):
    """Layers and operations with a rule that the package's small networks do without."""

    def __init__(self):
        super().__init__((2, 8, 8), [0.4, 0.5], [0.2, 0.3])
        self.stem = nn.Conv2d(2, 4, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(4)
        self.conv = nn.Conv2d(4, 8, 3, stride=2, padding=1)
        self.grouped = nn.Conv2d(8, 8, 3, padding=1, groups=2)
        self.overlapping = nn.MaxPool2d(3, stride=1, padding=1)
        self.pool = nn.AvgPool2d(2)
        self.embed = nn.Linear(32, 5)
        self.embedding_dim = 5

    def features(self, x):
        x = self.conv(F.relu(self.norm(self.stem(x))))
        x = x + self.overlapping(self.grouped(x))
        return self.embed(torch.flatten(self.pool(x), 1))


def randomised(classifier, generator):
    """A classifier in evaluation mode whose normalisation statistics are not the trivial ones."""
    for layer in classifier.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.running_mean.normal_(generator=generator)
            layer.running_var.uniform_(0.2, 3, generator=generator)
            nn.init.normal_(layer.weight, generator=generator)
    return classifier.double().eval()


def network(kind, seed):
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    if kind == "layers":
        backbone = Layers()
    else:
        shape = (1, 12, 12) if kind == "lenet" else (2, 8, 8)
        backbone = build(kind, input_shape=shape, mean=[0.3] * shape[0], std=[0.25] * shape[0], embedding_dim=7)
    classifier = randomised(Classifier(backbone, nn.Linear(backbone.embedding_dim, 3)), generator)
    x = torch.rand(6, *backbone.input_shape, generator=generator, dtype=torch.float64)
    return classifier, x, torch.randint(3, (6,), generator=generator)


KINDS = pytest.mark.parametrize("kind", ["small-cnn", "elu-cnn", "lenet", "layers", "preact-resnet-20"])
NORMS = pytest.mark.parametrize("norm", ["linf", "l2"])


@KINDS
@NORMS
def test_no_gradient_is_longer_than_the_constant(kind, norm):
    """The Lipschitz constant is the largest dual norm of a gradient: each gradient bounds it from below."""
    for seed in range(2):
        classifier, x, _ = network(kind, seed)
        constants = network_constants(classifier, norm)
        for y in range(3):
            for k in range(3):
                x = x.detach().requires_grad_()
                logits = classifier(x)
                (slope,) = torch.autograd.grad((logits[:, k] - logits[:, y]).sum(), x)
                length = torch.linalg.vector_norm(slope.flatten(1), ord=1 if norm == "linf" else 2, dim=1)
                assert (length <= constants[y, k]).all()


@pytest.mark.parametrize("kind", ["small-cnn", "elu-cnn", "lenet", "layers"])
@NORMS
def test_no_attack_beats_bound_and_certificate(kind, norm):
    classifier, x, _ = network(kind, 5)
    with torch.no_grad():
        logits = classifier(x)
    y = logits.argmax(1)
    constants = network_constants(classifier, norm)
    radius = certified_radius(logits, y, constants)
    for eps in (0.02, 0.3):
        bound = input_bound(logits, y, constants, eps)
        for k in range(3):

            def difference(z, target, k=k):
                return z[:, k] - z.gather(1, target[:, None])[:, 0]

            moved = projected_ascent(classifier, x, y, eps=eps, norm=norm, loss=difference, steps=8, restarts=2)
            with torch.no_grad():
                attacked = classifier(moved)
            assert (F.cross_entropy(attacked, y, reduction="none") <= bound).all()
            assert (difference(attacked, y) <= difference(logits, y) + constants[y, k] * eps).all()
            shift = (moved - x).flatten(1)
            distance = shift.abs().amax(1) if norm == "linf" else shift.norm(dim=1)
            broken = attacked.argmax(1) != y
            assert (distance[broken] >= radius[broken]).all()


def test_a_linear_network_has_its_exact_constants(linear_classifier):
    weight = torch.randn(4, 6, dtype=torch.float64)
    classifier = linear_classifier(weight, torch.zeros(4, dtype=torch.float64))
    for norm, p in (("linf", math.inf), ("l2", 2.0)):
        torch.testing.assert_close(network_constants(classifier, norm), linear_constants(weight, p), rtol=2e-6, atol=0)


@pytest.mark.parametrize("score_map", [SimplexScores(6, 4, 10.0), GaussianScores(6, 4), nn.Linear(6, 4)], ids=type)
def test_difference_map_is_the_slope_of_score_differences(score_map):
    h = torch.randn(6, dtype=torch.float64, requires_grad=True)
    weight = difference_map(score_map)[0].detach().double()
    for k in range(4):
        logits = score_map.double()(h[None])[0]
        (slope,) = torch.autograd.grad(logits[k] - logits[0], h)
        torch.testing.assert_close(slope, weight[k] - weight[0])


def test_pixel_units_carry_the_normalisation(linear_classifier):
    weight = torch.randn(3, 4, dtype=torch.float64)
    classifier = linear_classifier(weight, torch.zeros(3, dtype=torch.float64))
    plain = network_constants(classifier, "l2")
    classifier.backbone.std.fill_(0.25)
    torch.testing.assert_close(network_constants(classifier, "l2"), 4 * plain)


@NORMS
def test_the_better_of_two_norms_counts(norm):
    """A deep narrow product favours l_2, one row of many weights l_inf: neither may be ignored."""
    torch.manual_seed(0)
    classifier, _, _ = network("small-cnn", 0)
    linf, l2 = network_constants(classifier, "linf"), network_constants(classifier, "l2")
    pixels = math.sqrt(2 * 8 * 8)
    assert (l2 <= linf * (1 + 1e-9)).all()
    assert (linf <= pixels * l2 * (1 + 1e-9)).all()
    constants = {"linf": linf, "l2": l2}[norm]
    torch.testing.assert_close(constants, constants.T)
    assert not constants.diagonal().any()


@settings(max_examples=40, deadline=None)
@given(
    st.integers(0, 10**6),
    st.tuples(st.integers(1, 3), st.integers(1, 3)),
    st.integers(1, 2),
    st.tuples(st.integers(1, 4), st.integers(1, 3)),
    st.tuples(st.integers(4, 7), st.integers(4, 7)),
    st.integers(1, 3),
    st.integers(0, 2),
)
def test_convolution_norm_against_the_whole_matrix(seed, channels, groups, kernel, size, stride, padding):
    generator = torch.Generator().manual_seed(seed)
    inputs, outputs = groups * channels[0], groups * channels[1]
    layer = nn.Conv2d(inputs, outputs, kernel, stride, padding, groups=groups, bias=False).double()
    nn.init.normal_(layer.weight, generator=generator)
    basis = torch.eye(inputs * size[0] * size[1], dtype=torch.float64).view(-1, inputs, *size)
    with torch.no_grad():
        exact = torch.linalg.matrix_norm(layer(basis).flatten(1), ord=2).item()
    _, bound = LAYERS[nn.Conv2d](layer, torch.ones(1, inputs, *size, dtype=torch.float64))
    assert bound >= exact * (1 - 1e-12)
    crude = layer.weight.abs().sum((1, 2, 3)).max() * layer.weight.abs().sum((0, 2, 3)).max() * groups
    assert bound <= math.sqrt(crude.item()) + 1e-9  # never worse than sqrt(||A||_1 ||A||_inf) of the unstrided operator


def test_convolution_norm_is_nearly_exact_on_large_images():
    torch.manual_seed(0)
    layer = nn.Conv2d(2, 3, 3, padding=1, bias=False).double()
    basis = torch.eye(2 * 20 * 20, dtype=torch.float64).view(-1, 2, 20, 20)
    with torch.no_grad():
        exact = torch.linalg.matrix_norm(layer(basis).flatten(1), ord=2).item()
    bound = conv_norm(layer.weight, 22, 22)
    assert exact <= bound <= 1.02 * exact


def uneven_norm():
    layer = nn.BatchNorm2d(2).double().eval()
    layer.running_var.copy_(torch.tensor([0.04, 9.0]))
    nn.init.constant_(layer.weight, -1.5)
    return layer


@pytest.mark.parametrize(
    "layer",
    [
        nn.MaxPool2d(2),
        nn.MaxPool2d(3, 2),
        nn.MaxPool2d(3, 1, 1),
        nn.AvgPool2d(2),
        nn.AvgPool2d(3, 2, 1),
        nn.AvgPool2d((3, 2), 1),
        nn.MaxPool2d(2, ceil_mode=True),
        nn.MaxPool2d(3, 2, 1, ceil_mode=True),
        nn.AdaptiveAvgPool2d(1),
        nn.ELU(),
        nn.ELU(5.0),
        nn.ELU(-5.0),
        MaxMin(),
        uneven_norm(),
    ],
    ids=str,
)
def test_layer_rules_hold_for_random_pairs(layer):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(400, 2, 7, 7, generator=generator, dtype=torch.float64)
    # few entries changed, one channel changed, and smooth changes: the two ends at which pooling carries most
    sparse = torch.randn(400, 2, 7, 7, generator=generator, dtype=torch.float64) * 5
    sparse[:200] *= torch.rand(200, 2, 7, 7, generator=generator, dtype=torch.float64) < 0.05
    sparse[300:] = 5
    sparse[350:, 1] = 0
    # a corner alone, which fewer windows hold, and an edge
    sparse[200:230] *= F.pad(torch.ones(1, 1), (6, 0, 6, 0))
    sparse[230:260] *= F.pad(torch.ones(7, 1), (6, 0))
    entries, factor = LAYERS[type(layer)](layer, sparse.abs())
    with torch.no_grad():
        change = layer(x + sparse) - layer(x)
    assert (change.abs() <= entries + 1e-12).all()
    assert (change.flatten(1).norm(dim=1) <= factor * sparse.flatten(1).norm(dim=1) + 1e-12).all()


def test_a_sum_of_branches_adds_their_constants():
    doubled = with_features(lambda x: (x + F.relu(x)).flatten(1))
    alone = with_features(lambda x: F.relu(x).flatten(1))
    alone.score_map = doubled.score_map
    for norm in ("linf", "l2"):
        torch.testing.assert_close(network_constants(doubled, norm), 2 * network_constants(alone, norm))


def with_features(features):
    class Other(Backbone):
        def __init__(self):
            super().__init__((2, 8, 8), [0.0, 0.0], [1.0, 1.0])
            self.embedding_dim = 128
            self.layer = features

        def features(self, x):
            return self.layer(x).flatten(1) if isinstance(self.layer, nn.Module) else self.layer(x)

    return Classifier(Other(), nn.Linear(128, 3)).eval()


@pytest.mark.parametrize(
    ("features", "message"),
    [
        (nn.Sigmoid(), r"layer layer \(Sigmoid\); known: AdaptiveAvgPool2d, AvgPool2d"),
        (nn.Conv2d(2, 2, 3, padding="same"), "padding 'same'"),
        (nn.Conv2d(2, 2, 3, padding=1, padding_mode="reflect"), "reflect"),
        (nn.Conv2d(2, 2, 3, padding=2, dilation=2), "dilation"),
        (nn.Conv2d(2, 2, 3, stride=(1, 2)), r"stride \(1, 2\)"),
        (nn.BatchNorm2d(2, track_running_stats=False), "batch statistics"),
        (nn.MaxPool2d(2, dilation=2), "dilation 2"),
        (nn.AvgPool2d(2, divisor_override=3), "divisor"),
        (nn.AvgPool2d(3, 2, 1, count_include_pad=False), "divisor"),
        (nn.AvgPool2d(3, ceil_mode=True), "divisor"),
        (nn.ELU(-5.0, inplace=True), "overwrites"),
        (nn.Sequential(nn.Conv2d(2, 3, 1), MaxMin()), "MaxMin of 3 channels"),
        (nn.Conv2d(2, 2, 3, padding=1, padding_mode="circular"), "circular"),
        (nn.AdaptiveAvgPool2d(2), "adaptive average pooling to 2"),
        (lambda x: torch.exp(x).flatten(1), "operation exp"),
        (lambda x: F.pad(x, (1, 1, 1, 1), mode="reflect"), "padding with 'reflect'; known: 'constant'$"),
        (lambda x: x.cumsum(1).flatten(1), "tensor method cumsum"),
        (lambda x: (x + 1.0).flatten(1), "sum of other things"),
        (lambda x: (x + x[:, :1]).flatten(1), "operation getitem"),
        (lambda x: (x + F.avg_pool2d(x, 8)).flatten(1), "of one shape"),
        (lambda x: x if x.sum() > 0 else -x, "branches on its data"),
    ],
)
def test_what_has_no_rule_is_refused(features, message):
    with pytest.raises(ValueError, match=message):
        network_constants(with_features(features), "l2")


def test_other_refusals():
    classifier, _, _ = network("preact-resnet-20", 0)
    with pytest.raises(ValueError, match="unknown norm 'l1'; known: linf, l2"):
        network_constants(classifier, "l1")
    with pytest.raises(ValueError, match="training mode"):
        network_constants(Classifier(Layers(), nn.Linear(5, 3)), "l2")
    for score_map in (nn.Sequential(nn.Linear(5, 3)), GaussianScores(5, 3, "diagonal")):
        with pytest.raises(ValueError, match=f"score map {type(score_map).__name__}; known: Linear"):
            network_constants(Classifier(Layers(), score_map).eval(), "l2")
    for module in classifier.modules():
        if isinstance(module, BatchNorm):
            module.batch_statistics = True
    with pytest.raises(ValueError, match="rest of the batch"):
        network_constants(classifier, "l2")
