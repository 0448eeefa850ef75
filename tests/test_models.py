"""Networks: shapes and sizes of the papers, normalisation inside, batch statistics, layouts, precisions, bad input."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from isce import models
from isce.models import Backbone, Classifier, PreActivationResNet
from isce.models.base import BatchNorm
from isce.models.resnet import BasicBlock, PreActivationBlock

RESNETS = ["preact-resnet-20", "preact-resnet-32", "preact-resnet-110", "resnet-18"]
# Smallest images that show every layer at work.
PROVABLE = ["interval-cnn", "lipschitz-cnn", "lipschitz-dense"]
SMALL = dict.fromkeys(["small-cnn", "elu-cnn", *PROVABLE], (1, 8, 8))
SHAPES = {**SMALL, "lenet": (1, 12, 12), **dict.fromkeys(RESNETS, (3, 8, 8))}


def build(name, shape=None, **options):
    shape = shape or SHAPES[name]
    statistics = {"mean": [0.4] * shape[0], "std": [0.3] * shape[0]}
    torch.manual_seed(0)
    return models.build(name, input_shape=shape, **statistics, **options)


def classifier(name, shape=None, **options):
    backbone = build(name, shape, **options)
    return Classifier(backbone, backbone.scores(nn.Linear(backbone.embedding_dim, 10)))


def images(name, n=3, seed=1):
    return torch.rand(n, *SHAPES[name], generator=torch.Generator().manual_seed(seed))


def parameters(module):
    return sum(p.numel() for p in module.parameters())


def small_resnet(**options):
    """A pre-activation ResNet of depth 8: one block a stage."""
    torch.manual_seed(0)
    backbone = PreActivationResNet(8, (3, 8, 8), [0.4] * 3, [0.3] * 3, **options)
    return Classifier(backbone, nn.Linear(backbone.embedding_dim, 10))


def unsettled(module):
    """Running statistics and affine weights as after some training, not the neutral ones of the start."""
    generator = torch.Generator().manual_seed(2)
    for norm in module.modules():
        if isinstance(norm, nn.BatchNorm2d):
            for tensor in (norm.running_mean, norm.running_var, norm.weight.data, norm.bias.data):
                tensor.copy_(0.5 + torch.rand(tensor.shape, generator=generator))
    return module


# --- every network


def test_all_networks_are_covered():
    assert models.names() == sorted(SHAPES)


@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.parametrize("embedding_dim", [None, 8])
def test_logits_are_the_map_of_the_embedding(name, embedding_dim):
    model = classifier(name, embedding_dim=embedding_dim).eval()
    own = {"small-cnn": 128, "elu-cnn": 128, "lenet": 84, "resnet-18": 512, "interval-cnn": 128}
    own |= {"lipschitz-cnn": 256, "lipschitz-dense": 256}
    with torch.no_grad():
        logits, embedding = model(images(name), return_embedding=True)
        assert embedding.shape == (3, embedding_dim or own.get(name, 64))
        assert embedding.shape[1] == model.backbone.embedding_dim
        assert torch.equal(logits, model.score_map(embedding))
        assert torch.equal(logits, model(images(name)))
        if embedding_dim and name not in PROVABLE:  # an extra layer without activation reaches both signs
            assert embedding.min() < 0 < embedding.max()


@pytest.mark.parametrize("name", SHAPES)
def test_every_weight_gets_a_gradient(name):
    model = classifier(name, embedding_dim=6)
    F.cross_entropy(model(images(name, 8)), torch.arange(8)).backward()
    for key, weight in model.named_parameters():
        assert weight.grad is not None, key
        assert weight.grad.isfinite().all(), key
        assert weight.grad.abs().sum() > 0, key


@pytest.mark.parametrize("name", SHAPES)
def test_images_do_not_mix_in_evaluation_mode(name):
    model = unsettled(classifier(name)).eval()
    x = images(name, 4)
    with torch.no_grad():
        together, alone = model(x), torch.cat([model(image[None]) for image in x])
    assert not model.batch_dependent
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-5 * together.abs().max().item())


@pytest.mark.parametrize("name", ["small-cnn", "lenet"])
def test_state_dict_holds_all_with_the_normalisation(name):
    model = classifier(name)
    shape = SHAPES[name]
    other = models.build(name, input_shape=shape, mean=[0.1] * shape[0], std=[0.9] * shape[0])
    other.load_state_dict(model.backbone.state_dict())
    assert torch.equal(other(images(name)), model.backbone(images(name)))


def test_elu_cnn_is_smooth():
    """Its gradient with respect to the image moves by at most a fixed multiple of the move, down to tiny moves."""
    smooth, kinked = classifier("elu-cnn").double().eval(), classifier("small-cnn").double().eval()
    torch.manual_seed(1)
    x, direction = torch.rand(1, 1, 8, 8).double(), torch.randn(1, 1, 8, 8).double()

    def largest_jump(model):
        """Of the gradient over the step, on a line through many kinks."""
        line = x + torch.linspace(-1, 1, 20_001).double().view(-1, 1, 1, 1) * direction
        line.requires_grad_()
        slope = torch.autograd.grad(model(line)[:, 0].sum(), line)[0].flatten(1)
        return float((slope[1:] - slope[:-1]).norm(dim=1).max()) * 10_000

    assert largest_jump(smooth) < 1
    assert largest_jump(kinked) > 20


def test_same_seed_same_weights():
    first, second = build("small-cnn"), build("small-cnn")
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))


# --- sizes


@pytest.mark.parametrize(
    ("name", "shape", "published", "count"),
    [
        ("lenet", (1, 28, 28), 61_706, 61_706),  # the common count for LeNet-5 with full connections
        ("preact-resnet-20", (3, 32, 32), 0.27e6, 269_722),  # He et al. 2015, table 6
        ("preact-resnet-32", (3, 32, 32), 0.46e6, 464_154),
        ("preact-resnet-110", (3, 32, 32), 1.7e6, 1_727_962),
        ("resnet-18", (3, 32, 32), 11.17e6, 11_173_962),
    ],
)
def test_published_parameter_counts(name, shape, published, count):
    found = parameters(classifier(name, shape))
    assert found == count
    assert found == pytest.approx(published, rel=0.025)


@pytest.mark.parametrize("width", [64, 256])
def test_the_extra_layer_adds_its_weights_only(width):
    with_layer = parameters(build("preact-resnet-32", (3, 32, 32), embedding_dim=width))
    assert with_layer == parameters(build("preact-resnet-32", (3, 32, 32))) + 64 * width + width


@pytest.mark.parametrize(
    ("shape", "inside"), [((1, 8, 8), (64, 4, 4)), ((1, 28, 28), (64, 3, 3)), ((3, 32, 32), (64, 4, 4))]
)
def test_small_cnn_sizes(shape, inside):
    backbone = build("small-cnn", shape)
    assert backbone.layers[:-1](torch.zeros(1, *shape)).shape[1:] == inside
    assert 90_000 < parameters(backbone) < 200_000


def test_small_cnn_on_long_images():
    assert classifier("small-cnn", (1, 5, 31))(torch.rand(2, 1, 5, 31)).shape == (2, 10)


@pytest.mark.parametrize("depth", [20, 32, 110])
def test_depth_counts_the_layers(depth):
    model = classifier(f"preact-resnet-{depth}")
    assert sum(isinstance(m, nn.Conv2d | nn.Linear) for m in model.modules()) == depth


@pytest.mark.parametrize("name", ["preact-resnet-20", "resnet-18"])
def test_stage_shapes_at_32x32(name):
    layers = build(name, (3, 32, 32)).layers
    shapes = []
    x = torch.zeros(1, 3, 32, 32)
    with torch.no_grad():
        for layer in layers:
            x = layer(x)
            if isinstance(layer, PreActivationBlock | BasicBlock):
                shapes.append(tuple(x.shape[1:]))
    small, large = [(16, 32), (32, 16), (64, 8)], [(64, 32), (128, 16), (256, 8), (512, 4)]
    stages, blocks = (small, 3) if name == "preact-resnet-20" else (large, 2)
    assert shapes == [(channels, side, side) for channels, side in stages for _ in range(blocks)]


# --- residual networks, derived again


def norm_by_hand(x, weights, prefix):
    def part(name):
        return weights[f"{prefix}.{name}"][:, None, None]

    scaled = (x - part("running_mean")) / (part("running_var") + 1e-5).sqrt()
    return scaled * part("weight") + part("bias")


def test_pre_activation_resnet_by_hand():
    model = unsettled(small_resnet(embedding_dim=6)).eval()
    weights = model.state_dict()
    x = images("preact-resnet-20", 2)
    z = F.conv2d((x - 0.4) / 0.3, weights["backbone.layers.0.weight"], padding=1)
    z = norm_by_hand(z, weights, "backbone.layers.1").relu()
    for place, channels in ((3, 16), (4, 32), (5, 64)):
        name = f"backbone.layers.{place}"
        inner = z if place == 3 else norm_by_hand(z, weights, f"{name}.norm1.0").relu()
        inner = F.conv2d(inner, weights[f"{name}.conv1.weight"], padding=1, stride=1 if place == 3 else 2)
        inner = norm_by_hand(inner, weights, f"{name}.norm2.0").relu()
        inner = F.conv2d(inner, weights[f"{name}.conv2.weight"], padding=1)
        if place > 3:
            mean = (z[:, :, ::2, ::2] + z[:, :, 1::2, ::2] + z[:, :, ::2, 1::2] + z[:, :, 1::2, 1::2]) / 4
            z = torch.zeros_like(inner)
            z[:, channels // 4 : 3 * channels // 4] = mean
        z = z + inner
    z = norm_by_hand(z, weights, "backbone.layers.6").relu().mean((2, 3))
    embedding = z @ weights["backbone.embed.weight"].T + weights["backbone.embed.bias"]
    with torch.no_grad():
        torch.testing.assert_close(model(x, return_embedding=True)[1], embedding, rtol=1e-4, atol=1e-4)


def test_basic_block_by_hand():
    torch.manual_seed(0)
    block = unsettled(BasicBlock(4, 6, 2, batch_statistics=False)).eval()
    weights = block.state_dict()
    x = torch.randn(2, 4, 6, 6)
    inner = norm_by_hand(F.conv2d(x, weights["main.0.weight"], padding=1, stride=2), weights, "main.1").relu()
    inner = norm_by_hand(F.conv2d(inner, weights["main.3.weight"], padding=1), weights, "main.4")
    short = norm_by_hand(F.conv2d(x, weights["shortcut.0.weight"], stride=2), weights, "shortcut.1")
    with torch.no_grad():
        torch.testing.assert_close(block(x), (inner + short).relu(), rtol=1e-4, atol=1e-5)


# --- batch statistics


def test_batch_statistics_are_those_of_the_batch_in_both_modes():
    model = unsettled(small_resnet(batch_statistics=True))
    x = images("preact-resnet-20", 6)
    training = copy.deepcopy(model).train()
    with torch.no_grad():
        assert model.eval().batch_dependent
        assert torch.equal(model(x), training(x))
        assert not torch.allclose(model(x)[:3], model(x[:3]), atol=1e-3)


def test_batch_statistics_leave_the_running_ones_alone_in_evaluation_mode():
    model = unsettled(small_resnet(batch_statistics=True)).eval()
    before = copy.deepcopy(model.state_dict())
    with torch.no_grad():
        model(images("preact-resnet-20"))
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_frozen_statistics_are_those_tracked_while_training():
    plain, released = small_resnet().train(), small_resnet(batch_statistics=True).train()
    x = images("preact-resnet-20", 8)
    with torch.no_grad():
        for model in (plain, released):
            for seed in range(3):
                model(images("preact-resnet-20", 8, seed))
        for norm in released.modules():
            if isinstance(norm, BatchNorm):
                norm.batch_statistics = False
        assert not released.batch_dependent
        assert torch.equal(plain.eval()(x), released.eval()(x))


# --- layouts, precisions, compilation


LIGHT = {"small-cnn": lambda: classifier("small-cnn"), "lenet": lambda: classifier("lenet")} | {
    "preact-resnet-8 with batch statistics": lambda: small_resnet(batch_statistics=True, embedding_dim=16),
    "resnet-18": lambda: classifier("resnet-18"),
}


@pytest.fixture(params=LIGHT)
def light(request):
    model = LIGHT[request.param]().eval()
    x = torch.rand(4, *model.backbone.input_shape, generator=torch.Generator().manual_seed(3))
    return model, x


def logits_and_gradient(model, x):
    x = x.clone().requires_grad_()
    logits = model(x)
    (gradient,) = torch.autograd.grad(F.cross_entropy(logits.float(), torch.arange(len(x))), x)
    return logits.detach(), gradient


def test_channels_last(light):
    model, x = light
    logits, gradient = logits_and_gradient(model, x)
    model.to(memory_format=torch.channels_last)
    other, other_gradient = logits_and_gradient(model, x.contiguous(memory_format=torch.channels_last))
    torch.testing.assert_close(other, logits, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(other_gradient, gradient, rtol=1e-2, atol=1e-2 * gradient.abs().max().item())


def test_autocast(light):
    model, x = light
    logits, _ = logits_and_gradient(model, x)
    with torch.autocast("cpu", torch.bfloat16):
        rough, gradient = logits_and_gradient(model, x)
    assert rough.dtype == torch.bfloat16
    assert gradient.isfinite().all()
    assert (rough.float() - logits).abs().max() < 0.05 * logits.abs().max() + 0.02


@pytest.mark.parametrize("name", [n if "resnet-8" in n else pytest.param(n, marks=pytest.mark.full) for n in LIGHT])
def test_compile(name):
    """In `make test` the network of most kinds of layers."""
    model = LIGHT[name]().eval()
    x = torch.rand(4, *model.backbone.input_shape, generator=torch.Generator().manual_seed(3))
    logits, gradient = logits_and_gradient(model, x)
    compiled, compiled_gradient = logits_and_gradient(torch.compile(model, backend="aot_eager", fullgraph=True), x)
    torch.testing.assert_close(compiled, logits, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(compiled_gradient, gradient, rtol=1e-2, atol=1e-3 * gradient.abs().max().item())


# --- normalisation and bad input


class Echo(Backbone):
    """Returns the normalised image."""

    embedding_dim = 12

    def features(self, x):
        return x.flatten(1)


def test_normalisation_is_by_channel_and_spares_constant_channels():
    backbone = Echo((3, 2, 2), [0.5, 0.25, 0.0], [0.5, 0.25, 0.0])
    x = torch.full((1, 3, 2, 2), 0.75)
    assert backbone(x).reshape(3, 4).T.tolist() == [[0.5, 2.0, 0.75]] * 4


def echo_as_released(mean_image):
    backbone = Echo((3, 2, 2), [0.5] * 3, [0.5] * 3)
    backbone.normalise_as_released()
    backbone.mean_image.copy_(mean_image)
    return backbone


def test_released_normalisation_again():
    generator = torch.Generator().manual_seed(4)
    mean, x = torch.rand(3, 2, 2, generator=generator), torch.rand(5, 3, 2, 2, generator=generator)
    for image, found in zip(x, echo_as_released(mean)(x), strict=True):
        prepared = (2 * image - 1) - (2 * mean - 1)
        expected = (prepared - prepared.mean()) / prepared.std(correction=0)
        torch.testing.assert_close(found, expected.flatten(), rtol=1e-4, atol=1e-5)


def test_released_normalisation_has_the_usual_floor_and_a_finite_gradient_there():
    backbone = echo_as_released(torch.zeros(3, 2, 2))
    x = torch.full((1, 3, 2, 2), 0.25)
    x[0, 0, 0, 0] += 0.006
    x.requires_grad_()
    out = backbone(x)
    # One of 12 values stands out by 0.012, far below the floor: deviations are multiplied by sqrt(12).
    assert out[0, 0].item() == pytest.approx(0.012 * 11 / 12 * 12**0.5, rel=1e-4)
    flat = torch.full((1, 3, 2, 2), 0.25, requires_grad=True)
    for image in (x, flat):
        (gradient,) = torch.autograd.grad(backbone(image).square().sum() + backbone(image)[0, 1], image)
        assert gradient.isfinite().all()
    assert not backbone(flat).any()


def test_mean_image_is_a_part_of_the_state_only_where_it_is_used():
    mean = torch.rand(3, 2, 2)
    first, second = echo_as_released(mean), echo_as_released(torch.zeros(3, 2, 2))
    second.load_state_dict(first.state_dict())
    assert torch.equal(second.mean_image, mean)
    assert "mean_image" not in Echo((3, 2, 2), [0.5] * 3, [0.5] * 3).state_dict()


@pytest.mark.parametrize(
    ("x", "error", "message"),
    [
        (torch.zeros(2, 1, 8, 8, dtype=torch.uint8), TypeError, r"floating point in \[0, 1\], got torch.uint8"),
        (torch.zeros(2, 3, 8, 8), ValueError, r"must be \(N, 1, 8, 8\), got \(2, 3, 8, 8\)"),
        (torch.zeros(1, 8, 8), ValueError, r"got \(1, 8, 8\)"),
        (torch.zeros(2, 1, 8, 9), ValueError, r"got \(2, 1, 8, 9\)"),
        (np.zeros((2, 1, 8, 8), dtype=np.float32), TypeError, r"^images must be a torch\.Tensor, got ndarray$"),
        ((torch.zeros(2, 1, 8, 8),), TypeError, r"^images must be a torch\.Tensor, got tuple$"),
        (None, TypeError, r"^images must be a torch\.Tensor, got NoneType$"),
    ],
)
def test_images_that_do_not_fit(x, error, message):
    with pytest.raises(error, match=message):
        classifier("small-cnn")(x)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": "resnet"}, "unknown network 'resnet'; known: elu-cnn, interval-cnn, lenet, "),
        ({"embedding_dim": 0}, "embedding_dim must be at least 1 or None, got 0"),
        ({"input_shape": (1, 8)}, "input_shape must be 3 positive numbers"),
        ({"input_shape": (1, 0, 8)}, "input_shape must be 3 positive numbers"),
        ({"input_shape": (1, 3, 8)}, "small-cnn needs images of at least 4x4, got 3x8"),
        ({"name": "lenet"}, "lenet needs images of at least 12x12, got 8x8"),
        ({"name": "preact-resnet-20", "input_shape": (1, 28, 30)}, "multiples of 4, got 28x30"),
        ({"mean": [0.5, 0.5]}, "mean must be 1 numbers in"),
        ({"mean": [33.3]}, r"mean must be 1 numbers in \[0, 1\]"),
        ({"mean": 0.5}, r"mean must be 1 numbers in \[0, 1\]"),
        ({"std": [float("nan")]}, "std must be"),
        ({"batch_statistics": True}, r"batch normalisation \(preact-resnet-110, .*\), got 'small-cnn'"),
    ],
)
def test_networks_that_cannot_be_built(changes, message):
    values = {"name": "small-cnn", "input_shape": (1, 8, 8), "mean": [0.5], "std": [0.5], **changes}
    with pytest.raises(ValueError, match=message):
        models.build(values.pop("name"), **values)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"embedding_dim": 7.0}, "embedding_dim must be an integer, got 7.0"),
        ({"embedding_dim": True}, "embedding_dim must be an integer, got True"),
        ({"input_shape": (1, 8.0, 8)}, "each size of input_shape must be an integer, got 8.0"),
        ({"std": [True]}, "std must be numbers"),
        ({"mean": None}, "mean must be numbers, got None"),
    ],
)
def test_parameters_that_are_no_numbers(changes, message):
    with pytest.raises(TypeError, match=message):
        models.build("small-cnn", **{"input_shape": (1, 8, 8), "mean": [0.5], "std": [0.5], **changes})


def test_numbers_of_numpy_are_numbers_and_any_sequence_is_a_shape():
    shape, half = np.array([1, 8, 8]), np.array([0.5], dtype=np.float32)
    for size, values in ((shape, half), (list(shape), [half[0]])):
        backbone = models.build("small-cnn", input_shape=size, mean=values, std=values, embedding_dim=np.int64(7))
        assert backbone.input_shape == (1, 8, 8)
        assert backbone(torch.rand(2, 1, 8, 8)).shape == (2, 7)


@pytest.mark.parametrize("depth", [2, 21])
def test_depth_that_does_not_exist(depth):
    with pytest.raises(ValueError, match=f"6 n \\+ 2 with n at least 1, got {depth}"):
        PreActivationResNet(depth, (3, 8, 8), [0.5] * 3, [0.5] * 3)
