"""A small network, trained on digits in a second, that the attack tests share."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from isce import data, losses, models
from isce.losses.base import Objective
from isce.models import Classifier


@dataclass(frozen=True)
class Target:
    classifier: Classifier
    objective: Objective
    x: Tensor
    y: Tensor


@pytest.fixture(scope="session")
def digits() -> data.Data:
    return data.load("digits")


@pytest.fixture(scope="session")
def target(digits: data.Data) -> Target:
    """Trained classifier with 40 test images; tests leave it as it is (which is itself tested)."""
    return _train(digits, "sce")


@pytest.fixture(scope="session")
def released(digits: data.Data) -> Target:
    return _train(digits, "isce-released")


def _train(digits: data.Data, name: str) -> Target:
    generator = torch.Generator().manual_seed(0)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        objective = losses.build(name)
        backbone = models.build("small-cnn", input_shape=digits.input_shape, mean=digits.mean, std=digits.std)
        classifier = Classifier(backbone, objective.score_map(backbone.embedding_dim, 10))
    optimizer = torch.optim.Adam(classifier.parameters(), 1e-2)
    x, y = digits.train.unit(), digits.train.labels
    for _ in range(40):
        rows = torch.randint(len(x), (128,), generator=generator)
        optimizer.zero_grad()
        objective(classifier(x[rows]), y[rows]).backward()
        optimizer.step()
    optimizer.zero_grad()
    classifier.eval()
    return Target(classifier, objective, digits.test.unit()[:40], digits.test.labels[:40])
