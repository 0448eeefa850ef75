"""A network and the objective that it is trained with, put together."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import torch

from isce import losses
from isce.losses import Objective
from isce.models.base import Classifier
from isce.models.randomised import ResizePadClassifier, sides
from isce.models.registry import build

RESIZE_PAD = "resize-pad"  # the defence that is a part of the network


class Named(Protocol):
    """An objective or a defence by its registry name, with its parameters."""

    @property
    def name(self) -> str: ...  # noqa: D102
    @property
    def params(self) -> Mapping[str, Any]: ...  # noqa: D102


class Choice(Protocol):
    """What :func:`assemble` reads of the parameters of a training run, without needing that module's packages."""

    @property
    def model(self) -> str: ...  # noqa: D102
    @property
    def objective(self) -> Named: ...  # noqa: D102
    @property
    def seed(self) -> int: ...  # noqa: D102
    @property
    def embedding_dim(self) -> int | None: ...  # noqa: D102
    @property
    def normalisation(self) -> str: ...  # noqa: D102
    @property
    def batch_statistics(self) -> bool: ...  # noqa: D102
    @property
    def defence(self) -> Named | None: ...  # noqa: D102


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
    defence, shown = parameters.defence, tuple(shape["input_shape"])
    randomised = None
    if defence is not None and defence.name == RESIZE_PAD:
        randomised = sides(shown, **defence.params)
        shown = (shown[0], randomised.padded, randomised.padded)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(parameters.seed)
        backbone = build(
            parameters.model,
            input_shape=shown,
            mean=shape["mean"],
            std=shape["std"],
            embedding_dim=parameters.embedding_dim,
            batch_statistics=parameters.batch_statistics,
        )
        if parameters.normalisation == "released":
            backbone.normalise_as_released()
        objective = losses.build(parameters.objective.name, **parameters.objective.params)
        score_map = backbone.scores(objective.score_map(backbone.embedding_dim, shape["num_classes"]))
    if randomised is not None:
        return ResizePadClassifier(backbone, score_map, randomised), objective
    return Classifier(backbone, score_map), objective
