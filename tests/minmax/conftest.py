"""Small models that the min-max tests share."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import Tensor, nn

from isce.models import Backbone, Classifier, build


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
    """Makes a classifier of images (1, 1, D) with the scores weight @ image + bias and the image as embedding."""
    return _linear_classifier


@pytest.fixture(scope="session")
def digits():
    """Real digits, and a small network trained on them in a second: (classifier, x, y) with held-out images."""
    data = load_digits()
    images = torch.tensor(data.images / 16, dtype=torch.float32)[:, None]
    labels = torch.tensor(data.target)
    torch.manual_seed(0)
    backbone = build("small-cnn", input_shape=(1, 8, 8), mean=[0.305], std=[0.376], embedding_dim=32)
    classifier = Classifier(backbone, nn.Linear(32, 10))
    optimizer = torch.optim.Adam(classifier.parameters(), 3e-3)
    for _ in range(5):
        for batch in torch.randperm(1000).split(64):
            optimizer.zero_grad()
            F.cross_entropy(classifier(images[batch]), labels[batch]).backward()
            optimizer.step()
    return classifier.eval(), images[1400:1464], labels[1400:1464]
