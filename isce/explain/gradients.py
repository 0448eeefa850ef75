"""What the gradient at an image promises to an attack, and what float32 and the training loss leave of it."""

from __future__ import annotations

import copy
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from isce.attacks.base import margin
from isce.explain.paths import Function

#: A gradient whose largest entry is below this is called tiny: an attack that adds it to a pixel in float32 instead of
#: taking its sign would not move (the numbers just below 1 are 6e-8 apart).
TINY = 6e-8


@dataclass(frozen=True)
class Gradients:
    """Measures of each image, (N,) float64 on the CPU.

    Attributes:
        margin: true score minus the largest other one.
        slope: l_1 norm of the margin's gradient: how fast the margin falls, at first, when every pixel moves at best.
        distance: the l_inf distance at which the margin would be used up if it were linear in the image, inside the
            box; see :func:`boxed_distance`.
        size: largest entry of the training loss's gradient in float32.
        matched_size: the same of the matched function.
        kept: share of the steepest ascent of the training loss that the sign of its float32 gradient gives,
            <g, sign(g32)> / ||g||_1 with the float64 gradient g: 1 is all, 0 nothing. From a gap of about 37 (53 log 2)
            float64 rounds as float32 does from 17, and the two agree again though both are wrong.
        aim: the same share for the margin: what a sign step on the float32 training loss takes off the margin, of the
            most that any step can, to first order. Negative where it widens the margin.
        one_step: for ``training`` (float32), ``exact`` (training loss in float64) and ``matched``, whether the image
            is classified right after one step of size eps along the gradient's sign, bool (N,).
    """

    margin: Tensor
    slope: Tensor
    distance: Tensor
    size: Tensor
    matched_size: Tensor
    kept: Tensor
    aim: Tensor
    one_step: dict[str, Tensor]


def gradients(
    classifier: nn.Module, training: Function, matched: Function, x: Tensor, y: Tensor, eps: float
) -> Gradients:
    """Gradients with respect to the images, at the images.

    Args:
        classifier: in evaluation mode, float32; called as classifier(x, return_embedding=True). Left as it is.
        training: training loss of each image.
        matched: matched function of each image.
        x: (N, C, H, W) float32 images in [0, 1].
        y: (N,) int64 labels.
        eps: size of the one step, pixel units.
    """
    precise = copy.deepcopy(classifier).double()
    logits, size = _gradient(classifier, training, x, y)
    exact = _gradient(precise, training, x.double(), y)[1]
    slope = _gradient(precise, matched, x.double(), y)[1]
    plain = _gradient(classifier, matched, x, y)[1]
    margins = margin(logits, y).double()

    def right_after(direction: Tensor) -> Tensor:
        with torch.no_grad():
            return (classifier((x + eps * direction.sign().to(x)).clamp(0, 1)).argmax(1) == y).cpu()

    return Gradients(
        margin=margins.cpu(),
        slope=slope.flatten(1).abs().sum(1).cpu(),
        distance=boxed_distance(margins, slope, x.double()).cpu(),
        size=size.flatten(1).abs().amax(1).double().cpu(),
        matched_size=plain.flatten(1).abs().amax(1).double().cpu(),
        kept=_sign_share(exact, size).cpu(),
        aim=_sign_share(slope, size).cpu(),
        one_step={"training": right_after(size), "exact": right_after(exact), "matched": right_after(plain)},
    )


def boxed_distance(margins: Tensor, slope: Tensor, x: Tensor) -> Tensor:
    """The least eps at which a margin that is linear in the image falls to 0 within the l_inf ball and [0, 1].

    With r_i the way of pixel i to the border of the box in the direction that lowers the margin, the margin at eps is
    margin - sum_i |g_i| min(eps, r_i).

    Args:
        margins: (N,).
        slope: gradient (N, C, H, W) of the *negative* margin.
        x: images (N, C, H, W) in [0, 1].

    Returns:
        (N,), 0 where the margin is not positive, 1 where it does not fall to 0 within the box.
    """
    room = torch.where(slope > 0, 1 - x, x).flatten(1)
    rate = slope.flatten(1).abs()
    low, high = torch.zeros_like(margins), torch.ones_like(margins)
    for _ in range(40):
        middle = (low + high) / 2
        lost = (rate * torch.minimum(room, middle[:, None])).sum(1) >= margins
        low, high = torch.where(lost, low, middle), torch.where(lost, middle, high)
    return torch.where(margins > 0, high, 0.0)


def _gradient(classifier: nn.Module, function: Function, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Logits, and the gradient of a function of each image."""
    point = x.detach().clone().requires_grad_()
    with torch.enable_grad():
        logits, embedding = classifier(point, return_embedding=True)
        (gradient,) = torch.autograd.grad(function(logits, y, embedding).sum(), point)
    return logits.detach(), gradient


def _sign_share(gradient: Tensor, direction: Tensor) -> Tensor:
    """What the sign of a direction gets of the l_1 norm of a gradient, (N,); 0 where that has underflowed too."""
    g, steps = gradient.flatten(1), direction.flatten(1).sign().to(gradient)
    return (g * steps).sum(1) / g.abs().sum(1).clamp(min=torch.finfo(g.dtype).tiny)
