"""A small network, trained on digits, that the attack tests share."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from torch import Tensor
from trained import trained

from isce import compat, data
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


@pytest.fixture(scope="module", autouse=True)
def short_autoattack():
    """AutoAttack as it is, with a tenth of its steps and a hundredth of its queries."""
    package = compat.import_pyautoattack()

    class Short(package.AutoAttack):
        def run_standard_evaluation(self, *args, **options):
            self.apgd.n_iter = self.apgd_targeted.n_iter = self.fab.n_iter = 10
            self.square.n_queries = 50
            return super().run_standard_evaluation(*args, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(package, "AutoAttack", Short)
        yield
