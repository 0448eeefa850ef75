"""What the findings share: the check, and a network made by hand with images for it (no training, no data set)."""

from __future__ import annotations

import importlib
import sys
from importlib.metadata import version
from typing import TYPE_CHECKING, Any
from unittest.mock import MagicMock

if TYPE_CHECKING:
    from torch import Tensor, nn


def versions(wanted: list[str]) -> None:
    """Print the packages of a finding; end the script where another version is installed than it is about."""
    for name, number in (one.split("==") for one in wanted):
        if version(name).split("+")[0] != number:
            sys.exit(f"this finding is about {name} {number}, found {version(name)}")
    print(", ".join(wanted), flush=True)  # noqa: T201


def see(text: str, holds: object) -> None:
    """Print what was seen; end the script with an error where it no longer holds."""
    if not holds:
        sys.exit(f"CHANGED: {text}")
    print(f"seen: {text}", flush=True)  # noqa: T201


def advertorch() -> Any:
    """Import advertorch 0.2.3: give torch back the name that it asks for, and do without torchvision (data only)."""
    gradcheck = importlib.import_module("torch.autograd.gradcheck")
    gradcheck.zero_gradients = lambda x: x.grad is not None and x.grad.zero_()
    sys.modules["torchvision"] = MagicMock()
    return importlib.import_module("advertorch")


def images(n: int = 40, classes: int = 10) -> tuple[Tensor, Tensor]:
    """Make images (n, 1, 8, 8) in [0, 1], each halfway between its class's template and noise, and their labels."""
    import torch

    y = torch.arange(n) % classes
    noise = torch.rand(n, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    return (_templates(classes)[y] + noise) / 2, y


def network(scale: float = 1.0, classes: int = 10) -> nn.Sequential:
    """Make a linear network: the class with the nearest template wins; ``scale`` multiplies all logits."""
    import torch

    flat = _templates(classes).flatten(1)
    layer = torch.nn.Linear(64, classes).requires_grad_(False)
    layer.weight.copy_(scale * flat)
    layer.bias.copy_(-scale * flat.square().sum(1) / 2)
    return torch.nn.Sequential(torch.nn.Flatten(), layer).eval()


def correct(net: nn.Module, x: Tensor, y: Tensor) -> int:
    """Count the images that are classified right."""
    return int((net(x).argmax(1) == y).sum())


def distance(a: Tensor, b: Tensor, order: float = 2) -> Tensor:
    """Measure each image's distance from its own, (n,)."""
    return (a - b).flatten(1).norm(p=order, dim=1)


def _templates(classes: int) -> Tensor:
    import torch

    return torch.rand(10, 1, 8, 8, generator=torch.Generator().manual_seed(0))[:classes]
