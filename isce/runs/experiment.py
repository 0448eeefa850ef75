"""Experiment files: grids of runs, checked before any work starts."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from isce.files import ROOT
from isce.parameters.analysis import ExplainParameters
from isce.parameters.attack import AttackParameters, CurvePlan, Suite
from isce.parameters.base import check_eps
from isce.parameters.training import ObjectiveSpec, TrainParameters
from isce.strict import Strict, load_named, validate

#: Tiers of experiments, by what they are meant for.
TIERS = {
    "A": "two CPU cores, hours",
    "B": "one GPU, about 20 minutes",
    "C": "the rest, when there is time",
}


class AttackPlan(Strict):
    """The attacks on some training runs of an experiment; ``suite`` names a file of ``experiments/suites``."""

    suite: str
    objectives: list[str] | None = Field(default=None, description="labels of the runs it is for; None: all")
    seeds: list[int] | None = Field(default=None, description="seeds of the runs it is for; None: all")
    norm: Literal["linf", "l2"] = "linf"
    eps: list[float] = Field(min_length=1)
    main_eps: float
    images: int | None = Field(default=None, ge=1)
    seed: int = Field(default=0, ge=0)
    batch_size: int | None = Field(default=256, ge=1)
    threads: int = Field(default=1, ge=1)
    curves: CurvePlan | None = None
    keep_points: bool = False

    @model_validator(mode="after")
    def _eps_fits(self) -> Self:
        check_eps(self.norm, self.eps)
        if self.main_eps not in self.eps:
            raise ValueError(f"main_eps {self.main_eps} is not among eps {self.eps}")
        return self

    def fits(self, label: str, seed: int) -> bool:
        """Whether it is for a training run with this objective and seed."""
        return (self.objectives is None or label in self.objectives) and (self.seeds is None or seed in self.seeds)

    def parameters(self, checkpoint: str, suite: Suite) -> AttackParameters:
        """Parameters of the attack run against one checkpoint."""
        own = self.model_dump(exclude={"suite", "main_eps", "objectives", "seeds"})
        return AttackParameters(checkpoint=checkpoint, suite=suite, **own)


class MinmaxPlan(Strict):
    """The min-max analysis of an experiment's checkpoints; see :class:`isce.parameters.analysis.MinmaxParameters`."""

    eps: list[float] = Field(min_length=1)
    inference: list[float] = Field(min_length=1)
    norm: Literal["linf", "l2"] = "linf"
    images: int | None = Field(default=200, ge=1)
    seeds: list[int] = Field(default=[0], min_length=1, description="training seeds whose checkpoints are analysed")

    @model_validator(mode="after")
    def _eps_fits(self) -> Self:
        check_eps(self.norm, self.eps)
        return self


class ExplainPlan(Strict):
    """Explain runs on some checkpoints of an experiment; see :class:`isce.parameters.analysis.ExplainParameters`."""

    gallery: str = Field(description="a file of experiments/suites: the attacks to show")
    eps: float | None = Field(default=None, gt=0, le=1, description="None: the attack plan's main_eps")
    images: int = Field(default=200, ge=10, le=1000)
    steps: int = Field(default=50, ge=1)
    gallery_images: int = Field(default=5, ge=1, le=10)
    objectives: list[str] | None = Field(default=None, description="labels of the runs it is for; None: all")
    seeds: list[int] = Field(default=[0], min_length=1, description="training seeds whose checkpoints are explained")

    def fits(self, label: str, seed: int) -> bool:
        """Whether it is for a training run with this objective and seed."""
        return (self.objectives is None or label in self.objectives) and seed in self.seeds

    def parameters(self, checkpoint: str, gallery: Suite, main_eps: float) -> ExplainParameters:
        """Parameters of the explain run of one checkpoint."""
        own = self.model_dump(exclude={"gallery", "eps", "objectives", "seeds"})
        return ExplainParameters(checkpoint=checkpoint, gallery=gallery, eps=self.eps or main_eps, **own)


class Experiment(Strict):
    """A grid of runs: one data set and network, objectives x seeds, attacks, perhaps min-max and explain runs."""

    name: str
    title: str
    tier: Literal["A", "B", "C"] | None = Field(default=None, description="what it is meant for; see TIERS")
    minutes: float | None = Field(default=None, gt=0, description="wall time, measured as `measured_on` says")
    measured_on: str | None = None
    objectives: list[ObjectiveSpec] = Field(min_length=1)
    seeds: list[int] = Field(min_length=1)
    training: dict[str, Any] = Field(default_factory=dict, description="TrainParameters without objective and seed")
    overrides: dict[str, dict[str, Any]] = Field(
        default_factory=dict, description="for an objective, by its label: what replaces values of ``training``"
    )
    attack: AttackPlan | list[AttackPlan] = Field(description="of several, the first that is for a run counts")
    minmax: MinmaxPlan | None = None
    explain: ExplainPlan | None = None
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
            for name in {"objective", "seed"} & set(values):
                raise ValueError(f"{name!r} belongs beside 'training', not inside {place!r}")
        unknown = sorted(set(self.minmax.seeds) - set(self.seeds)) if self.minmax else []
        if unknown:
            raise ValueError(f"minmax.seeds {unknown} are not among seeds {self.seeds}")
        self._explain_fits(labels)
        for objective, seed in itertools.product(self.objectives, self.seeds):
            self.plan(objective.label, seed)
        names = [name for name, _ in self.runs()]  # each combination must be valid on its own
        if self.shown not in (None, *names):
            raise ValueError(f"shown must name a run of the experiment, got {self.shown!r}; runs: {', '.join(names)}")
        return self

    def _explain_fits(self, labels: list[str]) -> None:
        if self.explain is None:
            return
        unknown: list[Any] = [label for label in self.explain.objectives or [] if label not in labels]
        unknown += [seed for seed in self.explain.seeds if seed not in self.seeds]
        if unknown:
            raise ValueError(f"explain is for {unknown}, which are no objectives or seeds here")
        if self.plans[0].norm != "linf" and self.explain.eps is None:
            raise ValueError("explain works in linf; the attack plan's main_eps is of another norm: give explain.eps")

    @model_validator(mode="after")
    def _plans_fit_together(self) -> Self:
        labels = [o.label for o in self.objectives]
        for plan in self.plans:
            unknown: list[Any] = [label for label in plan.objectives or [] if label not in labels]
            unknown += [seed for seed in plan.seeds or [] if seed not in self.seeds]
            if unknown:
                raise ValueError(
                    f"attack of suite {plan.suite!r} is for {unknown}, which are no objectives or seeds here"
                )
        if len({(plan.norm, plan.main_eps) for plan in self.plans}) > 1:
            raise ValueError("all attack plans of an experiment need the same norm and main_eps")
        return self

    @property
    def plans(self) -> list[AttackPlan]:
        """All attack plans."""
        return self.attack if isinstance(self.attack, list) else [self.attack]

    def plan(self, label: str, seed: int) -> AttackPlan:
        """The attack plan of one training run.

        Raises:
            ValueError: no plan is for it.
        """
        for plan in self.plans:
            if plan.fits(label, seed):
                return plan
        raise ValueError(f"no attack plan is for objective {label!r} with seed {seed}")

    def runs(self) -> Iterator[tuple[str, TrainParameters]]:
        """All training runs as (run name, parameters); the name is the objective's label and the seed."""
        for objective, seed in itertools.product(self.objectives, self.seeds):
            name = f"{objective.label}-s{seed}"
            values = self.training | self.overrides.get(objective.label, {}) | {"objective": objective, "seed": seed}
            yield name, validate(TrainParameters, values, f"run {name}")


def load_experiment(name: str, root: Path = ROOT) -> Experiment:
    """The experiment file ``experiments/<name>.yaml``, checked; an unknown name lists what exists."""
    return load_named(Experiment, name, root / "experiments", "experiment")
