"""Networks whose embedding is the image, and batches for them."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from isce import losses
from isce.defences import Batch
from isce.models import Backbone, Classifier


class Pixels(Backbone):
    """The embedding is the image itself."""

    def __init__(self, size: int) -> None:
        super().__init__((1, 1, size), [0.0], [1.0])
        self.embedding_dim = size

    def features(self, x: Tensor) -> Tensor:
        return x.flatten(1)


def around(score_map: nn.Module, size: int) -> Classifier:
    """A classifier of images (1, 1, size) in float64 with the given map from pixels to logits."""
    return Classifier(Pixels(size), score_map).double()


def linear(weight: Tensor, bias: Tensor) -> Classifier:
    """A classifier with the logits weight @ image + bias."""
    layer = nn.Linear(weight.shape[1], weight.shape[0]).double()
    with torch.no_grad():
        layer.weight.copy_(weight)
        layer.bias.copy_(bias)
    return around(layer, weight.shape[1])


def batch(classifier: Classifier, x: Tensor, y: Tensor, objective: str = "sce", seed: int = 0) -> Batch:
    """A batch of the given images, halfway through a run."""

    def outputs(point: Tensor) -> tuple[Tensor, Tensor]:
        return classifier(point, return_embedding=True)

    draws = torch.Generator().manual_seed(seed)
    classes = classifier(x).shape[1]
    return Batch(x, y, classifier, outputs, losses.build(objective), draws, classes, 0.5)


def points(number: int, size: int, classes: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Images (number, 1, 1, size) in [0, 1], float64, and labels."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.rand(number, 1, 1, size, generator=generator, dtype=torch.float64)
    return x, torch.randint(classes, (number,), generator=generator)
