"""The runs of an experiment: each with its parameters, its key and its folder."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from isce import data
from isce.attacks.spec import AttackSpec
from isce.files import ROOT
from isce.parameters.attack import Suite, load_suite
from isce.parameters.base import RunParameters
from isce.parameters.training import TrainParameters
from isce.runs.experiment import Experiment
from isce.runs.key import key
from isce.runs.records import Kind
from isce.runs.whole import CHECKPOINT
from isce.strict import ConfigError


@dataclass(frozen=True)
class Run:
    """One execution of one notebook: its parameters, its key and its folder."""

    kind: Kind
    experiment: str
    name: str
    objective: str
    key: str
    parameters: dict[str, Any]
    needs: tuple[str, ...] = ()
    """Training runs whose checkpoints it works on."""

    @property
    def folder(self) -> str:
        """Folder of the run relative to ``build/runs`` and to ``results``."""
        return f"{self.experiment}/{self.kind}/{self.name}"

    @property
    def sources(self) -> list[str]:
        """Folders of the training runs that it needs."""
        return [f"{self.experiment}/train/{name}" for name in self.needs]


def planned_runs(experiment: Experiment, root: Path = ROOT) -> list[Run]:
    """All runs of an experiment: each training run, then what is done with its checkpoint."""
    suites = {plan.suite: load_suite(plan.suite, root) for plan in experiment.plans}

    def run(kind: Kind, name: str, training: TrainParameters, own: RunParameters, *needs: Run) -> Run:
        found = key(kind, own, data.SETS[training.dataset].sha256, {_checkpoint(other): other.key for other in needs})
        values, names = own.model_dump(mode="json"), tuple(other.name for other in needs)
        return Run(kind, experiment.name, name, training.label, found, values, names)

    trained = {name: (training, run("train", name, training, training)) for name, training in experiment.runs()}
    found = [train for _, train in trained.values()]
    for name, (training, train) in trained.items():
        plan = experiment.plan(training)
        suite, sources = _with_sources(suites[plan.suite], train, {n: other for n, (_, other) in trained.items()})
        found.append(run("attack", name, training, plan.parameters(_checkpoint(train), suite), train, *sources))
        if experiment.minmax and experiment.minmax.fits(training):
            found.append(run("minmax", name, training, experiment.minmax.parameters(_checkpoint(train)), train))
        if experiment.explain and experiment.explain.fits(training):
            shown = load_suite(experiment.explain.gallery, root)
            explain = experiment.explain.parameters(_checkpoint(train), shown, plan.main_eps)
            found.append(run("explain", name, training, explain, train))
    return found


def _checkpoint(train: Run) -> str:
    return f"build/runs/{train.folder}/{CHECKPOINT}"


def _with_sources(suite: Suite, target: Run, trained: Mapping[str, Run]) -> tuple[Suite, list[Run]]:
    """The suite with the checkpoint of each source in the place of its training run's name, and those runs.

    The row of a source that is the target itself is left out: it would be a white-box attack.

    Raises:
        ConfigError: a source is no training run of the experiment.
    """
    rows: list[AttackSpec] = []
    sources: dict[str, Run] = {}
    for row in suite.rows:
        if row.source is None:
            rows.append(row)
        elif row.source not in trained:
            raise ConfigError(f"suite {suite.name!r}: source {row.source!r} is none of the runs {', '.join(trained)}")
        elif row.source != target.name:
            sources[row.source] = trained[row.source]
            rows.append(row.model_copy(update={"source": _checkpoint(trained[row.source])}))
    return Suite(name=suite.name, rows=rows, survivors_only=suite.survivors_only), list(sources.values())
