"""Networks whose embedding is the image itself, small enough to compute by hand."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from isce.models import Backbone, Classifier
from isce.models.base import Shape


class Pixels(Backbone):
    """The embedding is the image."""

    def __init__(self, shape: Shape) -> None:
        super().__init__(shape, [0.0] * shape[0], [1.0] * shape[0])
        self.embedding_dim = math.prod(shape)

    def features(self, x: Tensor) -> Tensor:
        return x.flatten(1)


def around(score_map: nn.Module, shape: Shape) -> Classifier:
    """A classifier in float64 with the given map from pixels to logits."""
    return Classifier(Pixels(shape), score_map).double()


def linear(weight, bias=None, shape: Shape | None = None) -> Classifier:
    """A classifier, in float64, with the logits weight @ image + bias of images (1, 1, D), or of another shape."""
    weight = torch.as_tensor(weight, dtype=torch.float64)
    score_map = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None).double()
    with torch.no_grad():
        score_map.weight.copy_(weight)
        if bias is not None:
            score_map.bias.copy_(torch.as_tensor(bias))
    return around(score_map, shape or (1, 1, weight.shape[1]))
