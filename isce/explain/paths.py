"""The way of a plain attack, step by step: what it ascends, what it achieves, and where the logits go on the sphere."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from isce.attacks import Threat
from isce.attacks.ascent import REACH, slope
from isce.attacks.ascent import ascend as walk
from isce.attacks.base import margin

#: (logits (N, K), labels (N,), embedding (N, D)) -> (N,).
Function = Callable[[Tensor, Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Ascent:
    """A path of every image; step 0 is the image itself.

    Attributes:
        logits: raw logits (S + 1, N, K) at every step.
        loss: the training loss (S + 1, N) there.
        last: the last points (N, C, H, W).
    """

    logits: Tensor
    loss: Tensor
    last: Tensor

    def margins(self, y: Tensor) -> Tensor:
        """True score minus the largest other one, (S + 1, N)."""
        return torch.stack([margin(logits, y) for logits in self.logits])

    def standing(self, y: Tensor) -> Tensor:
        """Share of the images that no step so far misclassified, (S + 1,)."""
        return (self.margins(y) > 0).cummin(0).values.double().mean(1)


def ascend(
    classifier: nn.Module, loss: Function, function: Function, x: Tensor, y: Tensor, threat: Threat, steps: int
) -> Ascent:
    """Projected ascent from the images themselves, by equal steps along the sign of the gradient, in float32.

    This is BIM (PGD without its random start) as the suites run it, but it never stops: the path goes on after an image
    has fallen.

    Args:
        classifier: in evaluation mode; called as classifier(x, return_embedding=True).
        loss: the training loss, which is noted.
        function: what is ascended.
        x: (N, C, H, W) images in [0, 1].
        y: (N,) int64 labels.
        threat: an l_inf ball.
        steps: number of steps, each of size ``REACH / steps`` times eps.
    """
    size = REACH / steps * threat.eps
    every: list[tuple[Tensor, Tensor]] = []

    def value(point: Tensor) -> Tensor:
        logits, embedding = classifier(point, return_embedding=True)
        with torch.no_grad():
            every.append((logits.detach(), loss(logits, y, embedding)))
        return function(logits, y, embedding)

    def step(point: Tensor, gradient: Tensor, _: int) -> Tensor:
        return threat.project(point + size * gradient.sign(), x)

    last = walk(x.detach(), lambda point: slope(value, point), step, steps)
    with torch.no_grad():
        value(last)
    logits, losses = (torch.stack(part) for part in zip(*every, strict=True))
    return Ascent(logits, losses, last)


def on_the_sphere(logits: Tensor, y: Tensor) -> Tensor:
    """Where logits lie on the unit sphere, seen from the decision: t_y and the largest other t_k of t = z / ||z||_2.

    The prediction is right where the first exceeds the second; all points lie in the disc of radius 1.

    Args:
        logits: (..., N, K).
        y: (N,) int64 labels.

    Returns:
        (..., N, 2).
    """
    t = nn.functional.normalize(logits, dim=-1)
    own = y[:, None].expand(*t.shape[:-1], 1)
    rival = t.scatter(-1, own, -torch.inf).amax(-1)
    return torch.stack([t.gather(-1, own)[..., 0], rival], -1)
