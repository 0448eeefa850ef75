"""What every defence shares: the batch that it is shown, and what it may change about a training run."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from isce.losses import Objective
from isce.models import Classifier
from isce.models.base import Shape


@dataclass(frozen=True)
class Batch:
    """One batch of a training run, before the step.

    Attributes:
        x: images (N, C, H, W) in [0, 1].
        y: labels (N,), int64.
        classifier: the network, in training mode.
        outputs: gives logits (N, K) and embedding (N, D) of images, in float32, as the run computes them.
        objective: its training loss.
        draws: generator on the CPU, keyed by the run's seed and the epoch; batches draw from it in turn.
        classes: number of classes.
    """

    x: Tensor
    y: Tensor
    classifier: Classifier
    outputs: Callable[[Tensor], tuple[Tensor, Tensor]]
    objective: Objective
    draws: torch.Generator
    classes: int

    def seed(self) -> int:
        """Draw a seed for a library that has a generator of its own."""
        return int(torch.randint(2**62, (1,), generator=self.draws))


@dataclass(frozen=True)
class Setting:
    """What a defence may ask about the run that it is to go with.

    Attributes:
        model: name of the network.
        shape: of the data's images (C, H, W).
        adversarial: whether the run trains on attacked images of its own.
        normalisation: ``channel`` or ``released``, as ``TrainParameters`` has it.
        precision: ``float32``, ``bfloat16`` or ``auto``, likewise.
    """

    model: str
    shape: Shape
    adversarial: bool
    normalisation: str
    precision: str


class Defence(nn.Module):
    """A choice about training that goes with any objective, unless :meth:`check` refuses it.

    A subclass implements :meth:`loss`. It learns no weights of its own and keeps nothing from batch to batch; what it
    leaves behind is the classifier, to which it may add parts (:meth:`wrap`).
    """

    name: ClassVar[str]
    """Name in the registry."""
    title: ClassVar[str]
    """Name for readers."""
    source: ClassVar[str]
    """Where it comes from: authors and year."""
    measure: ClassVar[str] = "validation_accuracy"
    """Figure of an epoch, the larger the better, by which the best epoch is chosen."""
    soft: ClassVar[bool] = False
    """Whether it trains on probabilities as targets, which some objectives don't take."""
    randomised: ClassVar[bool] = False
    """Whether the network draws at random when it is tested, too; see :mod:`isce.models.randomised`."""

    def check(self, objective: Objective) -> None:
        """Refuse an objective that the defence is not defined for; here one that trains on bounds over the ball.

        One that takes no probabilities as targets, too, where the defence trains on them.

        Raises:
            ValueError: names the objective, the defence and the reason.
        """
        if objective.needs_bounds:
            raise ValueError(f"{self.name} has no bounds, and {objective.name} trains on bounds over the ball")
        if self.soft and "soft" in objective.exempt:
            reason = objective.exempt["soft"]
            raise ValueError(f"{self.name} trains on probabilities, and {objective.name} takes none: {reason}")

    def check_run(self, run: Setting) -> None:
        """Refuse a run that it can't go with (:class:`ValueError`); here none."""

    def seen(self, shape: Shape) -> Shape:
        """Give the shape of images (C, H, W) that the backbone is built for; here that of the data."""
        return shape

    def wrap(self, classifier: Classifier, shape: Shape) -> Classifier:
        """Make the network that is trained and tested of a fresh one, on the CPU; here that very network.

        Args:
            classifier: for images as :meth:`seen`.
            shape: of the data's images (C, H, W).
        """
        return classifier

    def learnt(self, classifier: Classifier, objective: Objective) -> list[nn.Parameter]:
        """Weights that the optimizer moves; here all."""
        # A score map may hold weights of its objective: each only once.
        return list(dict.fromkeys([*classifier.parameters(), *objective.parameters()]))

    def before(self) -> dict[str, Any] | None:
        """Name the defence of the run that must come first, by ``name`` and ``params``.

        None: no run comes first. An empty mapping: the same run without a defence.
        """
        return None

    def begin(self, classifier: Classifier, first: Classifier) -> None:
        """Take over what it needs from the network of the run that came first; here nothing.

        A run that goes on after it was killed begins in the same way, and then takes up its own weights.

        Args:
            classifier: the fresh network of this run.
            first: the network that the run before ended with.
        """

    def draw(self, classifier: Classifier, draws: torch.Generator) -> None:
        """Draw what the network is to compute with during a batch, before anything else is done; here nothing.

        Args:
            classifier: the network, in training mode.
            draws: as in :class:`Batch`.
        """

    def loss(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Compute what the step goes down; here the objective.

        Returns:
            The loss, a scalar; and logits (N, K), from which the accuracy while training is counted.
        """
        logits, embedding = batch.outputs(batch.x)
        return batch.objective(logits, batch.y, embedding), logits

    def after_epoch(self, batches: Iterable[Batch]) -> dict[str, float]:
        """Choose what is chosen on the validation split, and return further figures of the epoch; here none.

        Args:
            batches: all of the split, with the network in evaluation mode; gradients are disabled.
        """
        return {}

    def after_step(self, classifier: Classifier) -> None:
        """Change the network after a step of the optimizer; here nothing."""


@contextmanager
def seeded(seed: int) -> Generator[None]:
    """Seed torch's global generator on the CPU inside, for a library that draws from it; afterwards it is as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        yield


def divergence(log_p: Tensor, logits: Tensor) -> Tensor:
    """KL(p || softmax(logits)) of each image (N,), from log-probabilities and logits (N, K)."""
    return (log_p.exp() * (log_p - logits.log_softmax(1))).sum(1)
