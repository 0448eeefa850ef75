"""A network and the objective that it is trained with, put together."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import torch

from isce.losses import Objective
from isce.models.base import Classifier, Shape
from isce.models.registry import build


class ObjectiveChoice(Protocol):
    """An objective by its name, which can be built."""

    def build(self) -> Objective: ...  # noqa: D102


class Wrapper(Protocol):
    """What a defence makes of a classifier."""

    def seen(self, shape: Shape) -> Shape: ...  # noqa: D102
    def wrap(self, classifier: Classifier, shape: Shape) -> Classifier: ...  # noqa: D102


class DefenceChoice(Protocol):
    """A defence by its name, which can be built."""

    def build(self) -> Wrapper: ...  # noqa: D102


class Choice(Protocol):
    """What :func:`assemble` reads of the parameters of a training run, without needing that module's packages."""

    @property
    def model(self) -> str: ...  # noqa: D102
    @property
    def objective(self) -> ObjectiveChoice: ...  # noqa: D102
    @property
    def seed(self) -> int: ...  # noqa: D102
    @property
    def embedding_dim(self) -> int | None: ...  # noqa: D102
    @property
    def normalisation(self) -> str: ...  # noqa: D102
    @property
    def batch_statistics(self) -> bool: ...  # noqa: D102
    @property
    def defence(self) -> DefenceChoice | None: ...  # noqa: D102


def assemble(parameters: Choice, shape: Mapping[str, Any]) -> tuple[Classifier, Objective]:
    """A classifier and its objective with fresh weights, on the CPU; torch's global generator is left as it was.

    The backbone is drawn first, from the run's seed alone, so that runs that differ in the objective start from
    the same backbone. The mean image of the released normalisation is 0 until it is loaded or filled.

    Args:
        parameters: of the training run.
        shape: ``input_shape``, ``mean``, ``std`` and ``num_classes`` of the data.

    Raises:
        ValueError: parameters that the data's images don't fit.
    """
    channels, height, width = shape["input_shape"]
    given = channels, height, width
    defence = parameters.defence.build() if parameters.defence else None
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(parameters.seed)
        backbone = build(
            parameters.model,
            input_shape=defence.seen(given) if defence else given,
            mean=shape["mean"],
            std=shape["std"],
            embedding_dim=parameters.embedding_dim,
            batch_statistics=parameters.batch_statistics,
        )
        if parameters.normalisation == "released":
            backbone.normalise_as_released()
        objective = parameters.objective.build()
        score_map = backbone.scores(objective.score_map(backbone.embedding_dim, shape["num_classes"]))
        classifier = Classifier(backbone, score_map)
        if defence:
            classifier = defence.wrap(classifier, given)
    return classifier, objective
