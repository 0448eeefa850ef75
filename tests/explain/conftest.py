"""Small classifiers whose every derivative is known."""

import pytest
import torch
from torch import nn


class Linear(nn.Module):
    """Logits W x + b of the flat image; the embedding is the flat image itself."""

    def __init__(self, weight, bias=None):
        super().__init__()
        self.weight = nn.Parameter(torch.as_tensor(weight, dtype=torch.float32))
        self.bias = nn.Parameter(torch.zeros(len(self.weight)) if bias is None else torch.as_tensor(bias))

    def forward(self, x, return_embedding=False):
        embedding = x.flatten(1)
        logits = embedding @ self.weight.T + self.bias
        return (logits, embedding) if return_embedding else logits


@pytest.fixture
def linear():
    """Three classes, images of 1x2x2, weights of very different size."""
    return Linear([[1.0, -2.0, 0.5, 0.0], [0.0, 1.0, -1.0, 0.25], [-0.5, 0.0, 0.5, -1.0]]).eval()


@pytest.fixture
def two_classes():
    """Two classes with a difference of weights that has no zero."""
    return Linear([[1.0, -2.0, 0.5, -0.25], [0.0, 1.0, -1.0, 0.25]], [0.0, 1.0]).eval()


@pytest.fixture
def images(linear):
    """Twelve images inside the box and the classes that the linear model gives them."""
    x = torch.rand(12, 1, 2, 2, generator=torch.Generator().manual_seed(3)) * 0.8 + 0.1
    return x, linear(x).argmax(1)
