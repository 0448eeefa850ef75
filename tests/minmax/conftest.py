"""Small models that the min-max tests share."""

from __future__ import annotations

import pytest
from pixels import linear
from trained import trained

from isce import data


@pytest.fixture(scope="session")
def linear_classifier():
    """Makes a classifier of images (1, 1, D) with the logits weight @ image + bias and the image as embedding."""
    return lambda weight, bias: linear(weight, bias).eval()


@pytest.fixture(scope="session")
def digits():
    """A small network trained on digits, 64 images held out and their labels: (classifier, x, y)."""
    test = data.load("digits").test
    return trained("sce")[0], test.unit()[:64], test.labels[:64]
