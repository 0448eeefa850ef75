"""The loop that every ascent here runs in, and the functions that the matched attack can ascend.

The direction of ascent is computed so that confidence can't hide it: value and gradient with respect to the
logits are in float64, and the gradient is rescaled for each image before it goes back through the network in the
network's own precision. A cross-entropy is replaced by an increasing function of it that has no underflow at all:

    CE(s / T, y) = log(1 + exp(g / T)),   g = T log sum_{k != y} exp(s_k / T) - s_y    (derived here),

so ascending the *soft margin* g is ascending the cross-entropy at temperature T, with softmax weights over the wrong
classes in place of probabilities that round to 0.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from isce.attacks.base import margin, training_loss
from isce.losses import Objective

#: Value (N,), gradient for the logits (N, K) and for the embedding (N, D) or None.
Pull = tuple[Tensor, Tensor, Tensor | None]
#: A function to be ascended: of logits (N, K) in float64, labels (N,), embedding (N, D) or None, and one row of own
#: constants for each image (N, ...). Each image's gradient is scaled to a largest entry of 1.
Ascended = Callable[[Tensor, Tensor, Tensor | None, Tensor], Pull]

#: Temperatures of ``ce``, one for each restart in turn, in units of the spread of an image's clean logits.
TEMPERATURES = (0.25, 1.0, 0.05)

#: Step of the plain ascents, as a share of eps, times the number of steps: it can cross the ball and come back.
REACH = 2.5


def ascend(
    point: Tensor,
    gradient: Callable[[Tensor], Tensor | None],
    step: Callable[[Tensor, Tensor, int], Tensor],
    steps: int,
) -> Tensor:
    """Return the last point of an ascent.

    Args:
        point: where it starts, (N, ...).
        gradient: gradient at a point, or None to stop there.
        step: makes the next point, projected, of a point, the gradient there and the number of the step (from 0).
        steps: number of steps.
    """
    for number in range(steps):
        found = gradient(point)
        if found is None:
            break
        point = step(point, found, number)
    return point


def slope(function: Callable[[Tensor], Tensor], point: Tensor) -> Tensor:
    """Return the gradient, shaped as ``point``, of a function that gives one value for each image."""
    point = point.detach().requires_grad_()
    with torch.enable_grad():
        value = function(point).sum()
    return torch.autograd.grad(value, point)[0]


def ascended(name: str, objective: Objective, logits: Tensor, y: Tensor, restart: int) -> tuple[Ascended, Tensor]:
    """A function to ascend, and its constants for each image.

    Args:
        name: an objective of the attack ``matched``: ``training`` or ``matched``, the training loss or the matched
            function of ``objective``; ``ce``, cross-entropy of the raw logits, at another temperature each restart;
            ``margin``, the negative margin max_{k != y} s_k - s_y; ``dlr``, that over the distance between first and
            third score (Croce and Hein 2020, eq. 3, without the constant); ``targeted``, the difference s_t - s_y, t
            the wrong class that is (restart + 1)-th in the clean logits.
        objective: the training objective.
        logits: clean logits (N, K).
        y: labels (N,).
        restart: number of the restart.

    Raises:
        ValueError: ``dlr`` with fewer than three classes.
    """
    none = logits.new_zeros(len(logits), 0)
    if name == "training":
        return _differentiated(training_loss(objective)), none
    if name == "matched":
        return _differentiated(objective.matched), none
    if name == "margin":
        return _margin, none
    if name == "dlr":
        if logits.shape[1] < 3:
            raise ValueError(f"dlr needs at least 3 classes, got {logits.shape[1]}")
        return _differentiated(_dlr), none
    if name == "ce":
        spread = logits.double().std(1, keepdim=True).clamp(min=1e-30)
        return _soft_margin, TEMPERATURES[restart % len(TEMPERATURES)] * spread
    wrong = torch.sort(logits.scatter(1, y[:, None], -math.inf), dim=1, descending=True, stable=True).indices
    return _difference, wrong[:, [restart % (logits.shape[1] - 1)]]


def pull(function: Ascended, logits: Tensor, y: Tensor, embedding: Tensor | None, constants: Tensor) -> Pull:
    """Value and rescaled gradient of a function with respect to logits and embedding.

    Args:
        function: to be ascended.
        logits: (N, K).
        y: labels (N,).
        embedding: (N, D) or None.
        constants: of the function, for each image.

    Returns:
        Value in float64; gradients in the type of ``logits``, the embedding's None where the function has none.
    """
    far = None if embedding is None else embedding.detach().double()
    value, gradient, other = function(logits.detach().double(), y, far, constants)
    return value, gradient.to(logits.dtype), None if other is None else other.to(logits.dtype)


def unit(gradient: Tensor, order: float) -> Tensor:
    """Divide each image's gradient (N, C, H, W) by its norm of this order; a gradient of 0 stays 0."""
    length = torch.linalg.vector_norm(gradient, order, dim=(1, 2, 3), keepdim=True)
    return gradient / length.masked_fill(length == 0, 1.0)


def uphill(gradient: Tensor, norm: str) -> Tensor:
    """The direction of a step: a gradient's sign in l_inf, its unit vector in l_2; 0 where the gradient is."""
    # The largest entry first: squares may underflow. Not in place: a gradient may be one number, expanded.
    return gradient.sign() if norm == "linf" else unit(unit(gradient, math.inf), 2)


def _margin(logits: Tensor, y: Tensor, embedding: Tensor | None, none: Tensor) -> Pull:
    return _towards(logits, y, logits.scatter(1, y[:, None], -math.inf).argmax(1, keepdim=True))


def _difference(logits: Tensor, y: Tensor, embedding: Tensor | None, target: Tensor) -> Pull:
    return _towards(logits, y, target)


def _towards(logits: Tensor, y: Tensor, rival: Tensor) -> Pull:
    """The difference to one wrong class (N, 1): +1 there, -1 at the true one."""
    value = logits.gather(1, rival) - logits.gather(1, y[:, None])
    return value[:, 0], torch.zeros_like(logits).scatter_(1, rival, 1.0).scatter_(1, y[:, None], -1.0), None


def _soft_margin(logits: Tensor, y: Tensor, embedding: Tensor | None, temperature: Tensor) -> Pull:
    wrong = (logits / temperature).scatter_(1, y[:, None], -math.inf)
    value = temperature * wrong.logsumexp(1, keepdim=True) - logits.gather(1, y[:, None])
    return value[:, 0], wrong.softmax(1).scatter_(1, y[:, None], -1.0), None


def _dlr(logits: Tensor, y: Tensor, embedding: Tensor | None) -> Tensor:
    ordered = logits.topk(3, dim=1).values
    return -margin(logits, y) / (ordered[:, 0] - ordered[:, 2]).clamp(min=1e-30)


def _differentiated(loss: Callable[[Tensor, Tensor, Tensor | None], Tensor]) -> Ascended:
    """Ascend a loss with its gradient by differentiation, each image's divided by its largest entry.

    Where the gradient has underflowed to 0, or is not finite, that of the margin stands in, and the negative margin for
    the value: a loss that has underflowed is at its floor of 0, so such a point ranks below all others, as it should.
    """

    def function(logits: Tensor, y: Tensor, embedding: Tensor | None, none: Tensor) -> Pull:
        parts = [part.requires_grad_() for part in (logits, embedding) if part is not None]
        with torch.enable_grad():
            value = loss(logits, y, embedding)
            known = torch.autograd.grad(value.sum(), parts, allow_unused=True) if value.requires_grad else [None, None]
        filled = [torch.zeros_like(p) if g is None else g for p, g in zip(parts, known, strict=False)]
        largest = torch.stack([g.abs().amax(1) for g in filled]).amax(0)
        value, lost = value.detach(), ~((largest > 0) & largest.isfinite() & value.detach().isfinite())
        scaled = [g / torch.where(lost, 1.0, largest)[:, None] for g in filled]
        if bool(lost.any()):
            instead, gradient, _ = _margin(logits.detach(), y, None, none)
            value = torch.where(lost, instead, value)
            scaled[0] = torch.where(lost[:, None], gradient, scaled[0])
            scaled[1:] = [torch.where(lost[:, None], 0.0, g) for g in scaled[1:]]
        return value, scaled[0], scaled[1] if embedding is not None else None

    return function
