"""A network on digits that some tests share."""

from __future__ import annotations

import pytest
from trained import trained

from isce import data
from isce.data.sets import stratified


@pytest.fixture(scope="session")
def digits_target():
    """100 test images of digits with labels, ten of each class, and a trained classifier."""
    digits = data.load("digits")
    test = digits.test.select(stratified(digits.test.labels, 100))
    return test.unit(), test.labels, trained("sce")[0].requires_grad_(requires_grad=False)


def pytest_collection_modifyitems(items):
    """Put tests/workflow first: these files take longest, and under ``pytest -n`` the other process does the rest."""
    items.sort(key=lambda item: item.path.parent.name != "workflow")
