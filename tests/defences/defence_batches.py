"""Batches as a training run shows them to a defence, of networks small enough to compute by hand."""

from __future__ import annotations

import torch

from isce import data, losses
from isce.defences import Batch
from isce.models.assembly import assemble
from isce.parameters.training import TrainParameters


def flat(rows) -> torch.Tensor:
    """Images (N, 1, 1, D) of these pixels, float64."""
    return torch.tensor(rows, dtype=torch.float64)[:, None, None, :]


def batch_of(classifier, x, y, objective: str | losses.Objective = "sce", seed=0) -> Batch:
    """A batch of this network; ``objective`` is a name or an objective."""
    if isinstance(objective, str):
        objective = losses.build(objective)
    y = torch.as_tensor(y)

    def outputs(point):
        return classifier(point, return_embedding=True)

    draws = torch.Generator().manual_seed(seed)
    return Batch(x, y, classifier, outputs, objective, draws, classifier.score_map(outputs(x)[1]).shape[1])


def shown_to(batch: Batch) -> list[torch.Tensor]:
    """Images that the network is shown from here on, call by call."""
    shown, outputs = [], batch.outputs
    object.__setattr__(batch, "outputs", lambda x: (shown.append(x.detach()), outputs(x))[1])
    return shown


def points(number: int, size: int, classes: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Images (number, 1, 1, size) in [0, 1], float64, and labels."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.rand(number, 1, 1, size, generator=generator, dtype=torch.float64)
    return x, torch.randint(classes, (number,), generator=generator)


def digits_batch(objective="sce", n=12, seed=0, double=False, network_seed=0, defence=None) -> Batch:
    """A batch of digits under a fresh small-cnn, as a defence by this name makes it."""
    digits = data.load("digits")
    given = {"objective": {"name": objective}, "seed": network_seed}
    parameters = TrainParameters.model_validate(given | ({"defence": {"name": defence}} if defence else {}))
    shape = {name: getattr(digits, name) for name in ("input_shape", "mean", "std", "num_classes")}
    classifier, built = assemble(parameters, shape)
    part = digits.train.subset(60).select(torch.arange(n))
    x = part.unit()
    if double:
        classifier, built, x = classifier.double(), built.double(), x.double()
    return batch_of(classifier.train(), x, part.labels, built.train(), seed)
