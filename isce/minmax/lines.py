"""Lines below and above ReLU, maxima and sorted pairs on the ranges of their input, for ``isce.minmax.linear``.

ReLU as Zhang et al. 2018 (the slope below chosen by the range); the lines of a maximum are derived here.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from isce.models.lipschitz import MaxMin

_TINY = 1e-300  # in place of the width of a range that is a point


class Lines(NamedTuple):
    """Lines below and above each output of a nonlinear layer, on the ranges of its input.

    Attributes:
        below: slopes of the lines below in each input entry, shaped as the input (N, ...).
        above: slopes of the lines above.
        below_offset: heights at 0 of the lines below, shaped as the output; None: 0.
        above_offset: heights at 0 of the lines above.
    """

    below: Tensor
    above: Tensor
    below_offset: Tensor | None
    above_offset: Tensor


def lines_of(layer: nn.Module, low: Tensor, high: Tensor) -> list[Lines]:
    """Lines of a layer on the ranges of its input; of ``MaxMin`` those of its maxima and those of its minima."""
    if isinstance(layer, nn.ReLU):
        chord = high.clamp(min=0) / (high - low).clamp(min=_TINY)
        above = torch.where(low >= 0, 1.0, chord).where(high > 0, 0.0)
        return [Lines((high > -low).to(low), above, None, -above * low.clamp(max=0))]
    maxima = _maximum(layer, low, high)
    if not isinstance(layer, MaxMin):
        return [maxima]
    turned = _maximum(layer, -high, -low)  # min(a, b) = -max(-a, -b)
    zeros = torch.zeros_like(turned.above_offset)
    return [maxima, Lines(turned.above, turned.below, -turned.above_offset, zeros)]


def _maximum(layer: nn.Module, low: Tensor, high: Tensor) -> Lines:
    """Lines for the maximum over windows, see :func:`windows`.

    Below: the entry with the highest lower end. Above: with z_j the entry of the highest upper end and r the highest
    upper end of the others, the maximum is at most max(z_j, r), and that at most its chord on the range of z_j.
    """
    shape = low.shape
    low, high = windows(layer, low), windows(layer, high)
    top = high.topk(2, dim=-1)
    j, (end, rest) = top.indices[..., :1], top.values.unbind(-1)
    start = low.gather(-1, j).squeeze(-1)
    chord = (end - rest) / (end - start).clamp(min=_TINY)
    zeros = torch.zeros_like(low)
    above = zeros.scatter(-1, j, torch.where(start >= rest, 1.0, chord).unsqueeze(-1))
    below = zeros.scatter(-1, low.argmax(-1, keepdim=True), 1.0)
    offset = torch.where(start >= rest, 0.0, rest - chord * start)
    return Lines(unfolded(layer, below, shape), unfolded(layer, above, shape), None, offset)


def windows(layer: nn.Module, values: Tensor) -> Tensor:
    """The input entries that each maximum of a layer is taken over (N, ..., W)."""
    if isinstance(layer, MaxMin):
        return torch.stack(values.chunk(2, 1), -1)
    size = int(layer.kernel_size)  # pyright: ignore[reportArgumentType] - see isce.minmax.chain
    return values.unfold(2, size, size).unfold(3, size, size).flatten(-2)


def unfolded(layer: nn.Module, windows: Tensor, shape: torch.Size) -> Tensor:
    """Windows (N, ..., W) put back to a layer's input; entries in none are 0."""
    if isinstance(layer, MaxMin):
        return torch.cat(windows.unbind(-1), 1)
    size = int(layer.kernel_size)  # pyright: ignore[reportArgumentType] - see isce.minmax.chain
    count, channels, height, width = windows.shape[:4]
    found = windows.new_zeros(shape)
    blocks = windows.view(count, channels, height, width, size, size).transpose(3, 4)
    found[:, :, : height * size, : width * size] = blocks.reshape(count, channels, height * size, width * size)
    return found
