"""Defensive distillation (Papernot et al. 2016): a network trained on another's softened probabilities."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor

from isce.defences.base import Batch, Defence
from isce.losses.checks import number
from isce.models import Classifier

TEMPERATURE = 50.0


class Temperature(Defence):
    """Train on logits divided by a temperature; the network that is tested does not divide them.

    The teacher of :class:`Distillation`, and by itself half of what that defence does: at the test the logits are
    about T times as large as otherwise, so that a float32 softmax saturates and hides its gradient. The loss is
    multiplied by T, which the paper leaves open. The gradient for the logits is then as large as without a temperature,
    and stays so until the logits are T times as large. Digits need a fifth of the usual learning rate.

    Args:
        temperature: T, above 0.
    """

    name = "temperature"
    title = "temperature"
    source = "Papernot et al. 2016, the teacher"

    def __init__(self, temperature: float = TEMPERATURE) -> None:
        super().__init__()
        self.temperature = number("temperature", temperature, above=0)

    def loss(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """T times the objective of logits / T and the label."""
        return self._softened(batch, batch.y)

    def _softened(self, batch: Batch, target: Tensor) -> tuple[Tensor, Tensor]:
        logits, embedding = batch.outputs(batch.x)
        return self.temperature * batch.objective(logits / self.temperature, target, embedding), logits


class Distillation(Temperature):
    """Train on a teacher's probabilities softmax(z_teacher / T), with logits divided by T (Papernot et al. 2016).

    The teacher is the same network, from the same seed, trained on the labels at the same temperature for as long.

    Args:
        temperature: T, above 0; the paper has up to 100, DEEPSEC 50.
    """

    name = "distillation"
    title = "defensive distillation"
    source = "Papernot et al. 2016"
    soft = True

    def __init__(self, temperature: float = TEMPERATURE) -> None:
        super().__init__(temperature)
        self.teacher: Classifier | None = None

    def before(self) -> dict[str, Any]:
        """Name the teacher's run."""
        return {"name": Temperature.name, "params": {"temperature": self.temperature}}

    def begin(self, classifier: Classifier, first: Classifier) -> None:
        """Keep the teacher."""
        self.teacher = copy.deepcopy(first).eval().requires_grad_(False)

    def loss(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """T times the objective of logits / T and the teacher's probabilities at T."""
        assert self.teacher is not None
        with torch.no_grad():
            target = (self.teacher(batch.x).float() / self.temperature).softmax(1)
        return self._softened(batch, target)
