"""The path of one number: experiment file -> runs -> records. What to run, under which key, and what is done and whole.

``workflow/Snakefile`` calls :func:`plan` and then decides by files alone: a run whose ``params.yaml`` is newer than its
record is run again. ``params.yaml`` is rewritten only when its content changes, and holds the run's key
(``isce.runs.key``).
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import yaml

from isce.files import ROOT, RecordError, canonical, sha256, write_atomic
from isce.runs import cost, records
from isce.runs.experiment import load_experiment
from isce.runs.locks import is_held
from isce.runs.run import Run, planned_runs
from isce.runs.whole import CHECKPOINT, LOCK, NOTEBOOK_HASH, damage, notebook_damage
from isce.strict import ConfigError

MISSING = "there is no record"
STALE = "its record is of other parameters, semantics, data or packages"


def plan(name: str, build: Path, root: Path = ROOT, device: str = "cpu") -> list[Run]:
    """Write ``params.yaml`` of every run of an experiment where it changed, and put damaged records aside.

    Afterwards a run is due exactly if its record is missing or older than its ``params.yaml``. The names of the runs
    stand in ``keys/<experiment>.json``, with those of the training runs that each needs and the minutes that a cluster
    is asked for (:func:`isce.runs.cost.minutes`); the Snakefile reads it.

    Args:
        name: experiment file of ``experiments/``.
        build: the build folder.
        root: the project's folder.
        device: where the runs are to go, which decides the minutes and nothing else.

    Returns:
        All runs of the experiment.

    Raises:
        ConfigError: unknown experiment, a value in its file that is not allowed, or a run's folder can't be written.
    """
    planned = planned_runs(load_experiment(name, root), root)
    for run in planned:
        folder = build / "runs" / run.folder
        params = folder / "params.yaml"
        _write_changed(params, yaml.safe_dump({"key": run.key, **run.parameters}, sort_keys=False))
        if not os.access(folder, os.W_OK):  # Snakemake would end without a word
            raise ConfigError(f"{folder} can't be written")
        reason = _outdated(folder, run)
        if reason is None:
            oldest = min(path.stat().st_mtime_ns for path in (folder / "record.json", *folder.glob("*.safetensors")))
            if params.stat().st_mtime_ns > oldest:  # a change that was taken back
                os.utime(params, ns=(oldest, oldest))
        elif reason == MISSING:
            if not is_held(folder / LOCK):  # a run by hand may be about to end
                (folder / "record.json").unlink(missing_ok=True)
        elif reason != STALE:
            sys.stderr.write(f"{run.kind} {run.experiment} {run.name}: {reason}; it will be run again\n")
            (folder / "record.json").replace(folder / "record.json.damaged")
    for made, text in _sources(name, root).items():
        _write_changed(build / "keys" / made, text)
    expected = cost.estimates(planned, device, root)
    jobs = {
        f"{run.kind}/{run.name}": {"needs": run.needs, "minutes": cost.minutes(expected[run.folder])} for run in planned
    }
    write_atomic(build / "keys" / f"{name}.json", json.dumps(jobs) + "\n")
    return planned


def due(planned: Sequence[Run], build: Path) -> dict[str, str]:
    """Find the runs that are due, without writing anything; :func:`plan` makes Snakemake run the same ones.

    Args:
        planned: all runs of an experiment.
        build: the build folder.

    Returns:
        Why a run is due, by its folder: its record is missing, damaged or stale, or a training run that it needs is
        due or newer.
    """
    found: dict[str, str] = {}
    for run in planned:  # each after the training runs that it needs
        folder = build / "runs" / run.folder
        reason = _outdated(folder, run)
        for source in run.sources:
            if reason is None and source in found:
                reason = f"{source} is due"
            files = [build / "runs" / source / name for name in ("record.json", CHECKPOINT)]
            if reason is None and not _is_newest(folder / "record.json", files):
                reason = f"{source} is newer"
        if reason is not None:
            found[run.folder] = reason
    return found


def report_is_due(name: str, planned: Sequence[Run], build: Path, root: Path = ROOT) -> bool:
    """Whether an experiment's tables are missing or older than records or code; writes nothing."""
    parts = [build / "runs" / run.folder / "record.json" for run in planned]
    return not _is_made(build / "report" / name / "numbers.json", parts, f"report-{name}", name, build, root)


def book_is_due(name: str, build: Path, root: Path = ROOT) -> bool:
    """Whether the book in the build folder is missing or older than tables or pages; writes nothing."""
    index = build / "book" / "_build" / "html" / "index.html"
    return not _is_made(index, [build / "report" / name / "numbers.json"], "book", name, build, root)


def _is_made(made: Path, parts: Sequence[Path], sources: str, name: str, build: Path, root: Path) -> bool:
    path = build / "keys" / sources
    same = path.is_file() and path.read_text(encoding="utf-8") == _sources(name, root)[sources]
    return same and _is_newest(made, [*parts, path])


def _is_newest(made: Path, parts: Sequence[Path]) -> bool:
    """Whether a file and its parts are there, and no part is newer: what Snakemake asks."""
    if not all(path.is_file() for path in (made, *parts)):
        return False
    return all(path.stat().st_mtime_ns <= made.stat().st_mtime_ns for path in parts)


def _write_changed(path: Path, text: str) -> None:
    if not path.is_file() or path.read_text(encoding="utf-8") != text:
        write_atomic(path, text)


def _sources(name: str, root: Path) -> dict[str, str]:
    """What the report and the book are made of, records aside: hashes of code and of pages, as text."""
    code = {path.relative_to(root).as_posix(): sha256(path) for path in sorted((root / "isce").rglob("*.py"))}
    code["experiment"] = sha256(root / "experiments" / f"{name}.yaml")
    pages = {path.relative_to(root).as_posix(): sha256(path) for path in _book_sources(root)}
    return {f"report-{name}": canonical(code), "book": canonical(pages)}


def _book_sources(root: Path) -> list[Path]:
    """Every file that the book is made of, reports aside: its pages, and what its reference reads, docstrings too."""
    made = {"_build", "figures", "generated", "__pycache__"}
    pages = {root / "book" / "reference" / kind for kind in ("api", "attacks", "losses")}  # of templates
    found = [path for path in (root / "book").rglob("*") if not (made.intersection(path.parts) or path.parent in pages)]
    for pattern in ("isce/**/*.py", "experiments/**/*.yaml", "notebooks/*.ipynb", "benchmarks/results/*.json"):
        found += root.glob(pattern)
    found += [root / "environment.yml", root / "pyproject.toml"]
    return sorted(path for path in found if path.is_file())


def _outdated(folder: Path, run: Run) -> str | None:
    """Why a run's own record does not count; None: it is there, whole and of the run's key."""
    path = folder / "record.json"
    cut_off = (folder / LOCK).exists() and not (folder / NOTEBOOK_HASH).exists()  # killed before its notebook was whole
    if cut_off or not path.exists():
        return MISSING
    try:
        problem = damage(path) or notebook_damage(folder)
        return problem or (None if records.read(path).key == run.key else STALE)
    except RecordError as error:
        return str(error)
