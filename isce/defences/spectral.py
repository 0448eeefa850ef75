"""Spectral regularisation (Farnia, Zhang and Tse 2019): no layer's spectral norm may exceed a bound."""

from __future__ import annotations

from contextlib import ExitStack
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.grad import conv2d_input
from torch.nn.utils import parametrize

from isce.defences.base import Batch, Defence
from isce.losses.checks import number
from isce.models import Classifier

TOLERANCE, ROUNDS = 1e-5, 1000


class Spectral(Defence):
    """After each step scale every linear and convolutional weight W by beta / max(beta, sigma(W)) (Farnia et al. 2019).

    sigma is the l_2 operator norm of the layer, with stride and padding on the images that it sees, and not that of the
    reshaped kernel: for a dense layer the largest singular value, for a convolution by power iteration
    (:func:`conv_norm`). The paper divides by the norm within the network and differentiates through it; here the
    weights themselves are projected, which bounds the same norms and leaves a network like any other. Batch
    normalisation, the division of the image by its deviation and a score map without weights are left as they are.

    The paper's runs train on adversarial examples: give ``adversarial: {kind: pgd, ...}`` beside it. The norms bound
    the Lipschitz constant of the network, so that a margin is a certificate in l_2: ``certify: lipschitz`` proves with
    :func:`isce.minmax.network_constants`, which takes its own upper bounds of the norms and not those found here.

    Args:
        beta: largest norm of a layer, above 0; the paper has 1.3 to 1.6 on CIFAR-10.
    """

    name = "spectral"
    title = "spectral regularisation"
    source = "Farnia et al. 2019"

    def __init__(self, beta: float = 1.6) -> None:
        super().__init__()
        self.beta = number("beta", beta, above=0)
        self._draws: torch.Generator | None = None
        self._vectors: dict[str, Tensor] = {}

    def loss(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Loss of the images; the first batch of an epoch shows how large the images of each convolution are."""
        with ExitStack() as stack:
            if batch.draws is not self._draws:
                # Vectors start anew in each epoch, where a killed run goes on: it goes on with the same ones.
                self._draws, self._vectors = batch.draws, {}
                for name, layer in batch.classifier.named_modules():
                    if isinstance(layer, nn.Conv2d):
                        hook = layer.register_forward_pre_hook(partial(self._start, name))
                        stack.callback(hook.remove)
            return super().loss(batch)

    def _start(self, name: str, layer: nn.Conv2d, args: tuple[Any, ...]) -> None:
        """Draw the vector that power iteration starts from; always the same one."""
        vector = torch.randn(args[0].shape[1:], generator=torch.Generator().manual_seed(0))
        self._vectors[name] = vector[None].to(layer.weight)

    @torch.no_grad()
    def after_step(self, classifier: Classifier) -> None:
        """Project every layer.

        Raises:
            ValueError: a layer whose weight is computed from others, which has no weight to be scaled.
        """
        for name, layer in classifier.named_modules():
            if not isinstance(layer, nn.Conv2d | nn.Linear):
                continue
            if parametrize.is_parametrized(layer):
                raise ValueError(f"{self.name} scales weights, and that of {name} is computed: take another network")
            if isinstance(layer, nn.Conv2d):
                sigma, self._vectors[name] = conv_norm(layer, self._vectors[name])
            else:
                sigma = float(torch.linalg.matrix_norm(layer.weight, 2))
            if sigma > self.beta:
                layer.weight.mul_(self.beta / sigma)


def conv_norm(layer: nn.Conv2d, vector: Tensor) -> tuple[float, Tensor]:
    """l_2 operator norm of a zero-padded convolution, by power iteration on W^T W.

    It goes on until the norm rises by less than 1e-5 of itself: from the vector of the last step that is after a few
    rounds. It ends a thousandth or so below, so it is no certificate; ``isce.minmax.layers`` has an upper bound.

    Args:
        layer: of any stride, padding, dilation and groups.
        vector: where it starts, not 0, shaped as one input (1, C, H, W).

    Returns:
        The norm, and the vector that it was found with.
    """
    weight, sigma = layer.weight.detach(), 0.0
    settings: Any = (layer.stride, layer.padding, layer.dilation, layer.groups)
    for _ in range(ROUNDS):
        before, vector = sigma, vector / vector.norm()
        image = F.conv2d(vector, weight, None, *settings)
        sigma = float(image.norm())
        if sigma <= before * (1 + TOLERANCE):
            break
        vector = conv2d_input(vector.shape, weight, image, *settings)
    return sigma, vector
