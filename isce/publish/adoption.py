"""Own finished records become the committed ones: the small files of each run, whole or not at all."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from isce.files import sha256, write_atomic
from isce.report.write import draw
from isce.runs import executed, plan, records, whole
from isce.runs.experiment import load_experiment
from isce.runs.run import Run, planned_runs
from isce.strict import ConfigError

#: What the README shows of an experiment.
PICTURE = "robust"


def adopt(name: str, build: Path, results: Path, partial: bool = False) -> tuple[int, int]:
    """Replace an experiment's committed records by own ones; refused unless every run is done, current and whole.

    Args:
        name: the experiment.
        build: the build folder, with own runs.
        results: folder of the committed records.
        partial: the runs that are done, current and whole replace theirs, and the other committed records stay.

    Returns:
        How many runs were adopted, and how many the experiment has.

    Raises:
        ConfigError: a run is not finished (none is, with ``partial``).
    """
    experiment, source = load_experiment(name), build / "runs"
    runs = planned_runs(experiment)
    finished = done(runs, build, partial)
    if not finished:
        raise ConfigError(f"no finished run of {name}: `make reproduce` first")
    target, fresh = results / name, results / f".{name}.new"  # whole before the former ones go: the disk may be full
    if fresh.exists():
        shutil.rmtree(fresh)
    try:
        for run in runs:
            former, place = target / run.kind / run.name, fresh / name / run.kind / run.name
            if run in finished:
                _copy_record(source / run.folder, place)
                if run.name == experiment.shown:
                    _copy_notebook(source / run.folder, place, run.kind)
            elif former.exists():
                shutil.copytree(former, place)
        _draw(name, fresh)
        if target.exists():
            shutil.rmtree(target)
        (fresh / name).replace(target)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
    return len(finished), len(runs)


def done(runs: Sequence[Run], build: Path, partial: bool = False) -> list[Run]:
    """Return the runs that ``make reproduce`` would not do again: done, current, whole, after the training they need.

    Args:
        runs: of an experiment, each after those that it needs.
        build: the build folder.
        partial: leave out those that are not done.

    Raises:
        ConfigError: one is not done, and ``partial`` is False.
    """
    due = plan.due(runs, build)
    for run in runs if not partial else ():
        if problem := due.get(run.folder):
            advice = f"`make reproduce EXPERIMENT={run.experiment}` first"
            raise ConfigError(f"{run.kind} {run.name}: {problem}; {advice}, or adopt what is done (--partial)")
    return [run for run in runs if run.folder not in due]


def _draw(name: str, folder: Path) -> None:
    """Draw the experiment's picture from the records that are going to be the committed ones."""
    if picture := draw(name, folder, PICTURE):
        write_atomic(folder / name / f"{PICTURE}.svg", picture)


def _copy_record(source: Path, target: Path) -> None:
    """Copy a record and its small side files: no checkpoints, nor every adversarial point."""
    small = (records.EXAMPLES, records.MASKS, records.DISTANCES, records.EXPLAIN)
    side = [name for name in records.read(source / "record.json").files if name in small]
    for name in [*side, "record.json"]:
        write_atomic(target / name, (source / name).read_bytes())


def _copy_notebook(source: Path, target: Path, kind: str) -> None:
    """Copy an executed notebook without what belongs to the machine that ran it."""
    cleaned = executed.clean(source / records.NOTEBOOK, kind)
    write_atomic(target / records.NOTEBOOK, cleaned)
    write_atomic(target / whole.NOTEBOOK_HASH, sha256(cleaned))
