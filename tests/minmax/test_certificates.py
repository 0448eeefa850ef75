"""Certificates: never below what sampling, attack and exact cases reach; equal to hand values and to a naive walk."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from isce import losses
from isce.attacks import Threat
from isce.losses.gaussian import GaussianScores, SimplexScores
from isce.minmax import certified, projected_ascent, upper_bounds
from isce.minmax.certificates import SLACK
from isce.minmax.chain import Chain, double
from isce.minmax.interval import interval_bounds, propagate
from isce.minmax.linear import linear_bounds
from isce.minmax.lines import lines_of
from isce.models import Backbone, Classifier, build
from isce.models.lipschitz import MaxMin
from isce.models.shallow import SmallCNN

KINDS = ["small-cnn", "lenet", "interval-cnn", "lipschitz-cnn", "lipschitz-dense"]


class Odd(Backbone):
    """Groups, a stride that leaves a column out, pooling that leaves a row out, and a maximum of convolutions."""

    def __init__(self):
        super().__init__((2, 9, 8), [0.4, 0.5], [0.2, 0.3])
        layers = [
            nn.Conv2d(2, 4, 3, stride=(2, 1), padding=(1, 0), groups=2, bias=False),
            MaxMin(),
            nn.Conv2d(4, 4, 2, groups=2),
            nn.MaxPool2d(2),
            nn.ReLU(),
            nn.Conv2d(4, 6, 2, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Flatten(),
        ]
        self._set_layers(layers, 6, 5)


def network(
    kind: str, seed: int = 0, score_map: nn.Module | None = None
) -> tuple[Classifier, torch.Tensor, torch.Tensor]:
    torch.manual_seed(seed)
    if kind == "odd":
        backbone: Backbone = Odd()
    else:
        shape = (1, 12, 12) if kind == "lenet" else (1, 8, 8)
        backbone = build(kind, input_shape=shape, mean=[0.3], std=[0.25], embedding_dim=8)
    scores = score_map or backbone.scores(nn.Linear(backbone.embedding_dim, 4))
    classifier = Classifier(backbone, scores).eval()
    x = torch.rand(4, *backbone.input_shape)
    x[0] = x[0].round()  # an image that touches the box
    return classifier, x, torch.tensor([0, 1, 2, 3])


def differences(classifier, x, y):
    logits = classifier(x).double()
    return logits - logits.gather(1, y[:, None])


def reached(classifier, x, y, threat):
    """The largest f_k - f_y at corners, random points and the points of an ascent."""
    generator = torch.Generator().manual_seed(1)
    best = differences(classifier, x, y)
    for number in range(40):
        noise = torch.rand(x.shape, generator=generator) * 2 - 1
        noise = noise.sign() if number % 2 else noise
        best = torch.maximum(best, differences(classifier, threat.project(x + 2 * threat.eps * noise, x), y))
    point = projected_ascent(classifier, x, y, eps=threat.eps, norm=threat.norm, steps=20, restarts=2)
    return torch.maximum(best, differences(classifier, point, y))


BALLS = {"interval": ("linf", 0.05), "linear": ("linf", 0.05), "lipschitz": ("l2", 0.3)}
#: Another stride along each axis, as "odd" has, has no Lipschitz rule.
CASES = [(kind, method) for kind in [*KINDS, "odd"] for method in BALLS if (kind, method) != ("odd", "lipschitz")]


@pytest.mark.parametrize(("kind", "method"), CASES)
def test_no_point_of_the_ball_exceeds_a_bound(kind, method):
    norm, eps = BALLS[method]
    for seed in range(3):
        classifier, x, y = network(kind, seed)
        threat = Threat(norm, eps)
        bounds = upper_bounds(classifier, x, y, threat, method)
        with torch.no_grad():
            assert (reached(classifier, x, y, threat) <= bounds).all()
        assert (bounds.gather(1, y[:, None]) == 0).all()


@pytest.mark.parametrize("kind", [*KINDS, "odd"])
def test_linear_bounds_are_at_most_those_by_intervals_and_both_grow_with_eps(kind):
    classifier, x, y = network(kind)
    parts, before = double(classifier), None
    for eps in (0.0, 0.01, 0.05, 0.2, 1.0):
        by_interval = interval_bounds(parts, x.double(), y, eps)
        by_lines = linear_bounds(parts, x.double(), y, eps)
        assert (by_lines <= by_interval + 1e-12).all()
        if eps == 0:
            torch.testing.assert_close(by_lines, differences(classifier.double(), x.double(), y))
            classifier.float()
        if before is not None:
            assert (by_interval >= before[0] - 1e-12).all()
            assert (by_lines >= before[1] - 1e-9).all()
        before = by_interval, by_lines


@pytest.mark.parametrize("score_map", [SimplexScores(8, 4), GaussianScores(8, 4)], ids=["mmc", "lgm"])
def test_score_maps_by_distances_to_centres_have_bounds(score_map):
    classifier, x, y = network("small-cnn", score_map=score_map)
    threat = Threat("linf", 0.05)
    for method in ("interval", "linear"):
        with torch.no_grad():
            assert (reached(classifier, x, y, threat) <= upper_bounds(classifier, x, y, threat, method)).all()


@given(seed=st.integers(0, 2**16), eps=st.floats(0, 1))
@settings(max_examples=25, deadline=None)
def test_softmax_regression_is_bounded_exactly_with_the_box(seed, eps):
    """The worst of a linear difference moves each pixel by eps against its weight, and stops at 0 or 1."""
    generator = torch.Generator().manual_seed(seed)
    weight, bias = torch.randn(4, 9, generator=generator).double(), torch.randn(4, generator=generator).double()
    x, y = torch.rand(5, 1, 3, 3, generator=generator).double(), torch.randint(4, (5,), generator=generator)
    parts = Chain(torch.zeros(1, 1, 1), torch.ones(1, 1, 1), [nn.Flatten()], weight, bias)
    for i in range(5):
        for k in range(4):
            slope = weight[k] - weight[y[i]]
            pixels = [
                min(1.0, float(p) + eps) if w > 0 else max(0.0, float(p) - eps)
                for p, w in zip(x[i].flatten(), slope, strict=True)
            ]
            exact = sum(float(w) * p for w, p in zip(slope, pixels, strict=True)) + float(bias[k] - bias[y[i]])
            for bounds in (interval_bounds, linear_bounds):
                assert float(bounds(parts, x, y, eps)[i, k]) == pytest.approx(exact, abs=1e-9)


def test_a_network_worked_by_hand():
    """h = relu(x_0 + x_1 - 1), logits (h, -h), x = (0.5, 0.7), eps = 0.1: h is in [0, 0.4], no slope is lost."""
    hidden = nn.Linear(2, 1).double()
    hidden.weight.data, hidden.bias.data = torch.tensor([[1.0, 1.0]]).double(), torch.tensor([-1.0]).double()
    parts = Chain(
        torch.zeros(1, 1, 1), torch.ones(1, 1, 1), [nn.Flatten(), hidden, nn.ReLU()],
        torch.tensor([[1.0], [-1.0]]).double(), torch.zeros(2).double(),
    )  # fmt: skip
    x, y = torch.tensor([[[[0.5, 0.7]]]]).double(), torch.tensor([0])
    assert interval_bounds(parts, x, y, 0.1)[0].tolist() == pytest.approx([0, 0])  # f_1 - f_0 = -2 h <= 0
    # eps 0.3: the pre-activation is in [-0.3, 0.8] (0.7 + 0.3 stops at 1): below, slope 1: -2 h <= -2 (x_0 + x_1 - 1).
    assert interval_bounds(parts, x, y, 0.3)[0].tolist() == pytest.approx([0, 0])
    assert linear_bounds(parts, x, y, 0.3)[0, 1].item() == pytest.approx(0)  # 0.8 by the line, 0 by the range
    # Label 1: f_0 - f_1 = 2 h <= 2 * chord, at the top 0.8 / 1.1 * (0.8 + 0.3) = 0.8.
    assert linear_bounds(parts, x, 1 - y, 0.3)[0, 0].item() == pytest.approx(1.6)
    # eps 0.1, label 1: 2 h <= 2 * 0.4.
    assert linear_bounds(parts, x, 1 - y, 0.1)[0, 0].item() == pytest.approx(0.8)


@pytest.mark.parametrize("layer", [nn.ReLU(), nn.MaxPool2d(2), MaxMin()], ids=["relu", "pool", "maxmin"])
@given(seed=st.integers(0, 2**16))
@settings(max_examples=20, deadline=None)
def test_lines_enclose_a_layer_on_its_ranges(layer, seed):
    generator = torch.Generator().manual_seed(seed)
    shape = (2, 4, 5, 4)
    low = torch.randn(shape, generator=generator).double()
    width = torch.rand(shape, generator=generator).double() * (torch.rand(shape, generator=generator) > 0.2)
    high = low + 2 * width
    for _ in range(20):
        z = low + (high - low) * torch.rand(shape, generator=generator).double().round(decimals=1)
        out = layer(z)
        for half, lines in enumerate(lines_of(layer, low, high)):
            at = out.chunk(2, 1)[half] if isinstance(layer, MaxMin) else out

            def gathered(slopes, z=z):
                parts = slopes * z
                if isinstance(layer, MaxMin):
                    first, second = parts.chunk(2, 1)
                    return first + second
                return F.avg_pool2d(parts, 2) * 4 if isinstance(layer, nn.MaxPool2d) else parts

            below, above = gathered(lines.below), gathered(lines.above) + lines.above_offset
            below = below if lines.below_offset is None else below + lines.below_offset
            assert (below <= at + 1e-12).all()
            assert (above >= at - 1e-12).all()


def naive(parts: Chain, x, y, eps):
    """The linear relaxation with dense matrices and no patches, one image and one function at a time."""
    found = []
    for image, label in zip(x, y, strict=True):
        low, high = (end for end in parts.box(image[None], eps))
        ranges, steps = [(low, high)], []
        for layer in parts.layers:
            low, high = ranges[-1]
            if isinstance(layer, nn.Conv2d | nn.Linear):
                basis = torch.eye(low.numel()).double().view(-1, *low.shape[1:])
                shift = layer(torch.zeros_like(low))
                matrix = (layer(basis) - shift).flatten(1).T
                steps.append((matrix, matrix, shift.flatten(), shift.flatten()))
            elif isinstance(layer, nn.Flatten):
                steps.append(None)
            else:
                if len(steps) > 2 and isinstance(parts.layers[len(steps) - 1], nn.Conv2d | nn.Linear):
                    rows = torch.eye(low.numel()).double()
                    above = torch.stack([back(steps, ranges, row) for row in rows]).view(low.shape)
                    below = -torch.stack([back(steps, ranges, -row) for row in rows]).view(low.shape)
                    ranges[-1] = low, high = torch.maximum(low, below), torch.minimum(high, above)
                steps.append(matrices(layer, low, high))
            ranges.append(propagate([layer], *ranges[-1]))
        weight, bias = parts.differences(label[None])
        low, high = (end.flatten() for end in ranges[-1])
        rows = [min(back(steps, ranges, w), (w.clamp(min=0) * high + w.clamp(max=0) * low).sum()) for w in weight[0]]
        found.append(torch.stack(rows) + bias[0])
    return torch.stack(found)


def matrices(layer, low, high):
    """Lines below and above as dense matrices: entry by entry from the definition."""
    size, out = low.numel(), layer(low).numel()
    lo, hi = low.flatten().tolist(), high.flatten().tolist()
    lower, upper, offset = torch.zeros(out, size).double(), torch.zeros(out, size).double(), torch.zeros(out).double()
    if isinstance(layer, nn.ReLU):
        for i, (a, b) in enumerate(zip(lo, hi, strict=True)):
            lower[i, i] = float(b > -a)
            upper[i, i] = 1.0 if a >= 0 else 0.0 if b <= 0 else b / (b - a)
            offset[i] = -upper[i, i] * min(a, 0)
        return lower, upper, torch.zeros(out).double(), offset
    places = torch.arange(size).view(low.shape).double()
    windows = places.unfold(2, 2, 2).unfold(3, 2, 2).reshape(out, 4).long()
    for i, window in enumerate(windows.tolist()):
        lower[i, max(window, key=lambda j: lo[j])] = 1.0
        top = max(window, key=lambda j: hi[j])
        rest = max(hi[j] for j in window if j != top)
        slope = 1.0 if lo[top] >= rest else (hi[top] - rest) / (hi[top] - lo[top])
        upper[i, top], offset[i] = slope, 0.0 if lo[top] >= rest else rest - slope * lo[top]
    return lower, upper, torch.zeros(out).double(), offset


def back(steps, ranges, row):
    constant = 0.0
    for step in reversed(steps):
        if step is not None:
            lower, upper, below, above = step
            constant = constant + row.clamp(min=0) @ above + row.clamp(max=0) @ below
            row = row.clamp(min=0) @ upper + row.clamp(max=0) @ lower
    low, high = (end.flatten() for end in ranges[0])
    return constant + row.clamp(min=0) @ high + row.clamp(max=0) @ low


@pytest.mark.parametrize("kind", ["small-cnn", "interval-cnn"])
def test_patches_and_undecided_entries_give_what_a_naive_walk_gives(kind):
    """A network with a strided and a pooled convolution, walked back with dense matrices from every hidden entry."""
    torch.manual_seed(3)
    backbone = Backbone((1, 6, 6), [0.3], [0.25])
    layers = [nn.Conv2d(1, 3, 3, padding=1)]
    layers += [nn.MaxPool2d(2)] if kind == "small-cnn" else []
    layers += [nn.ReLU(), nn.Conv2d(3, 4, 3, stride=2, padding=1)]
    layers += [nn.ReLU(), nn.Flatten(), nn.Linear(16 if kind == "small-cnn" else 36, 5), nn.ReLU()]
    backbone._set_layers(layers, 5, None)
    classifier = Classifier(backbone, nn.Linear(5, 3)).eval()
    x, y = torch.rand(2, 1, 6, 6).double(), torch.tensor([0, 2])
    parts = double(classifier)
    for eps in (0.02, 0.1):
        torch.testing.assert_close(linear_bounds(parts, x, y, eps), naive(parts, x, y, eps), atol=1e-9, rtol=1e-9)


def test_layers_that_work_in_place_have_the_same_bounds():
    """At the start of a chain one would overwrite the box, which linear bounds end at."""
    torch.manual_seed(0)
    x, y, threat = torch.rand(4, 1, 2, 2), torch.tensor([0, 1, 2, 0]), Threat("linf", 0.3)
    hidden, score_map, found = nn.Linear(4, 6), nn.Linear(6, 3), list[torch.Tensor]()
    for inplace in (False, True):
        backbone = Backbone((1, 2, 2), [0.5], [1.0])
        backbone._set_layers([nn.Flatten(), nn.ReLU(inplace), hidden, nn.ReLU(inplace)], 6, None)
        found.append(upper_bounds(Classifier(backbone, score_map).eval(), x, y, threat, "linear"))
    assert torch.equal(*found)


def test_without_tightening_bounds_are_sound_and_looser_on_average():
    classifier, x, y = network("small-cnn")
    parts, threat = double(classifier), Threat("linf", 0.05)
    loose = linear_bounds(parts, x.double(), y, 0.05, tighten=False)
    assert (reached(classifier, x, y, threat) <= loose + 1e-5).all()
    assert linear_bounds(parts, x.double(), y, 0.05).mean() < loose.mean()


@pytest.mark.parametrize("kind", KINDS)
def test_float32_logits_stay_within_a_tenth_of_the_slack(kind):
    classifier, x, y = network(kind)
    small = differences(classifier, x, y)
    exact = differences(classifier.double(), x.double(), y)
    assert ((small - exact).abs().amax(1) < SLACK / 10 * exact.abs().amax(1)).all()


def test_what_is_proved_is_below_zero_with_slack_to_spare(digits):
    classifier, x, y = digits
    x, y, threat = x[:16], y[:16], Threat("linf", 0.04)
    bounds = upper_bounds(classifier, x, y, threat, "linear")
    proved = certified(classifier, x, y, threat, "linear")
    others = bounds.scatter(1, y[:, None], -math.inf).amax(1)
    assert torch.equal(proved, others < 0)
    assert proved.any()
    assert not proved.all()
    moved = projected_ascent(classifier, x, y, eps=0.04, steps=40)
    assert (classifier(moved).argmax(1) == y)[proved].all()


REFUSED = {
    "resnet": (lambda: build("preact-resnet-20", input_shape=(3, 8, 8), mean=[0.5] * 3, std=[0.5] * 3), "BatchNorm"),
    "subclass": (lambda: _with(Doubling()), "layer Doubling; known: Conv2d"),
    "branching": (lambda: Branching((1, 8, 8), [0.5], [0.5]), "Branching: it is no chain of layers"),
    "gelu": (lambda: _with(nn.GELU()), "layer GELU; known: Conv2d"),
    "dilated": (lambda: _with(nn.Conv2d(1, 1, 3, dilation=2)), "dilation"),
    "overlapping": (lambda: _with(nn.MaxPool2d(3, stride=1)), "windows side by side"),
    "released": (lambda: _released(), "divides each image"),
    "identity": (lambda: _with(type("Scale", (nn.Identity,), {"forward": lambda self, x: 20 * x})()), "layer Scale"),
    "sequential": (lambda: _residual(), "it is no chain of layers"),
}  # fmt: skip


class Doubling(nn.ReLU):
    def forward(self, input):  # noqa: A002 - torch's own name
        return 2 * super().forward(input)


class Branching(SmallCNN):
    def features(self, x):
        return super().features(x) + super().features(-x)


def _with(layer):
    backbone = SmallCNN((1, 8, 8), [0.5], [0.5])
    backbone.layers.insert(0, layer)
    return backbone


def _residual():
    """Its layers are those of a chain, but called in another way."""
    backbone = SmallCNN((1, 8, 8), [0.5], [0.5])
    backbone.layers.__class__ = type("Twice", (nn.Sequential,), {"forward": lambda self, x: 2 * super().forward(x)})
    return backbone


def _released():
    backbone = SmallCNN((1, 8, 8), [0.5], [0.5])
    backbone.normalise_as_released()
    return backbone


@pytest.mark.parametrize("name", REFUSED)
def test_what_has_no_bound_is_refused_by_name(name):
    make, message = REFUSED[name]
    backbone = make()
    classifier = Classifier(backbone, nn.Linear(backbone.embedding_dim, 3)).eval()
    x = torch.rand(2, *backbone.input_shape)
    for method in ("interval", "linear"):
        with pytest.raises(ValueError, match=message):
            upper_bounds(classifier, x, torch.tensor([0, 1]), Threat("linf", 0.1), method)


def test_methods_norms_modes_and_score_maps_without_bounds_are_refused():
    classifier, x, y = network("small-cnn")
    with pytest.raises(ValueError, match="no linear bounds in l2; known: linf"):
        upper_bounds(classifier, x, y, Threat("l2", 0.1), "linear")
    with pytest.raises(ValueError, match="no lipschitz bounds in spatial"):
        upper_bounds(classifier, x, y, Threat("spatial", 1), "lipschitz")
    with pytest.raises(ValueError, match="unknown method 'crown'; known: interval, linear, lipschitz"):
        upper_bounds(classifier, x, y, Threat("linf", 0.1), "crown")  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match="training mode"):
        upper_bounds(classifier.train(), x, y, Threat("linf", 0.1), "linear")
    cosine = losses.build("cosface").score_map(8, 4)
    with pytest.raises(ValueError, match="no bounds for the score map CosineScores"):
        upper_bounds(Classifier(classifier.backbone, cosine).eval(), x, y, Threat("linf", 0.1), "interval")
    scaled = type("Scaled", (Classifier,), {"forward": lambda self, x: 3 * Classifier.forward(self, x)})
    with pytest.raises(ValueError, match="no bounds for Scaled"):
        upper_bounds(scaled(classifier.backbone, classifier.score_map).eval(), x, y, Threat("linf", 0.1), "interval")
    batch = build("preact-resnet-20", input_shape=(3, 8, 8), mean=[0.5] * 3, std=[0.5] * 3, batch_statistics=True)
    with pytest.raises(ValueError, match="batch statistics"):
        upper_bounds(
            Classifier(batch, nn.Linear(64, 4)).eval(), torch.rand(4, 3, 8, 8), y, Threat("linf", 0.1), "interval"
        )


@pytest.mark.parametrize("method", ["interval", "linear", "lipschitz"])
def test_images_threats_and_networks_of_another_kind_are_refused(method):
    classifier, x, y = network("interval-cnn")
    for images, error, text in (
        (255 * x, ValueError, r"images must lie in \[0, 1\]"),
        (x - 1, ValueError, r"images must lie in \[0, 1\]"),
        (x.double(), TypeError, "images must be torch.float32, as the network's weights, got torch.float64"),
    ):
        with pytest.raises(error, match=text):
            certified(classifier, images, y, Threat("linf", 0.01), method)
    with pytest.raises(TypeError, match=r"must be an isce\.attacks\.Threat, .* got 0\.01"):
        certified(classifier, x, y, 0.01, method)  # pyright: ignore[reportArgumentType]
    with pytest.raises(TypeError, match=r"isce\.models\.Classifier, got Sequential"):
        certified(nn.Sequential(classifier), x, y, Threat("linf", 0.01), method)  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("method", ["interval", "linear", "lipschitz"])
def test_logits_far_from_zero_prove_nothing_that_their_rounding_reverses(method):
    classifier, x, _ = network("interval-cnn")
    with torch.no_grad():
        classifier.score_map.bias.add_(1e7)
    for label in range(4):
        y = torch.full((len(x),), label)
        wrong = classifier(x).argmax(1) != y
        assert not (certified(classifier, x, y, Threat("linf", 1e-6), method) & wrong).any()
