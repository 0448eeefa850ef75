"""Adversarial training: on the last points of an ascent (Madry et al. 2018), and TRADES (Zhang et al. 2019).

The network is seen as it is while it trains (batch normalisation by the batch at hand; running statistics see the
adversarial points as well), the usual way.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from isce.attacks.ascent import ascend, slope
from isce.attacks.threat import Threat
from isce.defences.base import Batch, Defence, Setting, divergence
from isce.losses import Objective
from isce.losses.checks import integer, number

Network = Callable[[Tensor], tuple[Tensor, Tensor]]


def pgd(
    network: Network, objective: Objective, x: Tensor, y: Tensor, start: Tensor, eps: float, steps: int, size: float
) -> Tensor:
    """Return the last points of projected ascent in l_inf (Madry et al. 2018).

    Args:
        network: gives logits (N, K) and embedding (N, D) of images.
        objective: its :meth:`~isce.losses.Objective.matched` is ascended.
        x: images (N, C, H, W) in [0, 1].
        y: labels (N,).
        start: where the ascent starts, shaped as ``x``; projected first. There it is drawn from the ball.
        eps: radius, in units of [0, 1].
        steps: number of steps.
        size: of a step, in units of [0, 1].

    Returns:
        Images in [0, 1], within ``eps`` of ``x``; without a graph. No gradient reaches a weight.
    """

    def value(point: Tensor) -> Tensor:
        logits, embedding = network(point)
        return objective.matched(logits, y, embedding)

    return sign_ascent(value, x, start, eps, steps, size)


def sign_ascent(
    value: Callable[[Tensor], Tensor], x: Tensor, start: Tensor, eps: float, steps: int, size: float
) -> Tensor:
    """Return the last points of an ascent by signs within the l_inf ball and the box.

    The function gives one value for each image; the other arguments are those of :func:`pgd`.
    """
    threat = Threat("linf", eps)

    def step(point: Tensor, gradient: Tensor, _: int) -> Tensor:
        return threat.project(point + size * gradient.sign(), x)

    return ascend(threat.project(start, x), lambda point: slope(value, point), step, steps)


class _Ball(Defence):
    """A defence that ascends within the l_inf ball."""

    def __init__(self, eps: float, steps: int, step_size: float) -> None:
        super().__init__()
        self.eps = number("eps", eps, above=0, at_most=1)
        self.step_size = number("step_size", step_size, above=0, at_most=1)
        self.steps = integer("steps", steps, at_least=1)

    def check_run(self, run: Setting) -> None:
        """Refuse adversarial training beside it: the points of one attack would be attacked by the other."""
        if run.adversarial:
            raise ValueError(f"{self.name} attacks the images itself: adversarial must be None")


class AdversarialTraining(_Ball):
    """Train on the last points of projected ascent from a random start (Madry et al. 2018), on nothing else.

    The same as the training parameter ``adversarial`` of kind ``pgd``, so that it can stand beside other defences.

    Args:
        eps: radius of the l_inf ball, in units of [0, 1].
        steps: of the inner ascent.
        step_size: in units of [0, 1].
    """

    name = "pgd-training"
    title = "adversarial training"
    source = "Madry et al. 2018"

    def __init__(self, eps: float = 0.1, steps: int = 7, step_size: float = 0.03) -> None:
        super().__init__(eps, steps, step_size)

    def loss(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Objective at the last points; the logits are those of these points."""
        noise = torch.rand(batch.x.shape, generator=batch.draws).to(batch.x)
        start = batch.x + self.eps * (2 * noise - 1)
        x = pgd(batch.outputs, batch.objective, batch.x, batch.y, start, self.eps, self.steps, self.step_size)
        logits, embedding = batch.outputs(x)
        return batch.objective(logits, batch.y, embedding), logits


class Trades(_Ball):
    """Train on the objective of the image plus beta KL(p(x) || p(x')) (Zhang et al. 2019, eq. 5, beta = 1 / lambda).

    x' is the last point of an ascent of the same divergence, from the image plus 0.001 times a normal draw, as there.
    p(x) is part of the graph in the loss and a constant in the ascent.

    Args:
        beta: weight of the divergence, above 0; the paper has 1 and 6.
        eps: radius of the l_inf ball, in units of [0, 1].
        steps: of the inner ascent.
        step_size: in units of [0, 1].
    """

    name = "trades"
    title = "TRADES"
    source = "Zhang et al. 2019"

    def __init__(self, beta: float = 6.0, eps: float = 0.1, steps: int = 7, step_size: float = 0.03) -> None:
        super().__init__(eps, steps, step_size)
        self.beta = number("beta", beta, above=0)

    def loss(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Objective plus beta times the mean divergence; the logits are those of the images."""
        logits, embedding = batch.outputs(batch.x)
        start = batch.x + 0.001 * torch.randn(batch.x.shape, generator=batch.draws).to(batch.x)
        log_p = logits.log_softmax(1)

        def value(point: Tensor) -> Tensor:
            return divergence(log_p.detach(), batch.outputs(point)[0])

        x = sign_ascent(value, batch.x, start, self.eps, self.steps, self.step_size)
        apart = divergence(log_p, batch.outputs(x)[0]).mean()
        return batch.objective(logits, batch.y, embedding) + self.beta * apart, logits
