"""Networks built by hand, images for them, and one cheap row of each attack."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from isce import attacks
from isce.attacks import Threat, run
from isce.attacks.driver import Network
from isce.attacks.spec import AttackSpec
from isce.losses import build

_CHEAP = {
    "bim": {"steps": 5},
    "cw": {"steps": 20, "params": {"search_steps": 3, "lr": 0.05}},
    "deepfool": {"steps": 10},
    "fab": {"steps": 10},
    "fmn": {"steps": 10},
    "jsma": {"targeted": True, "norm": "l0", "eps": 4},
    "lbfgs": {"steps": 10, "targeted": True, "params": {"search_steps": 2}},
    "local-search": {"steps": 3, "norm": "l0", "eps": 4},
    "matched": {"steps": 6, "restarts": 3},
    "mim": {"steps": 5},
    "nearest": {"steps": 10},
    "pgd": {"steps": 5},
    "released": {"steps": 3, "step_size": 0.02},
    "search": {"steps": 30},
    "simba": {"steps": 30},
    "single-pixel": {"steps": 12},
    "spatial": {"steps": 10},
    "spsa": {"steps": 3, "params": {"samples": 16, "lr": 0.1}},
    "staged": {"steps": 10, "restarts": 2},
    "transfer": {"steps": 5, "source": "itself"},
}
ROWS = {name: AttackSpec(attack=name, **_CHEAP.get(name, {})) for name in attacks.names()}


def threat_of(spec: AttackSpec, linf: float = 0.2, l2: float = 0.8) -> Threat:
    """The row's own threat model, else one that it works in."""
    if spec.threat is not None:
        return spec.threat
    return Threat("linf", linf) if "linf" in attacks.about(spec.attack).norms else Threat("l2", l2)


def attack(spec: AttackSpec, classifier: nn.Module, x: Tensor, y: Tensor, threat: Threat | None = None, **more):
    """One row on one batch, the classifier its own source where the row needs one."""
    source: Network | None = (classifier, build("sce")) if spec.source else None
    return run(spec, classifier, build("sce"), x, y, threat or threat_of(spec), seed=0, source=source, **more)


class Layers(nn.Module):
    """Two layers with weights drawn from a generator of its own, no bias; ``gain`` scales the logits alone."""

    def __init__(self, shape=(1, 4, 4), classes: int = 4, hidden: int = 12, gain: float = 1.0, seed: int = 0) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        size = torch.Size(shape).numel()
        self.first = nn.Parameter(torch.randn(size, hidden, generator=generator) / size**0.5)
        self.second = nn.Parameter(torch.randn(hidden, classes, generator=generator))
        self.gain = gain

    def forward(self, x):
        return self.gain * (torch.relu((2 * x - 1).flatten(1) @ self.first) @ self.second)


class Mean(nn.Module):
    """Two classes, class 1 where the mean pixel exceeds 0.5: a flat image at distance d falls exactly at eps > d."""

    def __init__(self, gain: float = 5.0) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.tensor(gain))

    def forward(self, x):
        mean = self.gain * (x.flatten(1).mean(1) - 0.5)
        return torch.stack([-mean, mean], 1)


class Hidden(nn.Module):
    """Class 1 wins where more than 80% of the pixels exceed 0.5; no gradient anywhere."""

    def forward(self, x):
        share = (x.flatten(1) > 0.5).to(x).mean(1) + 0 * x.flatten(1).sum(1)
        return torch.stack([0.8 - share, share - 0.8], 1)


class Times(torch.autograd.Function):
    """The identity, whose gradient is multiplied by a factor."""

    @staticmethod
    def forward(ctx, x, factor):
        ctx.save_for_backward(factor)
        return x.clone()

    @staticmethod
    def backward(ctx, *gradients):
        return gradients[0] * ctx.saved_tensors[0], None


def flat(*values: float) -> tuple[Tensor, Tensor]:
    """Constant images (N, 1, 2, 2) with these values, all of class 0."""
    x = torch.tensor(values).view(-1, 1, 1, 1).repeat(1, 1, 2, 2)
    return x, torch.zeros(len(x), dtype=torch.int64)


def images(n: int, shape=(1, 4, 4), seed: int = 1) -> Tensor:
    """Random images (N, C, H, W)."""
    return torch.rand(n, *shape, generator=torch.Generator().manual_seed(seed))


def predicted(classifier: nn.Module, x: Tensor) -> Tensor:
    """The classes that a classifier gives, to be used as labels."""
    with torch.no_grad():
        return classifier(x).argmax(1)
