"""What all attacks share: the threat model, the checked problem, the verified result, and an untouched classifier."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

#: A point counts as inside when it leaves ball or box by no more than float rounding: this much, absolute plus
#: relative to eps. What is returned is then pulled back inside, and verified there.
TOLERANCE = 1e-6


@dataclass(frozen=True)
class Threat:
    """What the adversary may do: move an image by at most ``eps`` in one norm, inside the box [0, 1].

    Args:
        norm: ``linf`` (largest change of one pixel value) or ``l2`` (Euclidean over the whole image).
        eps: radius in units of pixel values in [0, 1]; in (0, 1] for ``linf``, above 0 and finite for ``l2``.

    Raises:
        ValueError: unknown norm, or eps out of range.
    """

    norm: Literal["linf", "l2"]
    eps: float

    def __post_init__(self) -> None:
        if self.norm not in ("linf", "l2"):
            raise ValueError(f"unknown norm {self.norm!r}; known: linf, l2")
        allowed = "in (0, 1] for linf" if self.norm == "linf" else "above 0 and finite for l2"
        if not 0 < self.eps < math.inf or (self.norm == "linf" and self.eps > 1):
            raise ValueError(f"eps must be {allowed} (images lie in [0, 1]), got {self.eps}")

    @property
    def label(self) -> str:
        """Name in records and tables, such as ``linf@0.1``."""
        return f"{self.norm}@{self.eps:g}"

    def project(self, x_adv: Tensor, x: Tensor) -> Tensor:
        """Move points into the intersection of ball and box.

        For ``linf`` this is the nearest point. For ``l2`` the nearest point is clip(x + t d) with d = x_adv - x and
        the largest t <= 1 that stays in the ball (Lagrange conditions, derived here); t is approached from below, so
        the outcome is always inside, and exact unless more than a few groups of pixels reach the box one after another.

        Args:
            x_adv: points (N, ...).
            x: centres of the balls, in [0, 1], same shape.

        Returns:
            Points inside, same shape.
        """
        if self.norm == "linf":
            return x_adv.clamp(x - self.eps, x + self.eps).clamp_(0, 1)
        delta = (x_adv - x).flatten(1)
        room = torch.where(delta > 0, 1 - x.flatten(1), x.flatten(1))  # way to the box, in the direction of delta
        size = delta.abs()
        scale = (self.eps / _norm(delta)).clamp(max=1)
        for _ in range(4):
            full = size * scale > room
            left = (self.eps**2 - room.square().mul(full).sum(1, keepdim=True)).clamp(min=0)
            free = size.square().mul(~full).sum(1, keepdim=True)
            scale = torch.maximum(scale, (left / free.clamp(min=torch.finfo(free.dtype).tiny)).sqrt()).clamp(max=1)
        moved = torch.minimum(size * scale, room) * delta.sign()
        moved = moved * (self.eps / _norm(moved)).clamp(max=1)  # the rounding of the loop above
        return (x + moved.view_as(x)).clamp(0, 1)

    def distance(self, x_adv: Tensor, x: Tensor) -> Tensor:
        """Distance of each point from its image in this norm, float64, (N,)."""
        delta = (x_adv.double() - x.double()).flatten(1)
        return delta.abs().amax(1) if self.norm == "linf" else delta.square().sum(1).sqrt()

    def inside(self, x_adv: Tensor, x: Tensor) -> Tensor:
        """Which points lie in ball and box and are finite, bool (N,).

        Distance at most ``eps + TOLERANCE (1 + eps)``, pixel values in ``[-TOLERANCE, 1 + TOLERANCE]``.
        """
        values = x_adv.flatten(1)
        box = ((values >= -TOLERANCE) & (values <= 1 + TOLERANCE)).all(1)  # False where a value is NaN
        return box & (self.distance(x_adv, x) <= self.eps + TOLERANCE * (1 + self.eps))


def _norm(delta: Tensor) -> Tensor:
    return delta.norm(dim=1, keepdim=True).clamp(min=torch.finfo(delta.dtype).tiny)


@dataclass(frozen=True)
class AttackResult:
    """The best point found for each image, verified after the attack by a forward pass of its own.

    Attributes:
        adversarial: (N, C, H, W), always inside ball and box; the image itself where the attack's point was rejected.
        success: bool (N,), the prediction at ``adversarial`` is not the label.
        first_success: int64 (N,), number of gradient steps (over all restarts) after which the first misclassified
            point was met; 0: the start or the image itself; -1: never.
        rejected: bool (N,), the attack returned a point that is not finite, outside ball or box, or whose scores are
            not finite.
        last_success: bool (N,), the attack's last point alone, without the better ones on the way, is misclassified.
    """

    adversarial: Tensor
    success: Tensor
    first_success: Tensor
    rejected: Tensor
    last_success: Tensor


class Found(NamedTuple):
    """What one restart of an attack hands back, before anything is verified.

    Attributes:
        points: the best point of each image (N, C, H, W).
        first: int64 (N,), number of steps after which the first misclassified point was met, -1: not seen.
        last: the last point of each image (N, C, H, W).
    """

    points: Tensor
    first: Tensor
    last: Tensor


@dataclass(frozen=True)
class Problem:
    """One batch to attack, already checked.

    Attributes:
        classifier: module that maps (N, C, H, W) in [0, 1] to raw scores (N, K), with ``return_embedding=True`` to
            (scores, embedding).
        objective: the objective that the classifier was trained with.
        x: images (N, C, H, W) in [0, 1].
        y: true labels (N,), int64.
        index: position of each image in its data set (N,), int64; keys the randomness.
        threat: the threat model.
        seed: keys the randomness.
        scores: clean scores (N, K).
        best: the points with the lowest margin so far (N, C, H, W); at first the images.
    """

    classifier: nn.Module
    objective: Any
    x: Tensor
    y: Tensor
    index: Tensor
    threat: Threat
    seed: int
    scores: Tensor
    best: Tensor

    def outputs(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        """Raw scores (N, K), and the embedding where the objective needs it, else None."""
        if self.objective.needs_embedding:
            scores, embedding = self.classifier(x, return_embedding=True)
            return scores, embedding
        return self.classifier(x), None

    @property
    def batch_dependent(self) -> bool:
        """Whether an image's scores depend on the rest of its batch: then the batch must stay together."""
        return bool(getattr(self.classifier, "batch_dependent", False))

    def take(self, rows: Tensor) -> Problem:
        """The same problem on some of its images."""
        names = ("x", "y", "index", "scores", "best")
        return replace(self, **{name: getattr(self, name)[rows] for name in names})

    def random_start(self, restart: int, scale: float = 1.0) -> Tensor:
        """Points drawn uniformly from the ball of radius ``scale * eps``, projected into ball and box.

        The draw of an image depends on (seed, index, restart) alone, not on the batch around it.
        """
        noise = keyed_noise(self.seed, self.index, restart, self.x.shape[1:], self.threat.norm)
        radius = scale * self.threat.eps
        return self.threat.project(self.x + radius * noise.to(self.x), self.x)


def keyed_noise(seed: int, index: Tensor, restart: int, shape: torch.Size, norm: str) -> Tensor:
    """Uniform noise from the unit ball, one draw for each key (seed, index, restart).

    Args:
        seed: any integer.
        index: (N,) positions of the images in their data set.
        restart: number of the restart.
        shape: of one image.
        norm: ``linf`` or ``l2``.

    Returns:
        float32 (N, *shape) on the CPU.
    """
    noise = torch.empty(len(index), *shape)
    generator = torch.Generator()
    for row, position in zip(noise, index.tolist(), strict=True):
        digest = hashlib.blake2b(f"{seed}/{position}/{restart}".encode(), digest_size=4).digest()
        generator.manual_seed(int.from_bytes(digest, "big"))
        if norm == "linf":
            row.uniform_(-1, 1, generator=generator)
        else:  # a direction, times a radius with the density of the ball
            row.normal_(generator=generator)
            row.mul_(torch.rand((), generator=generator) ** (1 / row.numel()) / row.norm())
    return noise


def margin(scores: Tensor, y: Tensor) -> Tensor:
    """True score minus the largest other one, (N,): negative where the image is misclassified."""
    true = scores.gather(1, y[:, None])
    others = scores.scatter(1, y[:, None], -math.inf)
    return true[:, 0] - others.amax(1)


def training_loss(objective: Any) -> Callable[[Tensor, Tensor, Tensor | None], Tensor]:
    """An objective's training loss of each image, (N,), as an adversary who has that image alone sees it.

    A loss that compares the images of a batch with each other is taken of each image on its own, so that an attack's
    outcome doesn't depend on the batch around it; what is left of such a loss is its cross-entropy.
    """
    if "vmap" not in objective.exempt:
        return objective.per_example

    def alone(scores: Tensor, y: Tensor, embedding: Tensor | None) -> Tensor:
        parts = [None] * len(y) if embedding is None else embedding.split(1)
        losses = [objective.per_example(*one) for one in zip(scores.split(1), y.split(1), parts, strict=True)]
        return torch.cat(losses)

    return alone


def verify(problem: Problem, points: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Judge points: those outside or not finite give way to their image, the others are pulled inside and classified.

    Args:
        problem: the batch.
        points: candidates (N, C, H, W).

    Returns:
        The verified points; success, bool (N,); raw margin (N,); rejected, bool (N,).
    """
    good = problem.threat.inside(points, problem.x)
    while True:
        keep = good.view(-1, *[1] * (points.ndim - 1))
        held = torch.where(keep, problem.threat.project(points.nan_to_num(), problem.x), problem.x)
        with torch.no_grad():
            scores = problem.classifier(held)
        finite = torch.isfinite(scores).all(1)
        if not bool((good & ~finite).any()):
            break
        good = good & finite
    return held, scores.argmax(1) != problem.y, margin(scores, problem.y), ~good


@contextmanager
def untouched(*modules: nn.Module) -> Generator[None, None, None]:
    """Freeze modules for an attack; afterwards all is as it was, whatever happened inside.

    Inside: evaluation mode, parameters don't require gradients, gradients are enabled. Restored: the mode of every
    submodule, ``requires_grad`` and ``.grad`` of every parameter, the values of every buffer.
    """
    modes = [(part, part.training) for module in modules for part in module.modules()]
    weights = [(p, p.requires_grad, p.grad) for module in modules for p in module.parameters()]
    buffers = [(b, b.clone()) for module in modules for b in module.buffers()]
    try:
        for module in modules:
            module.eval()
        for weight, _, _ in weights:
            weight.requires_grad_(False)
            weight.grad = None
        with torch.enable_grad():
            yield
    finally:
        for part, mode in modes:
            part.training = mode
        for weight, required, gradient in weights:
            weight.requires_grad_(required)
            weight.grad = gradient
        with torch.no_grad():
            for buffer, value in buffers:
                if not torch.equal(buffer, value):
                    buffer.copy_(value)
