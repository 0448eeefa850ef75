"""Networks that are 1-Lipschitz in l_2 by construction, so that a margin of the logits is a certificate."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrize
from torch.nn.utils.parametrizations import orthogonal

from isce.models.base import Backbone, Shape


class MaxMin(nn.Module):
    """max(a, b) and min(a, b) of the two halves of the channels: 1-Lipschitz, and keeps lengths of gradients.

    Of Anil, Lucas and Grosse (ICML 2019, "Sorting Out Lipschitz Function Approximation").
    """

    def forward(self, x: Tensor) -> Tensor:
        """``x`` (N, 2C, ...): the C maxima, then the C minima."""
        first, second = x.chunk(2, 1)
        return torch.cat([torch.maximum(first, second), torch.minimum(first, second)], 1)


class AlmostOrthogonal(nn.Module):
    """Rescales the input channels of a convolution so that its l_2 operator norm is at most 1, for any image size.

    Channel j is divided by sqrt(sum_i |(W^T W)_ij|), the sum over all shifts too; a stride only leaves rows out. Of
    Prach and Lampert (ECCV 2022, "Almost-Orthogonal Layers for Efficient General-Purpose Lipschitz Networks").
    """

    def forward(self, weight: Tensor) -> Tensor:
        """``weight`` (out, in, k, k) rescaled."""
        turned = weight.transpose(0, 1)
        overlaps = F.conv2d(turned, turned, padding=weight.shape[2] - 1).abs().sum((1, 2, 3))
        return weight * overlaps.clamp(min=torch.finfo(weight.dtype).tiny).rsqrt()[:, None, None]


class _Lipschitz(Backbone):
    """What the 1-Lipschitz networks share: images that are centred alone, an even width, and an orthogonal score map.

    An image is not divided by its deviation, which would multiply the constant.
    """

    def __init__(
        self, input_shape: Shape, mean: Sequence[float], std: Sequence[float], embedding_dim: int | None
    ) -> None:
        super().__init__(input_shape, mean, [1.0] * len(std))
        self.width = 256 if embedding_dim is None else embedding_dim
        if self.width % 2:
            raise ValueError(f"embedding_dim of a 1-Lipschitz network must be even, got {embedding_dim}")

    def scores(self, score_map: nn.Module) -> nn.Module:
        """The objective's linear map, made orthogonal: a difference of two logits then moves by sqrt(2) at most."""
        if type(score_map) is not nn.Linear:
            raise ValueError(f"a 1-Lipschitz network needs linear logits, got {type(score_map).__name__}")
        return _orthogonal(score_map)


class LipschitzDense(_Lipschitz):
    """Orthogonal dense layers with :class:`MaxMin`: 1-Lipschitz in l_2, from the image in pixel units to the logits.

    Three hidden layers of 256 units. Orthogonal by the Cayley map of :mod:`torch.nn.utils.parametrizations`. The image
    is centred alone.

    Args:
        input_shape: channels, height and width of an image.
        mean: see :class:`~isce.models.base.Backbone`.
        std: not used.
        embedding_dim: width of the hidden layers, an even number; None: 256.

    Raises:
        ValueError: an odd width.
    """

    def __init__(
        self, input_shape: Shape, mean: Sequence[float], std: Sequence[float], embedding_dim: int | None = None
    ) -> None:
        super().__init__(input_shape, mean, std, embedding_dim)
        layers: list[nn.Module] = [nn.Flatten()]
        for inputs in (math.prod(self.input_shape), self.width, self.width):
            layers += [_orthogonal(nn.Linear(inputs, self.width)), MaxMin()]
        self._set_layers(layers, self.width, None)


class LipschitzCNN(_Lipschitz):
    """Two strided 4x4 convolutions (16, 32 channels, :class:`AlmostOrthogonal`), then an orthogonal hidden layer.

    As :class:`LipschitzDense` 1-Lipschitz in l_2, with :class:`MaxMin` after each layer.

    Args:
        input_shape: channels, height and width, at least 4 by 4.
        mean: see :class:`~isce.models.base.Backbone`.
        std: not used.
        embedding_dim: width of the hidden layer, an even number; None: 256.

    Raises:
        ValueError: an odd width, or images smaller than 4 by 4.
    """

    def __init__(
        self, input_shape: Shape, mean: Sequence[float], std: Sequence[float], embedding_dim: int | None = None
    ) -> None:
        super().__init__(input_shape, mean, std, embedding_dim)
        channels, height, breadth = self._at_least(4, "lipschitz-cnn")
        layers = list[nn.Module]()
        for inputs, outputs in ((channels, 16), (16, 32)):
            layer = nn.Conv2d(inputs, outputs, 4, stride=2, padding=1)
            layers += [parametrize.register_parametrization(layer, "weight", AlmostOrthogonal()), MaxMin()]
        inside = 32 * (height // 2 // 2) * (breadth // 2 // 2)
        layers += [nn.Flatten(), _orthogonal(nn.Linear(inside, self.width)), MaxMin()]
        self._set_layers(layers, self.width, None)


def plain(network: nn.Module) -> None:
    """Put computed weights in the place of parametrised ones, as they are: a network to use, not to train further."""
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear) and parametrize.is_parametrized(layer, "weight"):
            parametrize.remove_parametrizations(layer, "weight", leave_parametrized=True)
            layer.weight = nn.Parameter(layer.weight.detach())


def _orthogonal(layer: nn.Linear) -> nn.Module:
    nn.init.orthogonal_(layer.weight)
    return orthogonal(layer, orthogonal_map="cayley")
