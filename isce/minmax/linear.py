"""Backward linear relaxation (CROWN) through a network: bounds of f_k - f_y over the l_inf ball within the pixel box.

A difference of logits is walked back to the image as a linear function that lies above it on the whole ball: an affine
layer carries the function exactly, ReLU and maximum give way to lines above or below them on the range of their
input. At the image the largest value on the box is read off entry by entry. From Zhang et al. 2018, "Efficient Neural
Network Robustness Certification with General Activation Functions" (ReLU, with the slope below chosen by the range);
the lines for a maximum are derived here.

The ranges come from intervals; where an affine layer feeds a ReLU or a maximum they are tightened by the same walk
back, for the entries that are not decided yet. An entry of a convolution depends on a patch of the map before it, so
its function is walked back on patches, which grow from layer to layer.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from isce.minmax.chain import AFFINE, Chain, bias_of
from isce.minmax.interval import highest, step
from isce.minmax.lines import Lines, lines_of, unfolded, windows
from isce.models.lipschitz import MaxMin

CHUNK = 2**20
"""Entries of a batch of linear functions that are walked back at once."""


class Rows(NamedTuple):
    """Linear functions of a layer's output, each for one image.

    Attributes:
        values: coefficients (P, D), or of a patch of a map (P, C, h, w).
        constant: heights at 0 (P,).
        image: which image each is for (P,).
        top: row of the map that a patch begins in (P,), may be negative; coefficients outside the map are 0.
        left: the same for columns.
    """

    values: Tensor
    constant: Tensor
    image: Tensor
    top: Tensor
    left: Tensor


def linear_bounds(parts: Chain, x: Tensor, y: Tensor, eps: float, *, tighten: bool = True) -> Tensor:
    """Bound f_k - f_y from above over the l_inf ball of radius ``eps`` around each image, within [0, 1].

    Args:
        parts: the network in float64, see :func:`isce.minmax.chain.double`.
        x: images (N, C, H, W) in [0, 1], float64.
        y: labels (N,), int64.
        eps: radius, in units of [0, 1].
        tighten: walk back from hidden layers too; without it their ranges are intervals, much cheaper and looser.

    Returns:
        (N, K), 0 at the label; never above what interval arithmetic gives.
    """
    ranges, lines = [parts.box(x, eps)], list[list[Lines]]()
    for place, layer in enumerate(parts.layers):
        low, high = ranges[-1]
        if isinstance(layer, (nn.ReLU, nn.MaxPool2d, MaxMin)):
            feeds = place > 0 and isinstance(parts.layers[place - 1], AFFINE)
            if tighten and feeds and any(lines):
                low, high = ranges[-1] = _tightened(parts.layers, place, lines, ranges)
            lines.append(lines_of(layer, low, high))
        else:
            lines.append([])
        ranges.append(step(layer, low, high))
    weight, bias = parts.differences(y)
    image = torch.arange(len(x), device=x.device).repeat_interleave(weight.shape[1])
    found = _walk(parts.layers, lines, ranges, weight.flatten(0, 1), image).view(bias.shape) + bias
    return torch.minimum(found, highest(weight, bias, *ranges[-1]))


def _tightened(
    layers: list[nn.Module], place: int, lines: list[list[Lines]], ranges: list[tuple[Tensor, Tensor]]
) -> tuple[Tensor, Tensor]:
    """Narrow the ranges of those entries of the layer at ``place`` that it and the next do not yet decide."""
    low, high = (end.clone() for end in ranges[place])
    undecided = _undecided(layers[place:], low, high).flatten(1).nonzero()
    if len(undecided) == 0:
        return low, high
    corner = None
    for image, entry in zip(*(part.split(CHUNK // 2**8) for part in undecided.unbind(1)), strict=True):
        channels, at = low.shape[1], entry
        if low.dim() == 4:
            height, width = low.shape[2:]
            at, corner = entry // (height * width), (entry // width % height, entry % width)
        rows = F.one_hot(at, channels).to(low)
        above, below = (_walk(layers[:place], lines, ranges, sign * rows, image, corner) for sign in (1, -1))
        for end, found, pick in ((high, above, torch.minimum), (low, -below, torch.maximum)):
            flat = end.view(len(end), -1)
            flat[image, entry] = pick(flat[image, entry], found)
    return low, high


def _undecided(ahead: list[nn.Module], low: Tensor, high: Tensor) -> Tensor:
    """Which entries' ranges matter: those that may be either side of 0, or may be the largest of their window."""
    layer = ahead[0]
    if isinstance(layer, nn.ReLU):
        return (low < 0) & (high > 0)
    if isinstance(layer, MaxMin):
        return torch.ones_like(low, dtype=torch.bool)
    lows, highs = windows(layer, low), windows(layer, high)
    floor = lows.amax(-1, keepdim=True)
    matters = highs >= floor
    several = matters.sum(-1, keepdim=True) > 1
    if len(ahead) > 1 and isinstance(ahead[1], nn.ReLU):
        matters &= (several | (floor < 0)) & (highs > 0)  # what is below 0 becomes 0
    else:
        matters &= several
    return unfolded(layer, matters, low.shape)


def _walk(
    layers: list[nn.Module],
    lines: list[list[Lines]],
    ranges: list[tuple[Tensor, Tensor]],
    values: Tensor,
    image: Tensor,
    corner: tuple[Tensor, Tensor] | None = None,
) -> Tensor:
    """Largest values on the box of linear functions of the last layer's output, through lines above them.

    Args:
        layers: from the image on.
        lines: of each layer, see :func:`~isce.minmax.lines.lines_of`; none for an affine one.
        ranges: of each layer's input, for all images; the first is the box.
        values: the functions' coefficients (P, D); with ``corner`` those of the channels at one place of a map.
        image: which image each of them is for (P,).
        corner: row and column of that place, each (P,).

    Returns:
        (P,) upper bounds.
    """
    zero = torch.zeros_like(image)
    top, left = corner or (zero, zero)
    values = values if corner is None else values[:, :, None, None]
    # As many at once as fit where the functions depend on most entries.
    largest = max(low[0].numel() for low, _ in ranges[: len(layers)])
    size = largest if corner is None else min(largest, 2**12)
    found = list[Tensor]()
    for some in zip(*(v.split(max(1, CHUNK // size)) for v in (values, image, top, left)), strict=True):
        rows = Rows(some[0], some[0].new_zeros(len(some[0])), *some[1:])
        for place in reversed(range(len(layers))):
            rows = _back(layers[place], lines[place], rows, ranges[place][0].shape[1:])
        low, high = (_taken(end, rows) for end in ranges[0])
        highest = rows.values.clamp(min=0) * high + rows.values.clamp(max=0) * low
        found.append(rows.constant + highest.flatten(1).sum(1))
    return torch.cat(found) if found else values.new_zeros(0)


def _back(layer: nn.Module, lines: list[Lines], rows: Rows, shape: torch.Size) -> Rows:
    """Functions of a layer's output as functions of its input, of ``shape``."""
    values, constant = rows.values, rows.constant
    if isinstance(layer, MaxMin):
        pairs = zip(values.chunk(2, 1), lines, strict=True)
        first, second = (
            _through(rows._replace(values=half), torch.cat([half, half], 1), one, 1) for half, one in pairs
        )
        return first._replace(values=first.values + second.values, constant=first.constant + second.constant - constant)
    if isinstance(layer, nn.MaxPool2d):
        size = int(layer.kernel_size)  # pyright: ignore[reportArgumentType] - see isce.minmax.chain
        spread = values.repeat_interleave(size, 2).repeat_interleave(size, 3)
        return _through(rows, spread, lines[0], size)
    if isinstance(layer, nn.ReLU):
        return _through(rows, values, lines[0], 1)
    if isinstance(layer, nn.Linear):
        constant = constant + values @ bias_of(layer)
        return rows._replace(values=values @ layer.weight, constant=constant)
    if isinstance(layer, nn.Conv2d):
        constant = constant + values.sum((2, 3)) @ bias_of(layer)
        (down, along), (above, before) = layer.stride, (int(pad) for pad in layer.padding)
        top, left = rows.top * down - above, rows.left * along - before
        return _cut(Rows(_transposed(values, layer), constant, rows.image, top, left), shape)
    return rows._replace(values=values.view(-1, *shape))


def _transposed(values: Tensor, layer: nn.Conv2d) -> Tensor:
    """The transposed convolution of patches, by a product of matrices: torch's own in float64 goes image by image."""
    (_, _, kernel_h, kernel_w), (down, along) = layer.weight.shape, layer.stride
    count, _, height, width = values.shape
    pieces = [
        block.permute(0, 2, 3, 1).flatten(0, 2) @ weight.permute(0, 2, 3, 1).flatten(1)
        for block, weight in zip(values.chunk(layer.groups, 1), layer.weight.chunk(layer.groups), strict=True)
    ]
    # Channels last: short rows of a patch are added as long ones.
    shaped = [piece.view(count, height, width, kernel_h, kernel_w, -1) for piece in pieces]
    spread = shaped[0] if len(shaped) == 1 else torch.cat(shaped, -1)
    found = values.new_zeros(count, (height - 1) * down + kernel_h, (width - 1) * along + kernel_w, layer.in_channels)
    for i in range(kernel_h):
        for j in range(kernel_w):
            found[:, i : i + down * height : down, j : j + along * width : along] += spread[:, :, :, i, j]
    return found.permute(0, 3, 1, 2)


def _cut(rows: Rows, shape: torch.Size) -> Rows:
    """Set coefficients outside the map to 0: there the padding stands, which is 0."""
    (_, inside_down), (_, inside_along) = (
        _places(start, size, limit)
        for start, size, limit in zip((rows.top, rows.left), rows.values.shape[2:], shape[1:], strict=True)
    )
    values = rows.values * inside_down[:, None, :, None] * inside_along[:, None, None, :]
    return rows._replace(values=values)


def _places(start: Tensor, size: int, limit: int) -> tuple[Tensor, Tensor]:
    """Rows (or columns) of the map that patches cover (P, size), held inside it; and which of them lie inside."""
    places = start[:, None] + torch.arange(size, device=start.device)
    return places.clamp(0, limit - 1), (places >= 0) & (places < limit)


def _taken(values: Tensor, rows: Rows) -> Tensor:
    """What a tensor with values for every image and entry (N, ...) holds where the functions have coefficients."""
    if rows.values.dim() == 2:
        return values[rows.image]
    channels, height, width = values.shape[1:]
    down, along = (
        _places(start, size, limit)[0]
        for start, size, limit in zip((rows.top, rows.left), rows.values.shape[2:], (height, width), strict=True)
    )
    channel = rows.image[:, None] * channels + torch.arange(channels, device=values.device)
    place = channel[:, :, None, None] * (height * width) + (down * width)[:, None, :, None] + along[:, None, None, :]
    return values.flatten()[place]


def _through(rows: Rows, spread: Tensor, lines: Lines, size: int) -> Rows:
    """Functions of a nonlinear layer's output as functions of its input that lie above.

    Args:
        rows: the functions.
        spread: for each input entry, the coefficient of the output that it is for.
        lines: of the layer.
        size: input rows, and columns, of the map for each of the output.
    """
    constant = rows.constant
    for part, offset in (
        (rows.values.clamp(min=0), lines.above_offset),
        (rows.values.clamp(max=0), lines.below_offset),
    ):
        if offset is not None:
            constant = constant + (part * _taken(offset, rows)).flatten(1).sum(1)
    wide = rows._replace(values=spread, constant=constant, top=rows.top * size, left=rows.left * size)
    slopes = torch.where(spread > 0, _taken(lines.above, wide), _taken(lines.below, wide))
    return wide._replace(values=spread * slopes)
