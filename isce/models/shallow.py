"""Small convolutional networks for digits and MNIST (and for quick trials on CIFAR-10)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import ClassVar

from torch import nn

from isce.models.base import Backbone, Shape


class SmallCNN(Backbone):
    """Three 3x3 convolutions (16, 32, 64 channels) with ReLU, then one linear layer to the embedding.

    A 2x2 max pooling follows a convolution while the images are wider than 4 pixels, so that 8x8, 28x28 and 32x32
    images all end at 3x3 or 4x4; about 100,000 to 160,000 parameters. Every layer has a Lipschitz constant that is
    simple to bound, and the embedding has no activation, so that it can reach class means anywhere in space.
    Derived here; no paper's network.

    Args:
        input_shape: channels, height and width, at least 4 by 4.
        mean: see :class:`~isce.models.base.Backbone`.
        std: see :class:`~isce.models.base.Backbone`.
        embedding_dim: width of the embedding; None: 128.

    Raises:
        ValueError: images smaller than 4 by 4.
    """

    name: ClassVar[str] = "small-cnn"
    pooling: ClassVar[type[nn.Module]] = nn.MaxPool2d
    activation: ClassVar[type[nn.Module]] = nn.ReLU

    def __init__(
        self, input_shape: Shape, mean: Sequence[float], std: Sequence[float], embedding_dim: int | None = None
    ) -> None:
        super().__init__(input_shape, mean, std)
        channels, height, width = self._at_least(4, self.name)
        layers: list[nn.Module] = []
        for out in (16, 32, 64):
            layers.append(nn.Conv2d(channels, out, 3, padding=1))
            if min(height, width) > 4:
                # A quarter of the work; with max pooling and ReLU the same values as in the other order.
                layers.append(self.pooling(2))
                height, width = height // 2, width // 2
            layers.append(self.activation())
            channels = out
        self._set_layers(
            [*layers, nn.Flatten()], channels * height * width, 128 if embedding_dim is None else embedding_dim
        )


class EluCNN(SmallCNN):
    """``small-cnn`` made smooth: average pooling for max pooling, then ELU (Clevert et al. 2016) for ReLU.

    Its gradient with respect to the image is Lipschitz, as the guarantee of Sinha et al. (2018) needs it. Arguments and
    errors as :class:`SmallCNN`.
    """

    name = "elu-cnn"
    pooling = nn.AvgPool2d
    activation = nn.ELU


class LeNet(Backbone):
    """LeNet-5 (LeCun et al. 1998) in its common modern form: ReLU, max pooling, full connections between all maps.

    With 10 linear outputs on 28x28 grey images it has 61,706 parameters. The embedding is the second hidden layer
    (84 units, after its ReLU), or one more linear layer without activation where ``embedding_dim`` is given.

    Args:
        input_shape: channels, height and width, at least 12 by 12.
        mean: see :class:`~isce.models.base.Backbone`.
        std: see :class:`~isce.models.base.Backbone`.
        embedding_dim: width of an extra linear layer; None: no extra layer, 84 values.

    Raises:
        ValueError: images smaller than 12 by 12.
    """

    def __init__(
        self, input_shape: Shape, mean: Sequence[float], std: Sequence[float], embedding_dim: int | None = None
    ) -> None:
        super().__init__(input_shape, mean, std)
        channels, height, width = self._at_least(12, "lenet")
        inside = (height // 2 - 4) // 2 * ((width // 2 - 4) // 2)
        layers = [
            nn.Conv2d(channels, 6, 5, padding=2),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(6, 16, 5),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Linear(16 * inside, 120),
            nn.ReLU(),
            nn.Linear(120, 84),
            nn.ReLU(),
        ]
        self._set_layers(layers, 84, embedding_dim)


class IntervalCNN(Backbone):
    """Two strided 4x4 convolutions (32, 64 channels) and a hidden layer, all with ReLU: made for interval bounds.

    No pooling: the bounds of a maximum are loose. Weights start as those of Shi et al. (NeurIPS 2021, "Fast Certified
    Robust Training with Short Warmup"): normal with deviation sqrt(2 pi) / fan-in, so that the width of an interval
    neither grows nor fades from layer to layer. Biases start at 0. 435,000 weights on 28x28 grey images.

    Args:
        input_shape: channels, height and width, at least 4 by 4.
        mean: see :class:`~isce.models.base.Backbone`.
        std: see :class:`~isce.models.base.Backbone`.
        embedding_dim: width of the hidden layer; None: 128.

    Raises:
        ValueError: images smaller than 4 by 4.
    """

    def __init__(
        self, input_shape: Shape, mean: Sequence[float], std: Sequence[float], embedding_dim: int | None = None
    ) -> None:
        super().__init__(input_shape, mean, std)
        channels, height, width = self._at_least(4, "interval-cnn")
        hidden = 128 if embedding_dim is None else embedding_dim
        inside = 64 * (height // 2 // 2) * (width // 2 // 2)
        layers = [
            nn.Conv2d(channels, 32, 4, stride=2, padding=1),
            nn.ReLU(),
            nn.Conv2d(32, 64, 4, stride=2, padding=1),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(inside, hidden),
            nn.ReLU(),
        ]
        for layer in layers:
            if isinstance(layer, nn.Conv2d | nn.Linear):
                nn.init.normal_(layer.weight, 0, math.sqrt(2 * math.pi) / layer.weight[0].numel())
                assert layer.bias is not None
                nn.init.zeros_(layer.bias)
        self._set_layers(layers, hidden, None)
