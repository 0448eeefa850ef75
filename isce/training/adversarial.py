"""What adversarial training ascends: the objective's matched function, never the loss that the network is trained with.

The network is seen as it is while it trains (batch normalisation by the batch at hand; running statistics see the
adversarial points as well), the usual way.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from isce.attacks.ascent import ascend, slope
from isce.attacks.threat import Threat
from isce.losses import Objective

Network = Callable[[Tensor], tuple[Tensor, Tensor]]


def pgd(
    network: Network, objective: Objective, x: Tensor, y: Tensor, noise: Tensor, eps: float, steps: int, size: float
) -> Tensor:
    """Return the last points of projected ascent from a random start (Madry et al. 2018), l_inf.

    Args:
        network: gives logits (N, K) and embedding (N, D) of images.
        objective: its :meth:`~isce.losses.Objective.matched` is ascended.
        x: images (N, C, H, W) in [0, 1].
        y: labels (N,).
        noise: shaped as ``x``, uniform in [0, 1): the start within the ball.
        eps: radius, in units of [0, 1].
        steps: number of steps.
        size: of a step, in units of [0, 1].

    Returns:
        Images in [0, 1], within ``eps`` of ``x``; without a graph. No gradient reaches a weight.
    """
    threat = Threat("linf", eps)

    def value(point: Tensor) -> Tensor:
        logits, embedding = network(point)
        return objective.matched(logits, y, embedding)

    def step(point: Tensor, gradient: Tensor, _: int) -> Tensor:
        return threat.project(point + size * gradient.sign(), x)

    start = threat.project(x + eps * (2 * noise - 1), x)
    return ascend(start, lambda point: slope(value, point), step, steps)
