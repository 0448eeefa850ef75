"""A classifier with a detector of adversarial images on an intermediate layer (Metzen et al. 2017)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from isce.models.base import Backbone, Classifier
from isce.models.shallow import LeNet, SmallCNN

#: Networks that have the place for the branch, by their names in the registry.
GUARDABLE = ("lenet", "small-cnn")


class Guarded(Classifier):
    """A classifier and a branch that rejects images: C + 1 logits, of which the last stands for "rejected".

    The score of rejection is G = d(x) + max_k f_k(x), f the logits of the classes and d the branch's logit less
    :attr:`threshold`: the arg-max is rejection where d > 0, and the class that the classifier would give elsewhere.
    Carlini and Wagner (2017, "Adversarial Examples Are Not Easily Detected") join both so, but by (d + 1) max_k f_k,
    which rejects the wrong images where the largest logit is negative. The branch is one 3x3 convolution, ReLU,
    the mean over the image, and a linear layer. It sees what follows the second convolution, after its ReLU and
    pooling: of small-cnn what enters the third convolution, of lenet what enters the first full connection.

    Args:
        classifier: the network, whose parts it takes over; small-cnn or lenet.
        width: channels of the branch's convolution.

    Attributes:
        detector: the branch.
        threshold: float32 (), of the branch's logit; saved in the state dict.

    Raises:
        ValueError: another network.
    """

    rejects = True

    def __init__(self, classifier: Classifier, width: int) -> None:
        super().__init__(classifier.backbone, classifier.score_map)
        self.place, channels = _second_stage(classifier.backbone)
        self.detector = nn.Sequential(
            nn.Conv2d(channels, width, 3, padding=1),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(width, 1),
        )
        self.threshold: Tensor
        self.register_buffer("threshold", torch.zeros(()))

    @property
    def unguarded(self) -> Classifier:
        """The classifier without its detector: the same parts, C logits."""
        found = Classifier(self.backbone, self.score_map)
        found.training = self.training
        return found

    def inside(self, x: Tensor) -> Tensor:
        """What the branch sees of images (N, C, H, W) in [0, 1]."""
        return self.backbone.layers[: self.place](self.backbone.prepared(x))

    def evidence(self, inside: Tensor) -> Tensor:
        """The branch's logit (N,), before the threshold, of what :meth:`inside` gives.

        Raises:
            RuntimeError: the branch returns another shape.
        """
        found = self.detector(inside)
        if found.shape != (len(inside), 1):
            raise RuntimeError(f"the detector must return ({len(inside)}, 1), got {tuple(found.shape)}")
        return found[:, 0]

    def outputs(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Logits (N, C + 1) and embedding (N, D) of images."""
        inside = self.inside(x)
        embedding = self.backbone.embed(self.backbone.layers[self.place :](inside))
        logits = self.score_map(embedding)
        rejection = self.evidence(inside) - self.threshold + logits.amax(1)
        return torch.cat([logits, rejection[:, None]], 1), embedding


def _second_stage(backbone: Backbone) -> tuple[int, int]:
    """Number of layers up to the end of the second stage, and the channels that it has.

    Raises:
        ValueError: no such place.
    """
    if not isinstance(backbone, SmallCNN | LeNet):
        raise ValueError(f"a detector goes on {' or '.join(GUARDABLE)}, got {type(backbone).__name__}")
    layers = list(backbone.layers)
    second = [number for number, layer in enumerate(layers) if isinstance(layer, nn.Conv2d)][1]
    convolution = layers[second]
    assert isinstance(convolution, nn.Conv2d)
    end = second + 1
    while isinstance(layers[end], nn.ReLU | nn.MaxPool2d):
        end += 1
    return end, convolution.out_channels
