"""The batch size: measured bytes of a hand-made net, and that what it chooses fits."""

from __future__ import annotations

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.profiler import ProfilerActivity, profile

from isce import attacks, losses, models
from isce.attacks import Threat
from isce.attacks.spec import AttackSpec
from isce.evaluation import batch_size
from isce.evaluation.memory import COPIES, CPU_BYTES, GPU_SHARE, SAFETY, _budget, saved_bytes
from isce.models import Classifier
from isce.models.base import Shape

PIXELS, HIDDEN = 12, 5


def images(n: int, shape=(3, 2, 2)) -> torch.Tensor:
    return torch.rand(n, *shape, generator=torch.Generator().manual_seed(0))


def relu_net() -> nn.Module:
    """Saves its rectified layer, 4 * HIDDEN bytes an image, and its weights."""
    return nn.Sequential(nn.Flatten(), nn.Linear(PIXELS, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, 3))


class Square(nn.Module):
    """Saves its input twice, once as a view, and a constant buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.gain: torch.Tensor
        self.register_buffer("gain", torch.ones(PIXELS))

    def forward(self, x):
        return (x.flatten(1) * x.view(len(x), -1) * self.gain)[:, :3]


@pytest.mark.parametrize("n", [1, 7])
def test_saved_bytes_by_hand(n):
    assert saved_bytes(relu_net(), images(n)) == 4 * n * HIDDEN
    assert saved_bytes(Square(), images(n)) == 4 * n * PIXELS


def test_a_slice_counts_as_what_it_holds():
    assert saved_bytes(Square(), images(100)[:2]) == saved_bytes(Square(), images(2))


def test_the_batch_size_by_hand():
    each = SAFETY * 4 * HIDDEN + COPIES * 4 * PIXELS
    net = relu_net()
    for fit, expected in ((0.5, 1), (1, 1), (2, 2), (5, 4), (64, 64), (99, 64), (100, 100), (10**6, 100)):
        assert batch_size(net, images(9), budget=int(each * fit), most=100) == expected


@settings(max_examples=50, deadline=None)
@given(budgets=st.tuples(st.integers(1, 10**7), st.integers(1, 10**7)), most=st.integers(1, 1000))
def test_more_memory_never_means_a_smaller_batch(budgets, most):
    net = relu_net()
    low, high = (batch_size(net, images(3), budget=budget, most=most) for budget in sorted(budgets))
    assert 1 <= low <= high <= most


def test_the_budget_is_fixed_on_the_cpu_and_a_share_of_the_free_memory_on_a_gpu(monkeypatch):
    monkeypatch.setattr("torch.cuda.mem_get_info", lambda device: (1000, 4000))
    assert _budget(torch.device("cpu")) == CPU_BYTES
    assert _budget(torch.device("cuda:0")) == GPU_SHARE * 1000
    net = relu_net()
    assert batch_size(net, images(3), most=10**9) == batch_size(net, images(3), most=10**9, budget=CPU_BYTES)


@pytest.mark.parametrize("changes", [{"most": 0}, {"budget": 0}])
def test_a_budget_of_nothing_is_refused(changes):
    with pytest.raises(ValueError, match="must be at least 1, got"):
        batch_size(relu_net(), images(3), **changes)


def test_no_images_to_measure_are_refused():
    with pytest.raises(ValueError, match="at least one image"):
        batch_size(relu_net(), images(0))


def network(name: str, shape: Shape) -> Classifier:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        backbone = models.build(name, input_shape=shape, mean=[0.5] * shape[0], std=[0.5] * shape[0])
        return Classifier(backbone, losses.build("sce").score_map(backbone.embedding_dim, 10))


def test_the_network_is_left_as_it_was():
    net = network("preact-resnet-20", (3, 8, 8)).train()
    x = images(4, (3, 8, 8))
    net(x).sum().backward()
    next(net.parameters()).requires_grad_(False)
    before = copy.deepcopy(net.state_dict())
    gradients = [None if p.grad is None else p.grad.clone() for p in net.parameters()]
    required = [p.requires_grad for p in net.parameters()]
    batch_size(net, x)
    assert all(part.training for part in net.modules())
    assert [p.requires_grad for p in net.parameters()] == required
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    for parameter, gradient in zip(net.parameters(), gradients, strict=True):
        assert (parameter.grad is None) == (gradient is None)
        assert gradient is None or torch.equal(parameter.grad, gradient)
    assert not x.requires_grad


@pytest.mark.parametrize(
    ("name", "shape"), [("small-cnn", (1, 8, 8)), ("lenet", (1, 28, 28)), ("preact-resnet-20", (3, 16, 16))]
)
def test_an_attack_with_the_batch_it_chooses_stays_in_the_budget(name, shape):
    """The peak of all allocations during an attack, as torch's profiler counts them."""
    net, budget = network(name, shape).eval(), 4 * 2**20
    x = images(64, shape)
    n = batch_size(net, x, budget=budget)
    assert 1 < n <= 64
    x = x[:n]
    args = (AttackSpec(attack="matched", objective="margin", steps=2), net, losses.build("sce"), x, net(x).argmax(1))
    attacks.run(*args, Threat("linf", 1e-6), seed=0)  # what is allocated once and for all
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        attacks.run(*args, Threat("linf", 1e-6), seed=0)
    total = peak = 0
    for event in profiler.profiler.kineto_results.events():
        if event.name() == "[memory]":
            total += event.nbytes()  # pyright: ignore[reportAttributeAccessIssue]
            peak = max(peak, total)
    assert n * x[0].nbytes < peak <= budget
