"""A classifier as a chain of layers that bounds can be carried through, from the image to differences of logits."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import is_parametrized, type_before_parametrizations

from isce.losses.gaussian import GaussianScores, SimplexScores
from isce.minmax.checks import check_evaluation, check_methods
from isce.models import Backbone, Classifier
from isce.models.lipschitz import MaxMin

AFFINE = (nn.Conv2d, nn.Linear)
MONOTONE = (nn.ReLU, nn.MaxPool2d, MaxMin, nn.Flatten, nn.Identity)
"""Layers whose outputs never fall when an input rises: they map the bounds of their input to bounds of their output."""


@dataclass(frozen=True)
class Chain:
    """A classifier in parts.

    Attributes:
        mean: subtracted from an image, then divided by ``std``; both (C, 1, 1).
        std: see ``mean``.
        layers: of the backbone, each of ``AFFINE`` or ``MONOTONE``.
        weight: (K, D): every difference f_k - f_y is (w_k - w_y) h + b_k - b_y of the embedding h.
        bias: (K,), see ``weight``.
    """

    mean: Tensor
    std: Tensor
    layers: list[nn.Module]
    weight: Tensor
    bias: Tensor

    def differences(self, y: Tensor) -> tuple[Tensor, Tensor]:
        """Weight (N, K, D) and bias (N, K) of the differences f_k - f_y for labels (N,)."""
        return self.weight - self.weight[y].unsqueeze(1), self.bias - self.bias[y].unsqueeze(1)

    def exact(self, x: Tensor, y: Tensor) -> Tensor:
        """The differences f_k - f_y (N, K) at the images themselves."""
        h = (x - self.mean) / self.std
        for layer in self.layers:
            h = layer(h)
        weight, bias = self.differences(y)
        return (weight @ h.unsqueeze(2)).squeeze(2) + bias

    def box(self, x: Tensor, eps: float) -> tuple[Tensor, Tensor]:
        """Lowest and highest normalised pixels of the l_inf balls around images (N, C, H, W), within [0, 1]."""
        low, high = (x - eps).clamp(0, 1), (x + eps).clamp(0, 1)
        return (low - self.mean) / self.std, (high - self.mean) / self.std


def chain(classifier: Classifier) -> Chain:
    """Take a classifier apart; what it holds are its own tensors, with their gradients.

    Raises:
        ValueError: a layer, a score map, a normalisation or a network without bounds, by its name.
    """
    backbone = classifier.backbone
    if classifier.batch_dependent:
        raise ValueError("no bounds: with batch statistics an image's logits depend on the rest of the batch")
    if backbone.mean_image is not None:
        raise ValueError("no bounds: the released normalisation divides each image by its own deviation")
    check_methods(classifier)
    if type(backbone).features is not Backbone.features or type(backbone.layers) is not nn.Sequential:
        raise ValueError(f"no bounds for {type(backbone).__name__}: it is no chain of layers")
    layers = [layer for layer in (*backbone.layers, backbone.embed) if type(layer) is not nn.Identity]
    for layer in layers:
        _check(layer)
    return Chain(backbone.mean, backbone.std, layers, *difference_map(classifier.score_map))


def double(classifier: Classifier) -> Chain:
    """Take a classifier in evaluation mode apart, in float64 and without gradients.

    Raises:
        ValueError: see :func:`chain`; or the classifier is in training mode.
    """
    check_evaluation(classifier)
    parts = chain(classifier)
    with torch.no_grad():
        layers = [_copy(layer) for layer in parts.layers]
    tensors = (parts.mean, parts.std, parts.weight, parts.bias)
    mean, std, weight, bias = (tensor.detach().double() for tensor in tensors)
    return Chain(mean, std, layers, weight, bias)


def widened(classifier: Classifier) -> Classifier:
    """A copy of a classifier in float64, also where it is no chain; a computed weight stays as computed in float32."""
    copy = deepcopy(classifier)
    for name, layer in classifier.named_modules():
        if isinstance(layer, AFFINE) and is_parametrized(layer):
            copy.set_submodule(name, _copy(layer))
    return copy.double()


def _copy(layer: nn.Module) -> nn.Module:
    """A layer in float64 with plain weights; one without weights is itself, but a ReLU never works in place.

    In place it would overwrite the range of its input, which linear bounds still need.
    """
    if isinstance(layer, nn.ReLU):
        return nn.ReLU()
    if isinstance(layer, nn.Conv2d):
        spec = (layer.in_channels, layer.out_channels, layer.kernel_size, layer.stride, layer.padding)
        copy: nn.Conv2d | nn.Linear = nn.Conv2d(*spec, groups=layer.groups)  # pyright: ignore[reportArgumentType]
    elif isinstance(layer, nn.Linear):
        copy = nn.Linear(layer.in_features, layer.out_features)
    else:
        return layer
    copy = copy.double().to(layer.weight.device).requires_grad_(False)
    copy.weight.copy_(layer.weight)
    copy.bias = nn.Parameter(bias_of(layer).detach().double(), requires_grad=False)
    return copy.eval()


def bias_of(layer: nn.Conv2d | nn.Linear) -> Tensor:
    """The bias of a layer (out,); zeros where it has none."""
    bias: Tensor | None = layer.bias
    return layer.weight.new_zeros(len(layer.weight)) if bias is None else bias


def difference_map(score_map: nn.Module) -> tuple[Tensor, Tensor]:
    """Weight (K, D) and bias (K,) whose differences are those of the logits.

    For logits -c ||h - mu_k||^2 the squares of h cancel in a difference: weight 2 c mu, bias -c ||mu||^2.

    Raises:
        ValueError: a map of another type.
    """
    if isinstance(score_map, nn.Linear) and type_before_parametrizations(score_map) is nn.Linear:
        return score_map.weight, bias_of(score_map)
    if type(score_map) is SimplexScores:
        return 2 * score_map.centres, -score_map.centres.square().sum(1)
    if type(score_map) is GaussianScores and score_map.log_variance is None:
        return score_map.means, -score_map.means.square().sum(1) / 2
    raise ValueError(
        f"no bounds for the score map {type(score_map).__name__}; "
        "known: Linear, SimplexScores, GaussianScores with the identity covariance"
    )


def _check(layer: nn.Module) -> None:
    """Refuse a layer, or a setting of a layer, that no rule covers (:class:`ValueError`)."""
    kind = type_before_parametrizations(layer)  # a subclass may compute something else
    if kind not in AFFINE + MONOTONE:
        known = ", ".join(sorted(kind.__name__ for kind in AFFINE + MONOTONE))
        raise ValueError(f"no bounds for the layer {kind.__name__}; known: {known}")
    if isinstance(layer, nn.Conv2d) and (
        layer.padding_mode != "zeros" or isinstance(layer.padding, str) or layer.dilation != (1, 1)
    ):
        raise ValueError(f"no bounds for a convolution with padding {layer.padding!r}, dilation {layer.dilation}")
    if isinstance(layer, nn.MaxPool2d):
        plain = layer.kernel_size == layer.stride and layer.padding == 0 and layer.dilation == 1
        if not plain or layer.ceil_mode or not isinstance(layer.kernel_size, int):
            raise ValueError(f"no bounds for max pooling but by windows side by side, got {layer}")
    if isinstance(layer, nn.Flatten) and (layer.start_dim, layer.end_dim) != (1, -1):
        raise ValueError(f"no bounds for {layer}; known: of all but the first dimension")
