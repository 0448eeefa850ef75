"""What all attacks share: the checked problem, the verified result, and an untouched classifier."""

from __future__ import annotations

import math
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor, nn

from isce.attacks.keys import keyed_noise, seeded
from isce.attacks.rejection import judged
from isce.attacks.threat import Threat, boxed
from isce.losses import Objective
from isce.losses.functional import negative_margin


class TimeLimitError(RuntimeError):
    """An attack ran past its time limit."""


class ForeignError(RuntimeError):
    """The package that runs an attack failed; ``__cause__`` is its own error. The batch has no outcome."""


@dataclass(frozen=True)
class AttackResult:
    """The best point found for each image, verified after the attack by a forward pass of its own.

    Attributes:
        adversarial: (N, C, H, W), always inside ball and box; the image itself where the attack's point was rejected.
        success: bool (N,), the prediction at ``adversarial`` is not the label, nor rejection where the network rejects.
        first_success: int64 (N,), number of gradient steps (over all restarts) after which the first misclassified
            point was met; 0: the start or the image itself; -1: never. The stages of ``staged`` add up to more than
            its ``steps``.
        rejected: bool (N,), the attack returned a point that is not finite, outside ball or box, or whose logits are
            not finite, or it met logits or gradients that are not. Without success nothing is known of the image.
        last_success: bool (N,), the attack's last point alone, without the better ones on the way, is misclassified.
        hit: bool (N,), the prediction at ``adversarial`` is the target; False where there is none.
        raw: the attack's own points (N, C, H, W), before any check: what an attack that looks for the smallest change
            found does not depend on eps, and can be judged again at another.
    """

    adversarial: Tensor
    success: Tensor
    first_success: Tensor
    rejected: Tensor
    last_success: Tensor
    hit: Tensor
    raw: Tensor


class Found(NamedTuple):
    """What one restart of an attack hands back, before anything is verified.

    Attributes:
        points: the point to judge of each image (N, C, H, W): the first misclassified one where there is one, else the
            best that the method keeps: for our own attacks the one with the lowest margin that they saw. NaN where the
            method met a NaN on its way, so that the image has no outcome.
        first: int64 (N,), number of steps after which the first misclassified point was met, -1: not seen.
        last: the last point of each image (N, C, H, W), where it may be worse than ``points``; None: it can't be.
    """

    points: Tensor
    first: Tensor
    last: Tensor | None = None

    @classmethod
    def only(cls, points: Tensor) -> Found:
        """From an attack that hands back one point for each image and nothing about the way there."""
        return cls(points.detach(), torch.full((len(points),), -1, device=points.device))


@dataclass(frozen=True)
class Problem:
    """One batch to attack, already checked.

    Attributes:
        classifier: module that maps (N, C, H, W) in [0, 1] to raw logits (N, K), with ``return_embedding=True`` to
            (logits, embedding). Of a network that may reject an attack gets a view with ordinary logits.
        objective: the objective that the classifier was trained with.
        x: images (N, C, H, W) in [0, 1].
        y: true labels (N,), int64.
        index: position of each image in its data set (N,), int64; keys the randomness.
        threat: the threat model.
        seed: keys the randomness.
        logits: clean logits (N, K).
        best: the points with the lowest margin so far (N, C, H, W); at first the images.
        target: the class that a targeted attack is after (N,), int64; None for an untargeted one.
        source: the same images as a problem of another network, for an attack that transfers; else None.
    """

    classifier: nn.Module
    objective: Objective
    x: Tensor
    y: Tensor
    index: Tensor
    threat: Threat
    seed: int
    logits: Tensor
    best: Tensor
    target: Tensor | None = None
    source: Problem | None = None

    def outputs(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        """Raw logits (N, K), folded where the network may reject; the embedding if the objective needs it, or None."""
        if self.objective.needs_embedding:
            logits, embedding = self.classifier(x, return_embedding=True)
            return judged(self.classifier, logits, self.y), embedding
        return judged(self.classifier, self.classifier(x), self.y), None

    @property
    def label(self) -> Tensor:
        """The class that the attack's loss is about: the target of a targeted attack, else the true one (N,)."""
        return self.y if self.target is None else self.target

    @property
    def batch_dependent(self) -> bool:
        """Whether an image's logits depend on the rest of its batch: then the batch must stay together."""
        return bool(getattr(self.classifier, "batch_dependent", False))

    def take(self, rows: Tensor) -> Problem:
        """The same problem on some of its images."""
        names = ("x", "y", "index", "logits", "best", "target")
        parts = {name: getattr(self, name) for name in names}
        taken = {name: part[rows] for name, part in parts.items() if part is not None}
        return replace(self, **taken, source=self.source.take(rows) if self.source else None)

    def one_by_one(self, attack: Callable[[Problem], Tensor], restart: int = 0) -> Tensor:
        """Points (N, C, H, W) of an attack that gets one image at a time, and draws by that image's key alone."""
        points: list[Tensor] = []
        for row in range(len(self.y)):
            with seeded(self.seed, int(self.index[row]), restart, "package"):
                points.append(attack(self.take(torch.tensor([row], device=self.y.device))))
        return torch.cat(points)

    def random_start(self, restart: int) -> Tensor:
        """Points drawn uniformly from the ball, projected into ball and box.

        The draw of an image depends on (seed, index, restart) alone, not on the batch around it.
        """
        noise = keyed_noise(self.seed, self.index, restart, self.x.shape[1:], self.threat.norm)
        return self.threat.project(self.x + self.threat.eps * noise.to(self.x), self.x)


def margin(logits: Tensor, y: Tensor) -> Tensor:
    """Return the true score less the largest other one, (N,): negative where the image is misclassified."""
    return 0.0 - negative_margin(logits, y)  # -0.0 would be another text in a record


def training_loss(objective: Objective) -> Callable[[Tensor, Tensor, Tensor | None], Tensor]:
    """An objective's training loss of each image, (N,), as an adversary who has that image alone sees it.

    A loss that compares the images of a batch with each other is taken of each image on its own, so that an attack's
    outcome doesn't depend on the batch around it; what is left of such a loss is its cross-entropy.
    """
    if "vmap" not in objective.exempt:
        return objective.per_example

    def alone(logits: Tensor, y: Tensor, embedding: Tensor | None) -> Tensor:
        parts = [None] * len(y) if embedding is None else embedding.split(1)
        losses = [objective.per_example(*one) for one in zip(logits.split(1), y.split(1), parts, strict=True)]
        return torch.cat(losses)

    return alone


class Verified(NamedTuple):
    """Points after the check.

    Attributes:
        points: inside ball and box (N, C, H, W).
        success: bool (N,), the attack's own point is misclassified.
        predicted: class at each point (N,).
        margin: raw margin at each point (N,).
        rejected: bool (N,), the attack's point was not finite or outside, and the image stands in for it.
    """

    points: Tensor
    success: Tensor
    predicted: Tensor
    margin: Tensor
    rejected: Tensor


def verify(problem: Problem, points: Tensor, *, minimal: bool = False) -> Verified:
    """Judge points: those outside or not finite give way to their image, the others are pulled inside and classified.

    Args:
        problem: the batch.
        points: candidates (N, C, H, W).
        minimal: they come from an attack that looks for the smallest change: one beyond eps is no success, but was not
            rejected either.

    Raises:
        RuntimeError: one of our own functions, or the classifier, returned another shape than its own, or NaN for the
            margin of finite logits.
    """
    x, threat = problem.x, problem.threat
    good = shaped("points inside", threat.inside(points, x), problem.y)
    wanting = ~good
    if minimal:
        wanting &= ~(boxed(points) & (threat.distance(points, x) > threat.eps))
    projected = shaped("projected points", threat.project(points.nan_to_num(), x), x)
    while True:
        held = torch.where(good.view(-1, *[1] * (points.ndim - 1)), projected, x)
        with torch.no_grad():
            logits = judged(problem.classifier, problem.classifier(held), problem.y)
        shaped("logits", logits, problem.logits)
        finite = torch.isfinite(logits).all(1)
        if not bool((good & ~finite).any()):
            break
        wanting = wanting | (good & ~finite)
        good = good & finite
    predicted, margins = logits.argmax(1), shaped("margins", margin(logits, problem.y), problem.y)
    if bool((margins.isnan() & finite).any()):
        raise RuntimeError("a margin of finite logits is NaN")
    return Verified(held, good & (predicted != problem.y), predicted, margins, wanting)


def shaped(what: str, tensor: Tensor, like: Tensor, error: type[RuntimeError] = RuntimeError) -> Tensor:
    """Refuse another shape than that of ``like``: a broadcast would give one image's outcome to another.

    Returns:
        The tensor itself.

    Raises:
        RuntimeError: another shape; or the subclass that ``error`` names.
    """
    if tensor.shape != like.shape:
        raise error(f"{what} must have shape {tuple(like.shape)}, got {tuple(tensor.shape)}")
    return tensor


def sign(values: Tensor) -> Tensor:
    """Signs as numbers, and NaN where a value is: torch's own makes 0 of it, so that a point would just stay."""
    return values.sign().where(~values.isnan(), math.nan)


def blank(points: Tensor, values: Tensor) -> Tensor:
    """Points (N, C, H, W), all NaN where a value (N,) is: no check lets them pass, so these images have no outcome."""
    return torch.where(values.isnan().view(-1, 1, 1, 1), math.nan, points)


@contextmanager
def untouched(*modules: nn.Module) -> Generator[None, None, None]:
    """Freeze modules for an attack; afterwards all is as it was, whatever happened inside.

    Inside: evaluation mode, parameters don't require gradients, gradients are enabled. Restored: the mode of every
    submodule, ``requires_grad`` and ``.grad`` of every parameter, every buffer and its values; none has come or gone.
    """
    modes = [(part, part.training) for module in modules for part in module.modules()]
    weights = [(p, p.requires_grad, p.grad) for module in modules for p in module.parameters()]
    # The tensors themselves, too: a module may assign another, where one that adds in place keeps its own.
    owners = [vars(part)["_buffers"] for part, _ in modes]
    buffers = [(own, {name: (b, None if b is None else b.clone()) for name, b in own.items()}) for own in owners]
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
            for own, before in buffers:
                _put_back(own, before)


def _put_back(own: dict[str, Tensor | None], before: dict[str, tuple[Tensor | None, Tensor | None]]) -> None:
    """A module's buffers: the tensors of before, with their values, and no others."""
    now = dict(own.items())  # of a scripted module it is no dict, and can't lose one
    for name in now.keys() - before.keys():
        del own[name]
    for name, (buffer, value) in before.items():
        if name not in now or now[name] is not buffer:
            own[name] = buffer
        if buffer is not None and value is not None and not torch.equal(buffer, value):
            buffer.copy_(value)
