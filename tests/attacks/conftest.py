"""A small network, trained on digits, that the attack tests share."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from torch import Tensor
from trained import trained

from isce import data
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
    return _target(digits, "sce")


@pytest.fixture(scope="session")
def released(digits: data.Data) -> Target:
    return _target(digits, "isce-released")


def _target(digits: data.Data, name: str) -> Target:
    return Target(*trained(name), digits.test.unit()[:40], digits.test.labels[:40])
