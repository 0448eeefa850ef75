"""How long a run takes: as a committed record of the same work says, else predicted from measurements, else unknown.

Seconds are by the clock, on the machine where the record or the step was measured. A record of a GPU says nothing of a
CPU, nor the other way round. Nothing is guessed: what no measurement reaches is unknown.
"""

from __future__ import annotations

import contextlib
import json
import math
import platform
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any, Literal

import torch

from isce.files import ROOT, RecordError
from isce.parameters.training import TrainParameters
from isce.runs import records
from isce.runs.records import Record
from isce.runs.run import Run

#: Images of each data set: in the training split and in the test split.
IMAGES = {"digits": (1168, 449), "mnist": (55_000, 10_000), "cifar10": (45_000, 10_000)}
#: Parameters that change a run's time little, or not at all.
FREE = {"checkpoint", "objective", "seed", "optimizer", "schedule", "embedding_dim", "keep_points"}

Job = tuple[str, str]
"""Kind and name of a run."""


@dataclass(frozen=True)
class Estimate:
    """How long one run takes, and how that is known.

    Attributes:
        seconds: by the clock; None: unknown.
        source: ``measured`` (records of the same work), ``predicted`` (from other measurements) or ``unknown``.
        machine: where it was measured; empty if unknown.
    """

    seconds: float | None = None
    source: Literal["measured", "predicted", "unknown"] = "unknown"
    machine: str = ""


def estimates(planned: Sequence[Run], device: str = "cpu", root: Path = ROOT) -> dict[Job, Estimate]:
    """What every run of an experiment is expected to take.

    * measured: the seconds of the run's own committed record if it was of the same work (the parameters that decide
      the time are equal, a suite's by its name); else the median over the experiment's records of this kind and work.
    * predicted, a training run: see :func:`training_seconds`.
    * predicted, another run: seconds for each image and eps, median over records of the same kind, network and suite
      (else of the suite's family: ``full`` and ``full-autoattack`` are one), times its images and eps.

    Args:
        planned: all runs of the experiment; see :func:`isce.runs.run.planned_runs`.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
        root: the project's folder, with its ``results`` and ``benchmarks``.

    Returns:
        An estimate for each run, by its kind and name.
    """
    gpu = on_gpu(device)
    known = _read(root / "results", gpu)
    networks = {(r.experiment, r.run): _network(r.parameters) for r in known if r.kind == "train"}
    networks |= {(run.experiment, run.name): _network(run.parameters) for run in planned if run.kind == "train"}
    times = {} if gpu else step_times(root)

    def of(run: Run) -> Estimate:
        if same := _same_work(run, known):
            return _median("measured", [(1.0, record) for record in same])
        if run.kind == "train":
            seconds = training_seconds(TrainParameters.model_validate(run.parameters), times)
            return Estimate() if seconds is None else Estimate(seconds, "predicted", platform.machine())
        dataset = networks[run.experiment, run.name][0]
        size, like = _size(run.parameters, dataset), _alike(run, known, networks)
        return _median("predicted", [(size / _size(record.parameters, dataset), record) for record in like])

    return {(run.kind, run.name): of(run) for run in planned}


def training_seconds(parameters: TrainParameters, times: Mapping[str, Mapping[str, float]]) -> float | None:
    """Seconds of a training run on one core: passes x images x the measured time of a step for each image.

    The benchmark has steps of ordinary training, of the free variant and of the inner ascent; bfloat16 is taken to
    speed up all of them alike. Validation and files are left out, a few percent.

    Args:
        parameters: of the run.
        times: see :func:`step_times`.

    Returns:
        None if no step of this network on this data set was measured.
    """
    found = times.get(f"{parameters.dataset}:{parameters.model}")
    if found is None:
        return None
    plain, spec = found["isce.training"], parameters.adversarial
    step = plain
    if spec is not None and spec.kind == "free":
        step = spec.steps * found["isce.training, free, 1 replay"]
    elif spec is not None:
        step = plain + spec.steps * (found["isce.training, pgd, 1 step"] - plain)
    if parameters.precision == "bfloat16":
        step *= found["isce.training, bfloat16"] / plain
    return step * parameters.epochs * (parameters.train_images or IMAGES[parameters.dataset][0])


def step_times(root: Path = ROOT) -> dict[str, dict[str, float]]:
    """Seconds of a training step for each image, by setting (``mnist:small-cnn``) and contestant.

    Empty if ``benchmarks/training.py`` was not run on this kind of CPU (such as ``x86_64``) with one thread.
    """
    path = root / "benchmarks" / "results" / "training.json"
    if not path.is_file():
        return {}
    found, times = json.loads(path.read_text(encoding="utf-8")), dict[str, dict[str, float]]()
    where = found["where"]
    if (where["device"], where["threads"]) != (platform.machine(), 1):
        return {}
    for row in found["rows"]:
        seconds = row["ratio"] * row["baseline_us"] / 1e6 / where["batch"]
        times.setdefault(row["setting"], {})[row["loss"]] = seconds
    return times


def minutes(estimate: Estimate) -> int:
    """What a cluster is asked for, in minutes: three times the estimate, half an hour at least; 8 hours if unknown."""
    return 480 if estimate.seconds is None else max(30, math.ceil(3 * estimate.seconds / 60))


def summary(due: Sequence[Run], expected: Mapping[Job, Estimate], place: str = "core") -> str:
    """One line about runs that are due: what they take, and for how many that is measured, predicted or unknown.

    On one core they take the sum; on two half of it, or the longest training with the longest run that needs it where
    that is longer. If some are unknown the line begins with that, and gives the time of the others alone.

    Args:
        due: the runs.
        expected: see :func:`estimates`.
        place: what works on one run at a time: a core, a GPU.
    """
    found = {(run.kind, run.name): expected[run.kind, run.name] for run in due}
    took = {job: estimate.seconds or 0.0 for job, estimate in found.items()}
    kinds = ("measured", "predicted", "unknown")
    counts = {kind: sum(estimate.source == kind for estimate in found.values()) for kind in kinds}
    unknown = counts.pop("unknown")
    if unknown == len(found):
        return f"what they take is unknown: nothing like these runs ({len(found)}) was measured on such a machine"
    work = sum(took.values())
    chains = [
        took[run.kind, run.name] + max((took.get(("train", need), 0.0) for need in run.needs), default=0.0)
        for run in due
    ]
    one, two, unit = _amounts(work, max(work / 2, *chains))
    machines = ", ".join(sorted({estimate.machine for estimate in found.values() if estimate.source == "measured"}))
    parts = [f"{kind}: {number} run{'s' * (number > 1)}" for kind, number in counts.items() if number]
    parts[0] += f" on {machines}" if machines else ""
    known = f"about {one} {unit} on one {place}, {two} on two ({'; '.join(parts)})"
    if not unknown:
        return known
    rest = len(found) - unknown
    take = f"the other {rest} take" if rest > 1 else "the other one takes"
    return f"unknown for {unknown} of these {len(found)} runs, and so for the whole; {take} {known}"


def _amounts(first: float, second: float) -> tuple[str, str, str]:
    """Both in the same unit, one that fits the first, and that unit."""
    unit, size = ("hours", 3600) if first >= 5400 else ("minutes", 60) if first >= 90 else ("seconds", 1)
    one, two = (f"{value / size:.{int(value < 10 * size)}f}" for value in (first, second))
    return one, two, unit


def on_gpu(device: str) -> bool:
    """Whether ``device`` is a GPU; ``auto`` is one where there is one."""
    if device == "auto":
        return torch.cuda.is_available()
    return device.startswith("cuda")


def _read(folder: Path, gpu: bool) -> list[Record]:
    """Records made on a GPU, or those made on a CPU; without damaged ones and trainings that ended early."""
    found: list[Record] = []
    for path in sorted(folder.glob("*/*/*/record.json")):
        with contextlib.suppress(RecordError):
            record = records.read(path)
            if (record.provenance.device != "cpu") == gpu and "diverged" not in record.flags:
                found.append(record)
    return found


def _same_work(run: Run, known: Iterable[Record]) -> list[Record]:
    """The run's own record if it was of the same work, else all such records of its kind in its experiment."""
    own = _work(run.parameters)
    same = [r for r in known if (r.experiment, r.kind) == (run.experiment, run.kind) and _work(r.parameters) == own]
    return [record for record in same if record.run == run.name] or same


def _work(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters that decide how long a run takes; a suite by its name."""
    kept = {name: value for name, value in parameters.items() if name not in FREE | {"suite", "gallery"}}
    return kept | {"suite": _suite(parameters)}


def _alike(run: Run, known: Iterable[Record], networks: Mapping[Job, tuple[str, str, bool]]) -> list[Record]:
    """Records of the same kind and network with the run's suite; if there are none, with one of its family."""
    parts = 3 if run.kind == "attack" else 2
    network, suite = networks[run.experiment, run.name][:parts], _suite(run.parameters)
    known = [r for r in known if r.kind == run.kind and (r.experiment, r.run) in networks]
    like = [r for r in known if networks[r.experiment, r.run][:parts] == network]
    return [r for r in like if _suite(r.parameters) == suite] or [
        r for r in like if _suite(r.parameters).partition("-")[0] == suite.partition("-")[0]
    ]


def _network(training: Mapping[str, Any]) -> tuple[str, str, bool]:
    """What of a training run decides how long work on its network takes; robust ones keep attacks busy for longer."""
    return training["dataset"], training["model"], training["adversarial"] is not None


def _suite(parameters: Mapping[str, Any]) -> str:
    """Name of the suite or gallery of a run; empty if it has none."""
    return (parameters.get("suite") or parameters.get("gallery") or {"name": ""})["name"]


def _size(parameters: Mapping[str, Any], dataset: str) -> int:
    """Images times eps of an attack, min-max or explain run."""
    eps = parameters["eps"]
    return (parameters["images"] or IMAGES[dataset][1]) * (len(eps) if isinstance(eps, list) else 1)


def _median(source: Literal["measured", "predicted"], found: Sequence[tuple[float, Record]]) -> Estimate:
    """Median over records of their seconds, each times its factor."""
    if not found:
        return Estimate()
    made = [record.provenance for _, record in found]
    machines = sorted({each.machine if each.device == "cpu" else each.device for each in made})
    return Estimate(median(f * record.provenance.seconds for f, record in found), source, ", ".join(machines))
