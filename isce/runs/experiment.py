"""Experiment files: grids of runs, checked before any work starts."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from isce.files import ROOT
from isce.parameters.analysis import ExplainParameters, ExplainSettings, MinmaxParameters, MinmaxSettings
from isce.parameters.attack import AttackParameters, AttackSettings, Suite, check_main_eps
from isce.parameters.training import DefenceSpec, ObjectiveSpec, TrainParameters
from isce.strict import Strict, load_named, validate

#: Tiers of experiments, by what they are meant for.
TIERS = {
    "A": "two CPU cores, hours",
    "B": "one GPU",
}


class Plan(Strict):
    """The training runs of an experiment that runs of another kind are for."""

    objectives: list[str] | None = Field(
        default=None, min_length=1, description="labels of the runs it is for; None: all"
    )
    seeds: list[int] | None = Field(default=None, min_length=1, description="seeds of the runs it is for; None: all")

    def fits(self, training: TrainParameters) -> bool:
        """Whether it is for a training run."""
        label, seed = training.label, training.seed
        return label in (self.objectives or [label]) and seed in (self.seeds or [seed])

    def check(self, what: str, labels: list[str], seeds: list[int]) -> None:
        """Refuse labels and seeds that an experiment does not have (:class:`ValueError`)."""
        unknown: list[Any] = [label for label in self.objectives or [] if label not in labels]
        unknown += [seed for seed in self.seeds or [] if seed not in seeds]
        if unknown:
            raise ValueError(f"{what} is for {unknown}, which are no objectives or seeds here")


class AttackPlan(AttackSettings, Plan):
    """The attacks on some training runs of an experiment; ``suite`` names a file of ``experiments/suites``."""

    suite: str
    main_eps: float

    @model_validator(mode="after")
    def _main_eps_is_attacked(self) -> Self:
        check_main_eps(self.main_eps, self.eps)
        return self

    def parameters(self, checkpoint: str, suite: Suite) -> AttackParameters:
        """Parameters of the attack run against one checkpoint."""
        own = _only(AttackSettings, self)
        return AttackParameters(checkpoint=checkpoint, suite=suite, main_eps=self.main_eps, **own)


class MinmaxPlan(MinmaxSettings, Plan):
    """The min-max analysis of an experiment's checkpoints."""

    seeds: list[int] | None = Field(default=[0], min_length=1, description="seeds of the runs it is for; None: all")

    def parameters(self, checkpoint: str) -> MinmaxParameters:
        """Parameters of the min-max run of one checkpoint."""
        return MinmaxParameters(checkpoint=checkpoint, **_only(MinmaxSettings, self))


class ExplainPlan(ExplainSettings, Plan):
    """Explain runs on some checkpoints of an experiment."""

    gallery: str = Field(description="a file of experiments/suites: the attacks to show")
    eps: float | None = Field(default=None, gt=0, le=1, description="None: the attack plan's main_eps")
    seeds: list[int] | None = Field(default=[0], min_length=1, description="seeds of the runs it is for; None: all")

    def parameters(self, checkpoint: str, gallery: Suite, main_eps: float) -> ExplainParameters:
        """Parameters of the explain run of one checkpoint."""
        own = _only(ExplainSettings, self)
        return ExplainParameters(checkpoint=checkpoint, gallery=gallery, eps=self.eps or main_eps, **own)


def _only(settings: type[Strict], plan: Plan) -> dict[str, Any]:
    return plan.model_dump(include=set(settings.model_fields))


class Choice(ObjectiveSpec):
    """What an experiment compares: an objective, perhaps with a defence."""

    defence: DefenceSpec | None = None

    @property
    def label(self) -> str:
        """Short name, as :attr:`isce.parameters.training.TrainParameters.label`."""
        return super().label + (f"-{self.defence.label}" if self.defence else "")

    def training(self) -> dict[str, Any]:
        """Return the values of training parameters that it decides."""
        objective = ObjectiveSpec(name=self.name, params=self.params)
        return {"objective": objective} | ({"defence": self.defence} if self.defence else {})


class Experiment(Strict):
    """A grid of runs: one data set and network, objectives x seeds, attacks, perhaps min-max and explain runs."""

    name: str
    title: str
    tier: Literal["A", "B"] | None = Field(default=None, description="what it is meant for; see TIERS")
    minutes: float | None = Field(default=None, gt=0, description="wall time, measured as `measured_on` says")
    measured_on: str | None = None
    objectives: list[Choice] = Field(min_length=1)
    seeds: list[int] = Field(min_length=1)
    training: dict[str, Any] = Field(default_factory=dict, description="without objective, defence and seed")
    overrides: dict[str, dict[str, Any]] = Field(
        default_factory=dict, description="for an objective, by its label: what replaces values of ``training``"
    )
    attack: AttackPlan | list[AttackPlan] = Field(description="of several, the first that is for a run counts")
    minmax: MinmaxPlan | None = None
    explain: ExplainPlan | None = None
    beside: list[str] = Field(
        default_factory=list, description="experiments whose networks stand beside these in the table and figure `all`"
    )
    shown: str | None = Field(default=None, description="the run whose executed notebooks are kept and can be read")

    @model_validator(mode="after")
    def _expands(self) -> Self:
        if len(set(self.seeds)) != len(self.seeds):
            raise ValueError(f"seeds must differ, got {self.seeds}")
        labels = [o.label for o in self.objectives]
        if len(set(labels)) != len(labels):
            raise ValueError(f"objectives must differ, got {labels}")
        strangers = sorted(set(self.overrides) - set(labels))
        if strangers:
            raise ValueError(f"overrides name unknown objectives {strangers}; known: {', '.join(labels)}")
        for place, values in {"training": self.training, **self.overrides}.items():
            for name in {"objective", "defence", "seed"} & set(values):
                raise ValueError(f"{name!r} belongs beside 'training', not inside {place!r}")
        for label, values in self.overrides.items():  # no label says these: losses would not be all that differs
            for name in {"dataset", "model", "adversarial"} & set(values):
                raise ValueError(f"{name!r} belongs inside 'training', for all runs, not inside {label!r}")
        attacks = [(f"attack of suite {plan.suite!r}", plan) for plan in self.plans]
        for what, plan in [*attacks, ("minmax", self.minmax), ("explain", self.explain)]:
            if plan:
                plan.check(what, labels, self.seeds)
        if self.explain and self.explain.eps is None and self.plans[0].norm != "linf":
            raise ValueError("explain works in linf; the attack plan's main_eps is of another norm: give explain.eps")
        if len({(plan.norm, plan.main_eps) for plan in self.plans}) > 1:
            raise ValueError("all attack plans of an experiment need the same norm and main_eps")
        runs = dict(self.runs())  # each combination must be valid on its own
        for name, training in runs.items():
            if self.plan(training).draws and not training.randomised:
                raise ValueError(f"draws are for networks that draw at random, and {name} does not: plan it apart")
            if training.randomised and not self.plan(training).draws:
                raise ValueError(f"{name} draws at random when it is tested: its attack plan must say draws")
        if self.name in self.beside:
            raise ValueError(f"beside names other experiments, got {self.name!r} itself")
        if self.shown not in (None, *runs):
            raise ValueError(f"shown must name a run of the experiment, got {self.shown!r}; runs: {', '.join(runs)}")
        return self

    @property
    def plans(self) -> list[AttackPlan]:
        """All attack plans."""
        return self.attack if isinstance(self.attack, list) else [self.attack]

    def plan(self, training: TrainParameters) -> AttackPlan:
        """The attack plan of one training run.

        Raises:
            ValueError: no plan is for it.
        """
        for plan in self.plans:
            if plan.fits(training):
                return plan
        raise ValueError(f"no attack plan is for objective {training.label!r} with seed {training.seed}")

    def runs(self) -> Iterator[tuple[str, TrainParameters]]:
        """All training runs as (run name, parameters); the name is the objective's label and the seed."""
        yield from self._runs

    @functools.cached_property
    def _runs(self) -> list[tuple[str, TrainParameters]]:
        runs: list[tuple[str, TrainParameters]] = []
        for choice, seed in itertools.product(self.objectives, self.seeds):
            name = f"{choice.label}-s{seed}"
            values = self.training | self.overrides.get(choice.label, {}) | choice.training() | {"seed": seed}
            runs.append((name, validate(TrainParameters, values, f"run {name}")))
        return runs


def load_experiment(name: str, root: Path = ROOT) -> Experiment:
    """The experiment file ``experiments/<name>.yaml``, checked; an unknown name lists what exists."""
    return load_named(Experiment, name, root / "experiments", "experiment")
