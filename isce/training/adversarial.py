"""What adversarial training ascends: small l_inf attacks of its own, so that isce.attacks may change under no run.

Both ascend the objective's matched function, never the loss that the network is trained with. They see the network
as it is while it trains (batch normalisation by the batch at hand; running statistics see their points as well), the
usual way. Imports torch and isce.losses only.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from isce.losses import Objective

Network = Callable[[Tensor], tuple[Tensor, Tensor]]


def ascent(objective: Objective, scores: Tensor, embedding: Tensor, x: Tensor, y: Tensor, *, keep: bool) -> Tensor:
    """Sign of the gradient of the matched function with respect to the images.

    Args:
        objective: its :meth:`~isce.losses.Objective.matched` is ascended.
        scores: (N, C), made from ``x``.
        embedding: (N, D), made from ``x``.
        x: images (N, C, H, W) that require a gradient.
        y: labels (N,).
        keep: leave the graph for one more backward pass.

    Returns:
        Shaped as ``x``. No gradient reaches a weight.
    """
    value = objective.matched(scores, y, embedding).sum()
    return torch.autograd.grad(value, x, retain_graph=keep)[0].sign()


def pgd(
    network: Network, objective: Objective, x: Tensor, y: Tensor, noise: Tensor, eps: float, steps: int, size: float
) -> Tensor:
    """Examples of projected ascent from a random start (Madry et al. 2018), l_inf; the last point of each.

    Args:
        network: gives scores and embedding of images.
        objective: its matched function is ascended.
        x: images (N, C, H, W) in [0, 1].
        y: labels (N,).
        noise: shaped as ``x``, uniform in [0, 1): the start within the ball.
        eps: radius, in units of [0, 1].
        steps: number of steps.
        size: of a step, in units of [0, 1].

    Returns:
        Images in [0, 1], within ``eps`` of ``x``; without a graph.
    """
    low, high = (x - eps).clamp(min=0), (x + eps).clamp(max=1)
    point = (x + eps * (2 * noise - 1)).clamp(low, high)
    for _ in range(steps):
        point.requires_grad_()
        scores, embedding = network(point)
        step = size * ascent(objective, scores, embedding, point, y, keep=False)
        point = (point.detach() + step).clamp(low, high)
    return point
