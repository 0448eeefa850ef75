"""WRM (Sinha, Namkoong and Duchi 2018): training on the worst distribution within a transport cost of the data."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from isce.attacks.ascent import ascend, slope
from isce.attacks.base import training_loss
from isce.defences.base import Batch, Defence
from isce.losses import Objective
from isce.losses.checks import integer, number
from isce.models import Classifier

GAMMA, STEPS = 0.385, 15


class WRM(Defence):
    """Train on max_z loss(z) - gamma ||z - x||_2^2 (Sinha et al. 2018, eq. 2 and algorithm 1), at the last point found.

    gamma weighs the squared l_2 distance in pixel units, [0, 1]: the smaller, the further z may go. The paper takes
    0.04 E||x||_2, which is about 0.385 on MNIST. The points are those of :func:`penalised`, which are not clipped to
    [0, 1], as in the paper. The weights go down the loss at z; the cost of z has no gradient for them.

    The paper's guarantee, see :func:`certificate`, needs a smooth network, such as ``elu-cnn``. For a network with ReLU
    or max pooling this is a defence without a guarantee, and none is claimed.

    Args:
        gamma: penalty, above 0.
        steps: of the ascent, at least 1.
    """

    name = "wrm"
    title = "WRM"
    source = "Sinha et al. 2018"

    def __init__(self, gamma: float = GAMMA, steps: int = STEPS) -> None:
        super().__init__()
        self.gamma, self.steps = number("gamma", gamma, above=0), integer("steps", steps, at_least=1)

    def loss(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Loss at the points that the ascent reaches; the logits are theirs too."""
        own = training_loss(batch.objective)

        def value(z: Tensor) -> Tensor:
            logits, embedding = batch.outputs(z)
            return own(logits, batch.y, embedding)

        logits, embedding = batch.outputs(penalised(value, batch.x, self.gamma, self.steps))
        return batch.objective(logits, batch.y, embedding), logits


def penalised(loss: Callable[[Tensor], Tensor], x: Tensor, gamma: float, steps: int) -> Tensor:
    """Ascend loss(z) - gamma ||z - x||^2 from z = x, and return the last points.

    Step t (from 1) goes along the gradient times 1 / (2 gamma sqrt(t)). That is the paper's 1 / sqrt(t) for the
    function divided by 2 gamma, whose penalty has curvature 1, as in the authors' code: where the loss is linear, the
    first step arrives.

    Args:
        loss: gives one value for each of the points (N, ...).
        x: where the ascent starts, (N, ...).
        gamma: penalty, above 0.
        steps: number of steps.

    Returns:
        Points (N, ...), without a graph; not clipped to the box.
    """

    def step(z: Tensor, gradient: Tensor, number: int) -> Tensor:
        return z + (gradient / (2 * gamma) - (z - x)) / math.sqrt(number + 1)

    return ascend(x, lambda z: slope(loss, z), step, steps)


class Certificate(NamedTuple):
    """What bounds the loss under distributions near the data, over a set of n images.

    Attributes:
        gamma: of the penalty.
        value: mean over the images of phi(x) = max_z loss(z) - gamma ||z - x||^2, or of what the ascent found of it.
        cost: mean of ||z - x||^2 at the points found; pixel units, squared.
    """

    gamma: float
    value: float
    cost: float

    def bound(self, rho: float) -> float:
        """Bound of the mean loss under every distribution whose transport cost to the images is at most ``rho``."""
        return self.gamma * number("rho", rho, at_least=0) + self.value


def certificate(
    classifier: Classifier, objective: Objective, x: Tensor, y: Tensor, *, gamma: float = GAMMA, steps: int = STEPS
) -> Certificate:
    """Compute the quantities of the guarantee of Sinha et al. (2018, eq. 8 and theorem 3), for these images.

    With the cost c(z, x) = ||z - x||^2 (labels stay), W_c the transport cost, P_n the images and every rho >= 0:

        sup {E_P loss : W_c(P, P_n) <= rho} <= gamma rho + mean phi(x).

    At rho = ``cost`` both sides are equal, and the right side is the mean loss at the points found. The inequality
    needs the largest value phi. The ascent reaches it if loss(z) - gamma ||z - x||^2 is concave, that is where no
    curvature of the loss exceeds 2 gamma; elsewhere the value found is too low, so that the bound is an estimate. For
    networks that are not smooth no gamma makes it concave. The step from P_n to the population (theorem 3) is not
    taken here.

    Args:
        classifier: in evaluation mode.
        objective: its training loss of each image is meant.
        x: images (N, C, H, W) in [0, 1].
        y: labels (N,).
        gamma: penalty, above 0.
        steps: of the ascent, at least 1; more come closer to phi.

    Raises:
        ValueError, TypeError: gamma or steps out of range or of the wrong type; or the classifier is in training mode.
    """
    gamma, steps = number("gamma", gamma, above=0), integer("steps", steps, at_least=1)
    if classifier.training:
        raise ValueError("the classifier must be in evaluation mode")
    own = training_loss(objective)

    def value(z: Tensor) -> Tensor:
        logits, embedding = classifier(z, return_embedding=True)
        return own(logits, y, embedding)

    z = penalised(value, x, gamma, steps)
    with torch.no_grad():
        cost = (z - x).double().square().flatten(1).sum(1)
        return Certificate(gamma, float((value(z).double() - gamma * cost).mean()), float(cost.mean()))
