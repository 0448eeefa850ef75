"""Batches as a training run shows them to a defence, of networks small enough to compute by hand."""

from __future__ import annotations

import torch
from torch import nn

from isce import data, losses
from isce.defences import Batch
from isce.models import Classifier
from isce.models.assembly import assemble
from isce.models.base import Backbone
from isce.parameters.training import TrainParameters


class Flat(Backbone):
    """The embedding is the image."""

    def __init__(self, shape=(1, 1, 2)):
        super().__init__(shape, (0.0,) * shape[0], (1.0,) * shape[0])
        self.embedding_dim = shape[0] * shape[1] * shape[2]

    def features(self, x):
        return x.flatten(1)


def linear(weight, bias=None, shape=(1, 1, 2)) -> Classifier:
    """Logits ``weight`` x + ``bias`` of flat images, float64."""
    weight = torch.tensor(weight, dtype=torch.float64)
    score_map = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None).double()
    with torch.no_grad():
        score_map.weight.copy_(weight)
        if bias is not None:
            score_map.bias.copy_(torch.tensor(bias))
    return Classifier(Flat(shape).double(), score_map)


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
    return Batch(x, y, classifier, outputs, objective, draws, classifier.score_map(outputs(x)[1]).shape[1], 0.0)


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
