"""The path of one number: experiment file -> runs -> records. What to run, under which key, and what is done and whole.

``workflow/Snakefile`` calls :func:`plan` and then decides by files alone: a run whose ``params.yaml`` is newer than its
record is run again. ``params.yaml`` is rewritten only when its content changes, and holds the run's key
(``isce.runs.key``).
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import yaml

from isce.files import ROOT, RecordError, canonical, sha256, write_atomic
from isce.runs import cost, records
from isce.runs.experiment import load_experiment
from isce.runs.records import NOTEBOOK
from isce.runs.run import Run, planned_runs
from isce.strict import ConfigError, read_yaml

NOTEBOOK_HASH = "notebook.sha256"


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
        params, text = folder / "params.yaml", yaml.safe_dump({"key": run.key, **run.parameters}, sort_keys=False)
        if not params.is_file() or params.read_text(encoding="utf-8") != text:
            write_atomic(params, text)
        if not os.access(folder, os.W_OK):  # Snakemake would end without a word
            raise ConfigError(f"{folder} can't be written")
        if _is_done(folder, run):
            oldest = min(path.stat().st_mtime_ns for path in (folder / "record.json", *folder.glob("*.safetensors")))
            if params.stat().st_mtime_ns > oldest:  # a change that was taken back
                os.utime(params, ns=(oldest, oldest))
    _plan_report(name, build, root)
    expected = cost.estimates(planned, device, root)
    jobs = {
        f"{run.kind}/{run.name}": {"needs": run.needs, "minutes": cost.minutes(expected[run.kind, run.name])}
        for run in planned
    }
    write_atomic(build / "keys" / f"{name}.json", json.dumps(jobs) + "\n")
    return planned


def _plan_report(name: str, build: Path, root: Path) -> None:
    """Write what the report and the book are made of, records aside: hashes of code and pages."""
    code = {path.relative_to(root).as_posix(): sha256(path) for path in sorted((root / "isce").rglob("*.py"))}
    code["experiment"] = sha256(root / "experiments" / f"{name}.yaml")
    pages = {path.relative_to(root).as_posix(): sha256(path) for path in _book_sources(root)}
    for made, parts in ((f"report-{name}", code), ("book", pages)):
        path, text = build / "keys" / made, canonical(parts)
        if not path.is_file() or path.read_text(encoding="utf-8") != text:
            write_atomic(path, text)


def _book_sources(root: Path) -> list[Path]:
    """Every file that the book is made of, reports aside: its pages, and what its reference reads, docstrings too."""
    made = {"_build", "figures", "generated", "__pycache__"}
    pages = {root / "book" / "reference" / kind for kind in ("api", "attacks", "losses")}  # of templates
    found = [path for path in (root / "book").rglob("*") if not (made.intersection(path.parts) or path.parent in pages)]
    for pattern in ("isce/**/*.py", "experiments/**/*.yaml", "notebooks/*.ipynb", "benchmarks/results/*.json"):
        found += root.glob(pattern)
    found += [root / "environment.yml", root / "pyproject.toml"]
    return sorted(path for path in found if path.is_file())


def _is_done(folder: Path, run: Run) -> bool:
    """Whether the run's record is there, whole and of its key. A damaged one is put aside, so that it is run again."""
    path = folder / "record.json"
    if not path.exists():
        return False
    try:
        problem = damage(path) or notebook_damage(folder)
        current = problem is None and records.read(path).key == run.key
    except RecordError as error:
        problem, current = str(error), False
    if problem:
        sys.stderr.write(f"{run.kind} {run.experiment} {run.name}: {problem}; it will be run again\n")
        path.replace(path.with_suffix(".json.damaged"))
    return current


def damage(path: Path) -> str | None:
    """What is wrong with the side files of a record: one missing or changed; or None.

    Raises:
        isce.files.RecordError: the record itself is damaged.
    """
    for name, digest in records.read(path).files.items():
        side = path.parent / name
        if not side.is_file():
            return f"{side} is missing"
        if sha256(side) != digest:
            return f"{side} is damaged (its hash differs from the record's)"
    return None


def notebook_damage(folder: Path) -> str | None:
    """What is wrong with the executed notebook, or None. No record can hold its hash: it holds the record's making."""
    notebook, digest = folder / NOTEBOOK, folder / NOTEBOOK_HASH
    if not digest.is_file():
        return None
    if not notebook.is_file():
        return f"{notebook} is missing"
    if sha256(notebook) != digest.read_text(encoding="utf-8"):
        return f"{notebook} is damaged (its hash differs from {NOTEBOOK_HASH})"
    return None


def read_params(params: Path) -> dict[str, Any]:
    """A run's ``params.yaml``; raises ConfigError where it can't be read or holds no key."""
    values = read_yaml(params)
    if "key" not in values:
        raise ConfigError(f"{params} has no key: it was not written by this workflow")
    return values
