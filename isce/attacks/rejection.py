"""Networks that may reject an image: what counts as an attack's success, in one place.

Such a network says ``rejects = True`` and returns C + 1 logits, the last one for "rejected". An image is *handled* if
it is rejected or classified right; an adversarial point succeeds only if it is accepted and misclassified.
:func:`fold` turns this into ordinary logits, so that attacks, margins and accuracies read what they always read, and
an attack on them knows of the rejection, after the idea of Carlini and Wagner (2017, "Adversarial Examples Are Not
Easily Detected") to take it for one more class. A network that rejects every image handles every image: the share of
clean images that it rejects belongs beside each of its accuracies.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from isce.attacks.base import Problem


def rejects(classifier: nn.Module) -> bool:
    """Whether the last of a network's logits stands for "rejected"."""
    return bool(getattr(classifier, "rejects", False))


def fold(logits: Tensor, y: Tensor) -> Tensor:
    """Logits of C classes, in which the true class also wins where the image is rejected.

    The true class's score becomes the larger one of its own and that of rejection; the column of rejection goes. The
    arg-max is the label exactly where the arg-max of ``logits`` is the label or rejection: where rejection ties with
    the best class the image is accepted, as the arg-max has it. A score of rejection that is not finite becomes NaN.

    Args:
        logits: (N, C + 1) with C >= 2, the last column for rejection.
        y: labels (N,), int64 in [0, C).

    Returns:
        (N, C), differentiable.

    Raises:
        ValueError: another shape, or a label outside [0, C).
    """
    if logits.ndim != 2 or len(logits) != len(y) or logits.shape[1] < 3:
        what = f"({len(y)}, classes + 1), with at least 2 classes"
        raise ValueError(f"logits of a network that rejects must have shape {what}, got {tuple(logits.shape)}")
    classes, rejection = logits[:, :-1], logits[:, -1]
    if len(y) and not 0 <= int(y.min()) <= int(y.max()) < classes.shape[1]:
        raise ValueError(f"labels must lie in [0, {classes.shape[1]}), got {int(y.min())} to {int(y.max())}")
    own = classes.gather(1, y[:, None])[:, 0]
    rejection = torch.where(rejection.isfinite(), rejection, math.nan)  # minus infinity would leave no trace
    tie = rejection == classes.amax(1)
    return classes.scatter(1, y[:, None], torch.where(tie, own, torch.maximum(own, rejection))[:, None])


def judged(classifier: nn.Module, logits: Tensor, y: Tensor) -> Tensor:
    """What decides whether images are handled: a network's logits (N, K), folded where it may reject (N, K - 1)."""
    return fold(logits, y) if rejects(classifier) else logits


def refused(classifier: nn.Module, logits: Tensor) -> Tensor:
    """Which images a network rejects, by its own logits (N, K), bool (N,)."""
    last = logits.argmax(1) == logits.shape[1] - 1
    return last if rejects(classifier) else torch.zeros_like(last)


class Folded(nn.Module):
    """A network that may reject, as an adversary who knows that sees it, on images of one class.

    Attacks of packages call a network without labels, and in batches of their own making: so the label is fixed.
    """

    def __init__(self, classifier: nn.Module, label: int) -> None:
        super().__init__()
        self.classifier, self.label = classifier, label
        self.training = False

    def forward(self, x: Tensor, **options: Any) -> Any:
        """Folded logits (N, C), with the embedding where that is asked for."""
        found = self.classifier(x, **options)
        logits, *more = found if isinstance(found, tuple) else (found,)
        folded = fold(logits, torch.full((len(logits),), self.label, device=logits.device))
        return (folded, *more) if more else folded


class Blind(nn.Module):
    """A network that may reject, as an adversary who does not know that sees it: the logits of its classes alone."""

    def __init__(self, classifier: nn.Module) -> None:
        super().__init__()
        self.classifier = classifier
        self.training = False

    def forward(self, x: Tensor, **options: Any) -> Any:
        """Logits (N, C), with the embedding where that is asked for."""
        found = self.classifier(x, **options)
        return (found[0][:, :-1], *found[1:]) if isinstance(found, tuple) else found[:, :-1]


def blinded(problem: Problem) -> Problem:
    """A problem as the adversary sees it who does not know that the network may reject; nor does its source tell."""
    source = problem.source
    if source is not None and rejects(source.classifier):
        source = blinded(source)
    classifier = Blind(problem.classifier)
    with torch.no_grad():
        logits = classifier(problem.x)
    return replace(problem, classifier=classifier, logits=logits, best=problem.x, source=source)


def by_label(problem: Problem) -> list[tuple[Tensor, Problem]]:
    """A problem in parts of one label each, as the adversary sees them who knows that the network may reject.

    Returns:
        Rows of the batch, and the problem of these.
    """
    found: list[tuple[Tensor, Problem]] = []
    for label in problem.y.unique().tolist():
        rows = (problem.y == label).nonzero()[:, 0]
        found.append((rows, _folded(problem.take(rows), label)))
    return found


def _folded(problem: Problem, label: int) -> Problem:
    source = None if problem.source is None else _folded(problem.source, label)
    classifier = Folded(problem.classifier, label) if rejects(problem.classifier) else problem.classifier
    return replace(problem, classifier=classifier, source=source)


def check_rejection(classifier: nn.Module, *, blind: list[str]) -> None:
    """Refuse a network that rejects and depends on the batch, and rows, by their labels, that are blind to nothing.

    Raises:
        ValueError: says which.
    """
    if blind and not rejects(classifier):
        raise ValueError(f"the network rejects nothing that an attack could be blind to: {', '.join(blind)}")
    if rejects(classifier) and getattr(classifier, "batch_dependent", False):
        raise ValueError("a network that rejects images can't depend on the batch: attacks take its images by label")
