"""Typed, validated parameters of one training run.

Notebooks, experiment files and the workflow are all checked with these models, before any work starts. Every model
refuses unknown names, wrong types and values out of range with an error that names the value and what is allowed.
"""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import Field, field_validator, model_validator
from torch import nn

from isce import data, defences, losses, models
from isce.parameters.base import RunParameters
from isce.parameters.semantics import number
from isce.strict import Strict, check_known, read_exponents


class Named(Strict):
    """An entry of a registry by its name, with its parameters."""

    name: str
    params: dict[str, Any] = Field(default_factory=dict)

    @field_validator("params", mode="before")
    @classmethod
    def _numbers(cls, value: Any) -> Any:
        return read_exponents(value)

    @model_validator(mode="after")
    def _buildable(self) -> Self:
        try:
            self.build()
        except TypeError as error:
            raise ValueError(str(error)) from error
        return self

    def build(self) -> nn.Module:
        """Build a new one."""
        raise NotImplementedError

    @property
    def label(self) -> str:
        """Short name with its parameters, fit for a file name: ``isce-m2``, ``sce``, ``mixup-alpha0.2``."""
        short = {"inference": "m", "scale": "s"}
        parts = [f"{short.get(key, key)}{_slug(value)}" for key, value in sorted(self.params.items())]
        return "-".join([self.name, *parts])


def _slug(value: Any) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    text = f"{value:g}" if isinstance(value, int | float) else str(value)
    return "".join(c if c.isalnum() or c in ".-" else "_" for c in text)


class ObjectiveSpec(Named):
    """A training objective by its registry name, with the parameters of ``isce.losses.build``."""

    def build(self) -> losses.Objective:
        """Build the objective."""
        return losses.build(self.name, **self.params)


class DefenceSpec(Named):
    """A defence by its registry name, with the parameters of ``isce.defences.build``."""

    def build(self) -> defences.Defence:
        """Build the defence."""
        return defences.build(self.name, **self.params)


class OptimizerSpec(Strict):
    """SGD (with momentum) or Adam; ``lr`` is the initial learning rate."""

    name: Literal["sgd", "adam"] = "sgd"
    lr: float = Field(default=0.05, gt=0)
    momentum: float = Field(default=0.9, ge=0, lt=1)
    nesterov: bool = False
    weight_decay: float = Field(default=0.0, ge=0)

    @model_validator(mode="after")
    def _momentum_needs_sgd(self) -> Self:
        if self.nesterov and (self.name != "sgd" or self.momentum == 0):
            raise ValueError("nesterov needs sgd with momentum above 0")
        if self.name != "sgd" and self.momentum != type(self).model_fields["momentum"].default:
            raise ValueError(f"momentum is for sgd; {self.name} would not use it, got {self.momentum}")
        return self


class ScheduleSpec(Strict):
    """Learning rate over the run: constant, cosine to 0, or times ``gamma`` at each milestone (share of all steps)."""

    name: Literal["constant", "cosine", "step"] = "cosine"
    milestones: list[float] = Field(default_factory=list)
    gamma: float = Field(default=0.1, gt=0, lt=1)

    @model_validator(mode="after")
    def _milestones_in_order(self) -> Self:
        if any(not 0 < m < 1 for m in self.milestones) or sorted(set(self.milestones)) != self.milestones:
            raise ValueError(f"milestones must rise strictly within (0, 1), got {self.milestones}")
        if (self.name == "step") != bool(self.milestones):
            raise ValueError("milestones belong to the schedule 'step', and it needs at least one")
        if self.name != "step" and self.gamma != type(self).model_fields["gamma"].default:
            raise ValueError(f"gamma belongs to the schedule 'step'; {self.name!r} would not use it, got {self.gamma}")
        return self


class AdversarialSpec(Strict):
    """Adversarial training against the l_inf ball, on the objective's matched function.

    Run by :mod:`isce.defences.adversarial`.

    * ``pgd`` (Madry et al. 2018): each update on the points that ``steps`` steps of projected ascent from a random
      start reach, on nothing else.
    * ``free`` (Shafahi et al. 2019): each batch is replayed ``steps`` times; every replay updates weights and
      perturbation at once, and the perturbation is carried on, from batch to batch and from epoch to epoch.
    """

    kind: Literal["pgd", "free"]
    eps: float = Field(gt=0, le=1, description="radius, in units of [0, 1]")
    steps: int = Field(ge=1, description="pgd: steps of the inner ascent; free: replays of each batch")
    step_size: float = Field(gt=0, le=1, description="of the ascent, in units of [0, 1]; free: the paper's is eps")

    @property
    def passes(self) -> int:
        """Forward and backward passes over the data in one epoch: with ``pgd`` that of the update counts too."""
        return self.steps + (self.kind == "pgd")


class TrainParameters(RunParameters):
    """Everything that decides the weights of one training run (on one kind of machine and one set of versions)."""

    dataset: str = "digits"
    model: str = "small-cnn"
    embedding_dim: int | None = Field(default=None, ge=2)
    objective: ObjectiveSpec = Field(default_factory=lambda: ObjectiveSpec(name="sce"))
    seed: int = Field(default=0, ge=0, lt=2**31)
    epochs: int = Field(default=30, ge=1, description="walks through the data, however often each batch is replayed")
    batch_size: int = Field(default=64, ge=1)
    train_images: int | None = Field(
        default=None, ge=1, description="stratified subset of the training split; None: all"
    )
    augment: Literal["none", "shift-flip"] = "none"
    optimizer: OptimizerSpec = Field(default_factory=OptimizerSpec)
    schedule: ScheduleSpec = Field(default_factory=ScheduleSpec)
    precision: Literal["float32", "bfloat16", "auto"] = Field(
        default="float32", description="auto: bfloat16 where the processor computes in it, else float32"
    )
    threads: int = Field(default=1, ge=1, description="CPU threads; a recorded parameter, since it can change bits")
    adversarial: AdversarialSpec | None = Field(default=None, description="None: standard training")
    defence: DefenceSpec | None = Field(
        default=None, json_schema_extra={"neutral": None}, description="a defence that the paper names; None: no other"
    )
    normalisation: Literal["channel", "released"] = Field(
        default="channel", description="inside the network: by channel, or as the released script prepares images"
    )
    batch_statistics: bool = Field(
        default=False, description="batch normalisation by the batch at hand in evaluation too, as released"
    )

    def parts(self) -> list[str]:
        """Name objective, network, adversarial training and defence, as ``isce.parameters.semantics`` does.

        The defence of a run that comes first is named once its number is above 1.
        """
        adversarial = [f"adversarial.{self.adversarial.kind}"] if self.adversarial else []
        defence = [f"defence.{self.defence.name}"] if self.defence else []
        first = self.defence.build().before() if self.defence else None
        if first and number(f"defence.{first['name']}") > 1:
            defence.append(f"defence.{first['name']}")
        return [f"objective.{self.objective.name}", f"network.{self.model}", *adversarial, *defence]

    @property
    def label(self) -> str:
        """Short name of what is compared in an experiment: the objective, and the defence where there is one."""
        return self.objective.label + (f"-{self.defence.label}" if self.defence else "")

    @property
    def randomised(self) -> bool:
        """Whether the trained network draws at random when it is tested."""
        return self.defence is not None and defences.about(self.defence.name).randomised

    @property
    def passes(self) -> int:
        """Forward and backward passes over the data in the whole run."""
        return self.epochs * (self.adversarial.passes if self.adversarial else 1)

    @field_validator("dataset")
    @classmethod
    def _dataset(cls, value: str) -> str:
        return check_known(value, "data set", data.names())

    @field_validator("model")
    @classmethod
    def _model(cls, value: str) -> str:
        return check_known(value, "model", models.names())

    @model_validator(mode="after")
    def _bounds_instead_of_attacks(self) -> Self:
        if self.adversarial and self.objective.build().needs_bounds:
            raise ValueError(f"{self.objective.name} trains on bounds over the ball: adversarial must be None")
        return self

    @model_validator(mode="after")
    def _defence_fits(self) -> Self:
        if self.defence:
            built = self.defence.build()
            built.check(self.objective.build())
            built.check_run(
                defences.Setting(
                    model=self.model,
                    shape=data.SETS[self.dataset].shape,
                    adversarial=self.adversarial is not None,
                    normalisation=self.normalisation,
                    precision=self.precision,
                )
            )
            if self.adversarial and self.adversarial.kind == "free":
                raise ValueError(
                    f"defence {self.defence.name} can't go with free adversarial training: kind must be pgd"
                )
        return self

    @model_validator(mode="after")
    def _has_batch_statistics(self) -> Self:
        if self.batch_statistics:
            models.check_batch_statistics(self.model)
        return self
