"""Own finished records become the committed ones: the small files of each run, whole or not at all."""

from __future__ import annotations

import shutil
from pathlib import Path

from isce.files import RecordError, sha256, write_atomic
from isce.report.write import draw
from isce.runs import executed, records, whole
from isce.runs.experiment import load_experiment
from isce.runs.run import Run, planned_runs
from isce.strict import ConfigError

#: What the README shows of an experiment.
PICTURE = "robust"


def adopt(name: str, source: Path, results: Path, partial: bool = False) -> tuple[int, int]:
    """Replace an experiment's committed records by own ones; refused unless every run is done, current and whole.

    Args:
        name: the experiment.
        source: folder of own runs (``build/runs``).
        results: folder of the committed records.
        partial: the runs that are done, current and whole replace theirs, and the other committed records stay.

    Returns:
        How many runs were adopted, and how many the experiment has.

    Raises:
        ConfigError: a run is not finished (none is, with ``partial``).
    """
    experiment = load_experiment(name)
    runs = planned_runs(experiment)
    finished = [run for run in runs if is_finished(run, source, partial)]
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


def is_finished(run: Run, source: Path, partial: bool = False) -> bool:
    """Whether a run's record is current and its files are whole.

    Raises:
        ConfigError: it is not, and ``partial`` is False.
    """
    path = source / run.folder / "record.json"
    try:
        problem = whole.damage(path) or (None if records.read(path).key == run.key else "is stale")
    except RecordError as error:
        problem = str(error)
    if problem and not partial:
        advice = f"`make reproduce EXPERIMENT={run.experiment}` first"
        raise ConfigError(f"{run.kind} {run.name}: {problem}; {advice}, or adopt what is done (--partial)")
    return not problem


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
