"""Residual networks for CIFAR-10: pre-activation ResNets, of depth 32 in the script released with I-SCE; ResNet-18."""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from isce.models.base import Backbone, BatchNorm, Shape

WIDTHS = (16, 32, 64)


def _conv(channels: int, out: int, stride: int, size: int = 3) -> nn.Conv2d:
    return nn.Conv2d(channels, out, size, stride, padding=size // 2, bias=False)


class PreActivationBlock(nn.Module):
    """Two 3x3 convolutions, each after normalisation and ReLU, and a shortcut without weights (He et al. 2016).

    Where the block halves the image and doubles the channels, the shortcut averages 2x2 pixels and pads with zero
    channels, half below and half above, as in the released script. The first block of a network follows a normalised
    and rectified convolution, and so leaves out its own first normalisation.
    """

    def __init__(self, channels: int, out: int, *, first: bool, batch_statistics: bool) -> None:
        super().__init__()
        self.stride = out // channels
        self.pad = (out - channels) // 2
        self.norm1 = nn.Identity() if first else nn.Sequential(BatchNorm(channels, batch_statistics), nn.ReLU())
        self.conv1 = _conv(channels, out, self.stride)
        self.norm2 = nn.Sequential(BatchNorm(out, batch_statistics), nn.ReLU())
        self.conv2 = _conv(out, out, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(N, channels, H, W) to (N, out, H / stride, W / stride)."""
        shortcut = x if self.stride == 1 else F.pad(F.avg_pool2d(x, 2), (0, 0, 0, 0, self.pad, self.pad))
        return shortcut + self.conv2(self.norm2(self.conv1(self.norm1(x))))


class PreActivationResNet(Backbone):
    """Pre-activation ResNet of depth 6 n + 2, 32 in the released script, with 16, 32 and 64 channels (He et al. 2016).

    Three stages of n blocks, global average pooling, and where ``embedding_dim`` is given one more linear layer without
    activation (64 in the released script, 256 for MMC). With 10 linear outputs and no such layer: 0.27, 0.46 and 1.7
    million parameters at depth 20, 32 and 110.

    Args:
        depth: 6 n + 2; counts the convolutions of the main path and the layer of logits.
        input_shape: channels, height and width; both sides multiples of 4.
        mean: see :class:`~isce.models.base.Backbone`.
        std: see :class:`~isce.models.base.Backbone`.
        embedding_dim: width of the extra layer; None: no extra layer, 64 values.
        batch_statistics: normalise by the statistics of the batch at hand in evaluation mode too, as released.

    Raises:
        ValueError: a side of the images isn't a multiple of 4, or ``depth`` isn't 6 n + 2.
    """

    def __init__(
        self,
        depth: int,
        input_shape: Shape,
        mean: Sequence[float],
        std: Sequence[float],
        embedding_dim: int | None = None,
        batch_statistics: bool = False,
    ) -> None:
        super().__init__(input_shape, mean, std)
        channels, height, width = self.input_shape
        if height % 4 or width % 4:
            raise ValueError(f"a pre-activation ResNet needs sides that are multiples of 4, got {height}x{width}")
        blocks, rest = divmod(depth - 2, 6)
        if blocks < 1 or rest:
            raise ValueError(f"depth must be 6 n + 2 with n at least 1, got {depth}")
        layers: list[nn.Module] = [_conv(channels, WIDTHS[0], 1), BatchNorm(WIDTHS[0], batch_statistics), nn.ReLU()]
        before = WIDTHS[0]
        for out in WIDTHS:
            for _ in range(blocks):
                first = len(layers) == 3
                layers.append(PreActivationBlock(before, out, first=first, batch_statistics=batch_statistics))
                before = out
        layers += [BatchNorm(before, batch_statistics), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
        self._set_layers(layers, before, embedding_dim)
        _initialise(self)


class BasicBlock(nn.Module):
    """Two 3x3 convolutions, each before normalisation; ReLU after the sum; 1x1 convolution as the shortcut that changes
    shape (He et al. 2015, option B).
    """  # noqa: D205

    def __init__(self, channels: int, out: int, stride: int, batch_statistics: bool) -> None:
        super().__init__()
        self.main = nn.Sequential(
            _conv(channels, out, stride),
            BatchNorm(out, batch_statistics),
            nn.ReLU(),
            _conv(out, out, 1),
            BatchNorm(out, batch_statistics),
        )
        self.shortcut = (
            nn.Identity()
            if (channels, stride) == (out, 1)
            else nn.Sequential(_conv(channels, out, stride, size=1), BatchNorm(out, batch_statistics))
        )

    def forward(self, x: Tensor) -> Tensor:
        """(N, channels, H, W) to (N, out, H / stride, W / stride)."""
        return F.relu(self.main(x) + self.shortcut(x))


class ResNet18(Backbone):
    """ResNet-18 (He et al. 2015) in its common form for 32x32 images: 3x3 stem of stride 1, no pooling at the start.

    Four stages of two blocks with 64, 128, 256 and 512 channels, global average pooling; 11.17 million parameters with
    10 linear outputs.

    Args:
        input_shape: channels, height and width.
        mean: see :class:`~isce.models.base.Backbone`.
        std: see :class:`~isce.models.base.Backbone`.
        embedding_dim: width of an extra linear layer; None: no extra layer, 512 values.
        batch_statistics: see :class:`PreActivationResNet`.
    """

    def __init__(
        self,
        input_shape: Shape,
        mean: Sequence[float],
        std: Sequence[float],
        embedding_dim: int | None = None,
        batch_statistics: bool = False,
    ) -> None:
        super().__init__(input_shape, mean, std)
        layers: list[nn.Module] = [_conv(self.input_shape[0], 64, 1), BatchNorm(64, batch_statistics), nn.ReLU()]
        before = 64
        for out in (64, 128, 256, 512):
            layers.append(BasicBlock(before, out, 1 if out == 64 else 2, batch_statistics))
            layers.append(BasicBlock(out, out, 1, batch_statistics))
            before = out
        self._set_layers([*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten()], before, embedding_dim)
        _initialise(self)


def _initialise(network: nn.Module) -> None:
    """Convolutions as in He et al. 2015 (fan out); the rest as torch does it."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
