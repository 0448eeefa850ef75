"""Interval arithmetic through a network: bounds of every f_k - f_y over the l_inf ball within the pixel box.

A monotone layer carries the two ends of an interval, an affine one centre and radius (the radius by the absolute
weights: the exact range of each entry by itself). The last layer is taken as differences of its rows,
so that what all logits share cancels (Gowal et al. 2018, "On the Effectiveness of Interval Bound Propagation for
Training Verifiably Robust Models"). Costs two to three forward passes and is differentiable: what certified training
uses.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from isce.minmax.chain import Chain


def interval_bounds(parts: Chain, x: Tensor, y: Tensor, eps: float) -> Tensor:
    """Bound f_k - f_y from above over the l_inf ball of radius ``eps`` around each image, within [0, 1].

    Args:
        parts: the network, see :func:`isce.minmax.chain.chain`.
        x: images (N, C, H, W) in [0, 1], in the type of the network.
        y: labels (N,), int64.
        eps: radius, in units of [0, 1].

    Returns:
        (N, K), 0 at the label; differentiable in the network's weights. Rounding is not covered: see
        :func:`isce.minmax.certificates.upper_bounds`.
    """
    low, high = propagate(parts.layers, *parts.box(x, eps))
    return highest(*parts.differences(y), low, high)


def highest(weight: Tensor, bias: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """Largest values (N, K) of linear functions, weight (N, K, D), bias (N, K), on ranges of their entries (N, D)."""
    centre, radius = (low + high) / 2, (high - low) / 2
    return (weight @ centre.unsqueeze(2) + weight.abs() @ radius.unsqueeze(2)).squeeze(2) + bias


def propagate(layers: list[nn.Module], low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
    """Carry lower and upper ends of every entry through layers."""
    for layer in layers:
        low, high = step(layer, low, high)
    return low, high


def step(layer: nn.Module, low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
    """Carry lower and upper ends of every entry through one layer."""
    if isinstance(layer, nn.Conv2d):
        weight = layer.weight  # once: a parametrised weight is computed at each look
        centre = F.conv2d((low + high) / 2, weight, layer.bias, layer.stride, layer.padding, 1, layer.groups)
        radius = F.conv2d((high - low) / 2, weight.abs(), None, layer.stride, layer.padding, 1, layer.groups)
    elif isinstance(layer, nn.Linear):
        weight = layer.weight
        centre = F.linear((low + high) / 2, weight, layer.bias)
        radius = F.linear((high - low) / 2, weight.abs())
    else:
        return layer(low), layer(high)
    return centre - radius, centre + radius


def proves(upper: Tensor, y: Tensor) -> Tensor:
    """Which images upper bounds (N, K) of f_k - f_y prove for labels (N,): all below 0 but the label's; (N,)."""
    return upper.scatter(1, y.unsqueeze(1), -torch.inf).amax(1) < 0
