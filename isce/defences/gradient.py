"""Input gradient regularisation (Ross and Doshi-Velez 2018): a penalty on how fast the loss changes with the image."""

from __future__ import annotations

import torch
from torch import Tensor

from isce.defences.base import Batch, Defence
from isce.losses.checks import number


class InputGradient(Defence):
    """Train on L + lam mean_i ||d L_i / d x_i||_2^2 (Ross and Doshi-Velez 2018; double backpropagation).

    L_i is the loss of image x_i, L the batch's. Each derivative is of the image's own loss, for images in [0, 1] before
    any normalisation; its squared norm is a sum over pixels and channels, and the penalty a mean over the batch, so lam
    does not depend on the batch's size. It does depend on the range and the size of the images.

    The authors' code and DEEPSEC differentiate the batch's *mean* loss and sum over the batch: of N images that is 1/N
    of the penalty here (the authors' again half of it). DEEPSEC's 316 for MNIST and 10 for CIFAR-10, at N = 256, are
    316/256 and 10/256 here; 316 as such leaves a network that has learnt nothing.

    The gradient goes through the derivative (second order). Where layers join images (batch normalisation in training),
    the derivative for x_i holds what x_i does to the others' losses as well.

    Args:
        lam: weight of the penalty, at least 0; the default is DEEPSEC's for MNIST.
    """

    name = "input-gradient"
    title = "input gradient regularisation"
    source = "Ross and Doshi-Velez 2018"

    def __init__(self, lam: float = 316 / 256) -> None:
        super().__init__()
        self.lam = number("lam", lam, at_least=0)

    def loss(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Loss and penalty."""
        x = batch.x.detach().requires_grad_()
        logits, embedding = batch.outputs(x)
        losses = batch.objective.per_example(logits, batch.y, embedding)
        (slope,) = torch.autograd.grad(losses.sum(), x, create_graph=True)
        penalty = slope.square().flatten(1).sum(1).mean()
        return batch.objective(logits, batch.y, embedding) + self.lam * penalty, logits
