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


@pytest.hookimpl(tryfirst=True)  # before xdist reads the groups
def pytest_collection_modifyitems(items):
    """Under `pytest -n` one process takes the tests of a file; those of tests/workflow share what one run has made.

    These come first, since they take longest: the other process does the rest meanwhile.
    """
    items.sort(key=lambda item: item.path.parent.name != "workflow")
    for item in items:
        name = "workflow" if item.path.parent.name == "workflow" else item.path.name
        item.add_marker(pytest.mark.xdist_group(name))
