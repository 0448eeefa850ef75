"""Reference tables read from the project's own files: experiments and their cost, networks, packages."""

from __future__ import annotations

import functools
import json
import re
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import yaml

from isce import models
from isce.data.sets import SETS
from isce.parameters.training import TrainParameters
from isce.report.exhibits import Table
from isce.report.plots.runs import eps_text
from isce.runs.experiment import Experiment, load_experiment

NOT_RUN = "not run yet"
EXTRAS = {
    "": "losses and networks alone",
    "attacks": "attacks",
    "workflow": "experiments",
    "book": "the book",
    "cluster": "a cluster",
    "dev": "development",
}
# Their packages carry no licence in their metadata; their repositories do.
ELSEWHERE = {"advertorch": "LGPL-3.0", "axe-playwright-python": "MIT"}


@dataclass(frozen=True)
class Files:
    """The files that tables are made of.

    Attributes:
        root: the project's folder.
        report: folder of the reports.
        note: to be called with every file that is read: the page is read again when the file changes.
    """

    root: Path
    report: Path
    note: Callable[[Path], None]


read = functools.cache(load_experiment)  # a build reads each file for many pages


def runs_of(experiment: Experiment) -> dict[str, int]:
    """Return the number of runs of each kind an experiment file asks for."""
    trained = list(experiment.runs())
    minmax, explain = experiment.minmax, experiment.explain
    return {
        "train": len(trained),
        "attack": len(trained),
        "minmax": sum(minmax.fits(own) for _, own in trained) if minmax else 0,
        "explain": sum(explain.fits(own) for _, own in trained) if explain else 0,
    }


def each(files: Files) -> Iterator[Experiment]:
    """Return every experiment file in the order of the names; the page depends on it."""
    for path in sorted((files.root / "experiments").glob("*.yaml")):
        files.note(path)
        yield read(path.stem)


def experiments(files: Files) -> Table:
    """Return every experiment file: its runs, those with a record, what they took."""
    rows: list[list[str]] = []
    for experiment in each(files):
        numbers = files.report / experiment.name / "numbers.json"
        files.note(numbers)
        found = json.loads(numbers.read_text(encoding="utf-8")) if numbers.is_file() else None
        hand, hours = (found[name]["text"] if found else "" for name in ("runs", "hours"))
        networks = f"{len(experiment.objectives)} x {len(experiment.seeds)}"
        whole = f"{experiment.minutes:g} min: {experiment.measured_on}" if experiment.minutes else ""
        tier = experiment.tier or ""
        counts = [networks, str(sum(runs_of(experiment).values())), hand.split(" ")[0] or NOT_RUN, hours]
        rows.append([experiment.name, experiment.title, tier, *counts, whole])
    caption = (
        "Every experiment file; networks are losses times seeds. Hours are the sum over the records, by "
        "the clock, with whatever else ran beside them; what the whole takes stands where it was measured in one go."
    )
    return Table(
        columns=["experiment", "what it is", "tier", "networks", "runs", "records", "hours", "whole"],
        rows=rows,
        caption=caption,
    )


def effort(files: Files) -> Table:
    """Return what the records took: one row for every experiment file, whether run or not."""
    rows: list[list[str]] = []
    for experiment in each(files):
        numbers = files.report / experiment.name / "numbers.json"
        files.note(numbers)
        if numbers.is_file():
            found = json.loads(numbers.read_text(encoding="utf-8"))
            row = [found[name]["text"] for name in ("runs", "hours", "machines")]
        else:
            row = [f"0 of {sum(runs_of(experiment).values())}", NOT_RUN, ""]
        rows.append([experiment.name, experiment.title, *row])
    caption = (
        "Runs with a record, of those that each experiment file asks for, their hours in sum, and their processors."
    )
    return Table(columns=["experiment", "what it is", "runs done", "hours", "on"], rows=rows, caption=caption)


def protocols(files: Files) -> Table:
    """Return how every experiment trains: one row for each set of objectives that are trained alike."""
    rows: list[list[str]] = []
    for experiment in each(files):
        alike: dict[tuple[str, ...], list[str]] = {}
        for _, run in experiment.runs():
            labels = alike.setdefault(_protocol(run), [])
            if run.label not in labels:
                labels.append(run.label)
        most = max(alike.values(), key=len)
        for values, labels in alike.items():
            whom = "all" if len(alike) == 1 else "all others" if labels is most else ", ".join(labels)
            rows.append([experiment.name, whom, *values])
    caption = (
        "How each experiment trains. Rates are those of the first step, before the schedule that is named; passes are "
        "forward and backward passes over the training data, of which adversarial training has more than epochs."
    )
    columns = ["experiment", "objectives", "network", "epochs", "batch", "optimiser", "augment", "training"]
    return Table(columns=columns, rows=rows, caption=caption)


def _protocol(run: TrainParameters) -> tuple[str, ...]:
    epochs = f"{run.epochs} ({run.passes} passes)" if run.passes != run.epochs else f"{run.epochs}"
    rate = f"{run.optimizer.name} {run.optimizer.lr:g}, {run.schedule.name}"
    kind = f"{run.adversarial.kind}, eps {eps_text(run.adversarial.eps)}" if run.adversarial else "ordinary"
    return run.model, epochs, str(run.batch_size), rate, run.augment, kind


def evaluations(files: Files) -> Table:
    """Return how every experiment attacks: one row for each of its plans."""
    rows: list[list[str]] = []
    for experiment in each(files):
        for plan in experiment.plans:
            whom = ", ".join(plan.objectives or ["all" if len(experiment.plans) == 1 else "all other runs"])
            seeds = ", ".join(map(str, plan.seeds or experiment.seeds))
            grid = ", ".join(eps_text(eps).partition(" (")[0] for eps in plan.eps)
            images = f"{plan.images:,}" if plan.images else "all"
            rows.append([experiment.name, whom, seeds, plan.suite, plan.norm, grid, eps_text(plan.main_eps), images])
    caption = "How each experiment attacks: suite, sizes of the ball, the one that verdicts are about, images."
    return Table(
        columns=["experiment", "objectives", "seeds", "suite", "norm", "eps", "main eps", "test images"],
        rows=rows,
        caption=caption,
    )


def networks(files: Files) -> Table:
    """Return the networks of the experiments, with their weights counted on the data they are used for."""
    seen: dict[tuple[str, str], list[str]] = {}
    for experiment in each(files):
        _, run = next(experiment.runs())
        seen.setdefault((run.model, run.dataset), []).append(experiment.name)
    rows: list[list[str]] = []
    for (model, dataset), used in seen.items():
        shape = SETS[dataset].shape
        backbone = models.build(model, input_shape=shape, mean=(0.0,) * shape[0], std=(1.0,) * shape[0])
        count = sum(weight.numel() for weight in backbone.parameters())
        about = (type(backbone).__doc__ or "").strip().splitlines()[0]
        rows.append([model, dataset, about, f"{backbone.embedding_dim}", f"{count:,}", ", ".join(used)])
    caption = "Networks, without the last layer, which is the objective's own; weights as counted for these data."
    return Table(
        columns=["network", "data", "what it is", "embedding", "weights", "experiments"], rows=rows, caption=caption
    )


def packages(files: Files) -> Table:
    """Return every package that the project asks for by name, pinned, with its licence as its own metadata state it."""
    pinned, declared = files.root / "environment.yml", files.root / "pyproject.toml"
    files.note(pinned)
    files.note(declared)
    project = tomllib.loads(declared.read_text(encoding="utf-8"))["project"]
    uses = {_name(entry): EXTRAS[""] for entry in project["dependencies"]}
    for extra, entries in project["optional-dependencies"].items():
        uses |= {_name(entry): EXTRAS[extra] for entry in entries}
    rows: list[list[str]] = []
    for entry in yaml.safe_load(pinned.read_text(encoding="utf-8"))["dependencies"][-1]["pip"]:
        name, _, version = entry.partition("==")
        if version:
            rows.append([name, version, uses[name], licence(name)])
    caption = "Packages that the project names, pinned; requirements.lock pins those that they need in turn."
    return Table(columns=["package", "version", "for", "licence"], rows=sorted(rows), caption=caption)


def _name(entry: str) -> str:
    return re.split(r"[^\w.-]", entry, maxsplit=1)[0]


def licence(package: str) -> str:
    """Return a package's licence from its metadata: the expression, else the classifier, else a short text."""
    about: Any = metadata.metadata(package)
    if expression := about.get("License-Expression"):
        return str(expression)
    stated = [line.rpartition(" :: ")[2] for line in about.get_all("Classifier") or [] if line.startswith("License ::")]
    if stated:
        return ", ".join(stated)
    text = str(about.get("License") or "")
    return text if text and len(text) < 60 else ELSEWHERE.get(package, "see its repository")
