"""Small models that the min-max tests share."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from trained import trained

from isce import data
from isce.models import Backbone, Classifier


class Pixels(Backbone):
    """The embedding is the image itself."""

    def __init__(self, shape):
        super().__init__(shape, [0.0] * shape[0], [1.0] * shape[0])
        self.embedding_dim = shape[0] * shape[1] * shape[2]

    def features(self, x: Tensor) -> Tensor:
        return x.flatten(1)


def _linear_classifier(weight: Tensor, bias: Tensor) -> Classifier:
    layer = nn.Linear(weight.shape[1], weight.shape[0]).to(weight.dtype)
    with torch.no_grad():
        layer.weight.copy_(weight)
        layer.bias.copy_(bias)
    return Classifier(Pixels((1, 1, weight.shape[1])), layer).to(weight.dtype).eval()


@pytest.fixture(scope="session")
def linear_classifier():
    """Makes a classifier of images (1, 1, D) with the logits weight @ image + bias and the image as embedding."""
    return _linear_classifier


@pytest.fixture(scope="session")
def digits():
    """A small network trained on digits, 64 images held out and their labels: (classifier, x, y)."""
    test = data.load("digits").test
    return trained("sce")[0], test.unit()[:64], test.labels[:64]
