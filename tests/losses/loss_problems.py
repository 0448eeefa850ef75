"""Random problems for the suite, the written-out loss as a tensor, and the parametrisations over all objectives."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from loss_cases import CASES
from torch import Tensor

from isce import losses

C, D, N = 4, 3, 6
VARIANTS = [
    pytest.param(name, params, id=f"{name}-{index}")
    for name, case in CASES.items()
    for index, params in enumerate(case.variants)
]
every = pytest.mark.parametrize("name", CASES)
every_variant = pytest.mark.parametrize(("name", "params"), VARIANTS)
SOFT = [name for name in CASES if "soft" not in losses.build(name).exempt]
every_soft = pytest.mark.parametrize("name", SOFT)
every_soft_variant = pytest.mark.parametrize(("name", "params"), [v for v in VARIANTS if v.values[0] in SOFT])


def problem(name: str, seed: int = 0, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor, Tensor]:
    """Logits (N, C), labels with every class twice or once, embeddings (N, D)."""
    generator = torch.Generator().manual_seed(seed)
    bound = CASES[name].bound
    logits = (2 * torch.rand(N, C, generator=generator, dtype=dtype) - 1) * bound
    embedding = torch.randn(N, D, generator=generator, dtype=dtype)
    return logits, torch.tensor([0, 1, 2, 3, 0, 1]), embedding


def mixed(shape: tuple[int, ...], seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    """Probabilities over the class dimension, as a mixup of two labels with a bit of every class."""
    generator = torch.Generator().manual_seed(seed)
    return (3 * torch.randn(shape, generator=generator, dtype=dtype)).softmax(min(len(shape) - 1, 1))


def by_label(objective: losses.Objective, logits: Tensor) -> Tensor:
    """The loss of each example (N, C) for each label that it could have."""
    return torch.stack(
        [objective.per_example(logits, torch.full((len(logits),), k)) for k in range(logits.shape[1])], 1
    )


def naive(
    name: str, params: dict[str, Any], logits: Tensor, target: Tensor, embedding: Tensor, smoothing: float | None = None
):
    """The plain-float loss as a float64 tensor; ``label-smoothing`` smooths of its own accord."""
    params = dict(params)
    own = params.pop("label_smoothing", 0.1 if name == "label-smoothing" else 0.0)
    rows = CASES[name].naive(
        logits.double().tolist(),
        target.tolist(),
        embedding.double().tolist(),
        own if smoothing is None else smoothing,
        **params,
    )
    return torch.tensor(rows, dtype=torch.float64)
