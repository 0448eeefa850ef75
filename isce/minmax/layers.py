"""Sound bounds of how far one layer carries a change: entry by entry, and in l_2 (derived here unless said).

Every rule takes the layer and the largest absolute change v of each entry of its input, float64 (1, ...); it returns
the same for its output, and an upper bound of the layer's l_2 Lipschitz constant. Layers that are not in ``LAYERS`` are
refused: no guess is sound.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from isce.models.base import BatchNorm
from isce.models.lipschitz import MaxMin

Rule = Callable[[Any, Tensor], tuple[Tensor, float]]


def conv_norm(weight: Tensor, height: int, width: int, stride: int = 1, groups: int = 1) -> float:
    """Upper bound of the l_2 operator norm of a zero-padded convolution.

    With stride s the input splits into s x s phases, on which the operator is a convolution of stride 1 with s^2
    times the channels. Its outputs read the padded input only, without wrapping around: it is a restriction of the
    circular convolution on a torus of the padded input's size. The norm of that is the largest singular value over the
    Fourier frequencies (Sedghi, Gupta and Long 2019), so an upper bound, close to exact on images much larger than the
    kernel.

    Args:
        weight: (out, in / groups, kh, kw); a dilated kernel with its zeros written out.
        height: height of the input with its padding.
        width: width of the input with its padding.
        stride: the same along both axes.
        groups: of channels, as ``torch.nn.Conv2d``.

    Returns:
        The bound; exact eigenvalues up to rounding, not power iteration, which errs on the unsound side. Takes well
        under a second for the convolutions of small networks, and tens of seconds for all of ResNet-18's.
    """
    reach_h, reach_w = -weight.shape[2] % stride, -weight.shape[3] % stride
    kernel = F.pixel_unshuffle(F.pad(weight.detach().double(), (0, reach_w, 0, reach_h)), stride)
    torus = math.ceil(height / stride), math.ceil(width / stride)
    largest = 0.0
    for block in kernel.chunk(groups):
        matrices = torch.fft.rfft2(block, s=torus).flatten(2).permute(2, 0, 1)
        if matrices.shape[1] > matrices.shape[2]:
            matrices = matrices.mH
        largest = max(largest, float(torch.linalg.eigvalsh(matrices @ matrices.mH)[:, -1].max()))
    return math.sqrt(max(largest, 0.0))


def _conv(layer: nn.Conv2d, v: Tensor) -> tuple[Tensor, float]:
    if layer.padding_mode != "zeros" or isinstance(layer.padding, str):
        raise ValueError(f"no Lipschitz bound for a convolution with padding {layer.padding!r} ({layer.padding_mode})")
    if layer.stride[0] != layer.stride[1] or layer.dilation != (1, 1):
        raise ValueError(f"no Lipschitz bound for stride {layer.stride} with dilation {layer.dilation}")
    weight, (pad_h, pad_w) = layer.weight.detach().double(), layer.padding
    carried = F.conv2d(v, weight.abs(), None, layer.stride, layer.padding, layer.dilation, layer.groups)
    height, width = v.shape[2] + 2 * pad_h, v.shape[3] + 2 * pad_w
    return carried, conv_norm(weight, height, width, layer.stride[0], layer.groups)


def _linear(layer: nn.Linear, v: Tensor) -> tuple[Tensor, float]:
    weight = layer.weight.detach().double()
    return F.linear(v, weight.abs()), float(torch.linalg.matrix_norm(weight, ord=2))


def _batch_norm(layer: nn.BatchNorm2d, v: Tensor) -> tuple[Tensor, float]:
    if layer.running_var is None:
        raise ValueError("no Lipschitz bound: batch normalisation on batch statistics mixes the images of a batch")
    gain = torch.rsqrt(layer.running_var.detach().double() + layer.eps)
    if layer.affine:
        gain = gain * layer.weight.detach().double().abs()
    return v * gain[:, None, None], float(gain.max())


def _unchanged(layer: nn.Module, v: Tensor) -> tuple[Tensor, float]:
    """ReLU, flatten: no entry moves further than it did, and v stays v."""
    return layer(v), 1.0


def _elu(layer: nn.ELU, v: Tensor) -> tuple[Tensor, float]:
    """Slope 1 above 0, at most abs(alpha) below."""
    factor = max(1.0, abs(layer.alpha))
    if layer.inplace and factor > 1:
        raise ValueError(f"no Lipschitz bound for {layer}: another branch may read what it overwrites")
    return factor * v, factor


def _max_min(layer: MaxMin, v: Tensor) -> tuple[Tensor, float]:
    """Both outputs move by at most what the one input or the other does; sorting two numbers keeps l_2 distances."""
    if v.shape[1] % 2:
        raise ValueError(f"no Lipschitz bound for MaxMin of {v.shape[1]} channels, which are no pairs")
    first, second = v.chunk(2, 1)
    largest = torch.maximum(first, second)
    return torch.cat([largest, largest], 1), 1.0


def _max_pool(layer: nn.MaxPool2d, v: Tensor) -> tuple[Tensor, float]:
    """Each output is 1-Lipschitz in its window, and an entry stands in at most ``_windows`` windows."""
    if layer.dilation not in (1, (1, 1)):
        raise ValueError(f"no Lipschitz bound for max pooling with dilation {layer.dilation}")
    return layer(v), math.sqrt(_windows(layer))


def _avg_pool(layer: nn.AvgPool2d, v: Tensor) -> tuple[Tensor, float]:
    """||A||_2^2 <= ||A||_1 ||A||_inf: rows sum to at most 1, columns to at most windows / area."""
    # With ceil_mode a window over the edge is divided by the part of it that lies inside.
    if layer.divisor_override is not None or not layer.count_include_pad or layer.ceil_mode:
        raise ValueError("no Lipschitz bound for average pooling with another divisor than the window's area")
    area = math.prod(_pair(layer.kernel_size))
    return layer(v), math.sqrt(_windows(layer) / area)


def _global_avg_pool(layer: nn.AdaptiveAvgPool2d, v: Tensor) -> tuple[Tensor, float]:
    if _pair(layer.output_size) != (1, 1):
        raise ValueError(f"no Lipschitz bound for adaptive average pooling to {layer.output_size}; known: 1")
    return layer(v), 1 / math.sqrt(v.shape[2] * v.shape[3])


def _windows(layer: nn.MaxPool2d | nn.AvgPool2d) -> int:
    """Largest number of pooling windows that one entry stands in."""
    pairs = zip(_pair(layer.kernel_size), _pair(layer.stride), strict=True)
    return math.prod(math.ceil(size / step) for size, step in pairs)


def _pair(value: Any) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else (int(value[0]), int(value[1]))


LAYERS: dict[type[nn.Module], Rule] = {
    nn.AdaptiveAvgPool2d: _global_avg_pool,
    nn.AvgPool2d: _avg_pool,
    BatchNorm: _batch_norm,
    nn.BatchNorm2d: _batch_norm,
    nn.Conv2d: _conv,
    nn.ELU: _elu,
    nn.Flatten: _unchanged,
    nn.Identity: _unchanged,
    nn.Linear: _linear,
    nn.MaxPool2d: _max_pool,
    MaxMin: _max_min,
    nn.ReLU: _unchanged,
}
