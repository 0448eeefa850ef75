"""How long a run takes: the median of committed records of the same work on the same kind of device, else unknown."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import torch

from isce.files import ROOT, RecordError
from isce.runs import records
from isce.runs.records import Record
from isce.runs.run import Run
from isce.training.precision import resolve, slow

#: Parameters that change a run's time little, or not at all.
FREE = {"checkpoint", "objective", "seed", "optimizer", "schedule", "embedding_dim", "keep_points"}


@dataclass(frozen=True)
class Estimate:
    """How long one run takes.

    Attributes:
        seconds: by the clock, on the machine of the records; None: unknown.
        machine: where the records were made; empty if unknown.
    """

    seconds: float | None = None
    machine: str = ""


def estimates(planned: Sequence[Run], device: str = "cpu", root: Path = ROOT) -> dict[str, Estimate]:
    """Estimate every run of an experiment from the experiment's committed records.

    A record counts if it was of the same kind and work: the parameters that decide the time are equal, a suite's by
    its name. The run's own record goes before the others. Records of a GPU say nothing of a CPU, nor the other way
    round; damaged ones and trainings that ended early say nothing.

    Args:
        planned: the runs; see :func:`isce.runs.run.planned_runs`.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
        root: the project's folder, with its ``results``.

    Returns:
        An estimate for each run, by its folder.
    """
    known: list[Record] = []
    for path in sorted(path for name in {run.experiment for run in planned} for path in _records(root, name)):
        with contextlib.suppress(RecordError):
            record = records.read(path)
            if (record.provenance.device != "cpu") == on_gpu(device) and "diverged" not in record.flags:
                known.append(record)

    def of(run: Run) -> Estimate:
        same = [r for r in known if (r.experiment, r.kind) == (run.experiment, run.kind)]
        work = _work(run.parameters, _precision(run.parameters, device))
        same = [r for r in same if _work(r.parameters, r.results.get("precision")) == work]
        made = [r.provenance for r in [r for r in same if r.run == run.name] or same]
        machines = sorted({each.machine if each.device == "cpu" else each.device for each in made})
        return Estimate(median(each.seconds for each in made), ", ".join(machines)) if made else Estimate()

    return {run.folder: of(run) for run in planned}


def _records(root: Path, experiment: str) -> list[Path]:
    return list((root / "results" / experiment).glob("*/*/record.json"))


def _work(parameters: Mapping[str, Any], precision: str | None) -> dict[str, Any]:
    """The parameters that decide how long a run takes; a suite or gallery by its name, ``auto`` as what it meant."""
    named = {name: parameters[name]["name"] for name in ("suite", "gallery") if name in parameters}
    named |= {"precision": precision} if precision else {}
    return {name: value for name, value in parameters.items() if name not in FREE} | named


def _precision(parameters: Mapping[str, Any], device: str) -> str | None:
    """The precision that ``auto`` means here; None for other runs."""
    if parameters.get("precision") != "auto":
        return None
    return resolve("auto", torch.device("cuda" if on_gpu(device) else "cpu"))


def precision_note(due: Sequence[Run], device: str) -> str:
    """Say what ``precision: auto`` means for due trainings here, or that bfloat16 is slow here; else empty."""
    place = torch.device("cuda" if on_gpu(device) else "cpu")
    asked = {str(run.parameters.get("precision", "")) for run in due}
    notes: list[str] = []
    if "auto" in asked:
        notes.append(f"precision: auto is {resolve('auto', place)} on this {place.type}")
    if any(slow(precision, place) for precision in asked):
        notes.append(f"precision: bfloat16 is slow on this {place.type}, which has no instructions for it; try auto")
    return "; ".join(notes)


def minutes(estimate: Estimate) -> int:
    """What a cluster is asked for, in minutes: three times the estimate, half an hour at least; 8 hours if unknown."""
    return 480 if estimate.seconds is None else max(30, math.ceil(3 * estimate.seconds / 60))


def summary(due: Sequence[Run], expected: Mapping[str, Estimate], place: str = "core") -> str:
    """Say in one line what the due runs take, and for how many that is unknown.

    On one core they take the sum; on two half of it, or the longest training with the longest run that needs it where
    that is longer.

    Args:
        due: the runs.
        expected: see :func:`estimates`.
        place: what works on one run at a time: a core, a GPU.
    """
    known = {run.folder: expected[run.folder].seconds or 0.0 for run in due if expected[run.folder].seconds is not None}
    if not known:
        return f"what they take is unknown: no record of such runs ({len(due)}) was made on such a machine"
    chains = [sum(known.get(folder, 0.0) for folder in chain) for run in due for chain in _chains(run)]
    one, two, unit = _amounts(sum(known.values()), max(sum(known.values()) / 2, *chains))
    machines = ", ".join(sorted({expected[folder].machine for folder in known}))
    taken = f"about {one} {unit} on one {place}, {two} on two"
    taken += f" (measured: {len(known)} run{'s' * (len(known) > 1)} on {machines})"
    if not (unknown := len(due) - len(known)):
        return taken
    rest = f"the other {len(known)} take" if len(known) > 1 else "the other one takes"
    return f"unknown for {unknown} of these {len(due)} runs, and so for the whole; {rest} {taken}"


def _chains(run: Run) -> list[list[str]]:
    """The run alone, and with each training run that it needs."""
    return [[run.folder], *([source, run.folder] for source in run.sources)]


def _amounts(first: float, second: float) -> tuple[str, str, str]:
    """Both in the same unit, one that fits the first, and that unit."""
    unit, size = ("hours", 3600) if first >= 5400 else ("minutes", 60) if first >= 90 else ("seconds", 1)
    one, two = (f"{value / size:.{int(value < 10 * size)}f}" for value in (first, second))
    return one, two, unit


def on_gpu(device: str) -> bool:
    """Whether ``device`` is a GPU; ``auto`` is one where there is one."""
    return torch.cuda.is_available() if device == "auto" else device.startswith("cuda")
