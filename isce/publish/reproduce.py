"""``make reproduce``: plan an experiment's runs, let Snakemake do those that are due, and say what came of it."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn, get_args

from isce.files import ROOT
from isce.parameters.base import check_device
from isce.publish import kernels
from isce.publish.build import Build
from isce.runs import cost, locks
from isce.runs import plan as workflow
from isce.runs.devices import find_device
from isce.runs.experiment import TIERS, Experiment, load_experiment
from isce.runs.key import Kind
from isce.runs.run import planned_runs
from isce.runs.whole import LOCK
from isce.strict import ConfigError, read_yaml

#: Above these sizes glibc would hand freed memory back to the system.
KEPT_MEMORY = ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_")
#: Due runs from which on it pays to load the packages once for all kernels.
MANY = 8
#: Runs Snakemake with what it says written to an open file; what its jobs say goes where it always goes.
QUIET_SNAKEMAKE = (
    "import sys; sys.stderr = open(int(sys.argv.pop(1)), 'w', buffering=1); from snakemake.cli import main; main()"
)
#: How a job of Snakemake's ended, as it says. A run that fails says why itself, and exits with 1.
FAILURE = re.compile(r"^Command .* (?:returned non-zero exit status (\d+)|died with .*)\.$", re.MULTILINE)


def reproduce(
    name: str,
    *,
    device: str = "auto",
    profile: str = "local",
    jobs: int | None = None,
    until: str | None = None,
    with_book: bool = True,
    dry_run: bool = False,
) -> int:
    """Run what is due of an experiment, or print what would run; returns the exit code.

    Args:
        name: of the experiment's file.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
        profile: a folder of ``workflow/profiles``.
        jobs: parallel runs; None: as the profile says, else one for each processor.
        until: kind of the runs to stop after; None: go on to tables and book.
        with_book: build the book.
        dry_run: only print; no file is written, and no other process is waited for.

    Raises:
        ConfigError: a value that is not allowed, or another process works in the build folder.
    """
    started, build = time.monotonic(), ROOT / "build"
    experiment = load_experiment(name)
    settings = _profile(profile, dry_run)
    check_device(device)
    if dry_run:
        return _dry_run(experiment, device, until, with_book)
    if "executor" not in settings:
        find_device(device)
    command = ["--snakefile", str(ROOT / "workflow" / "Snakefile"), "--directory", str(ROOT)]
    command += ["--profile", str(ROOT / "workflow" / "profiles" / profile)]
    jobs = jobs or (None if "jobs" in settings else os.cpu_count())
    command += ["--jobs", str(jobs)] if jobs else []
    command += ["without_book"] if until or not with_book else []
    command += ["--until", until] if until else []
    # A record is written last and whole, whatever ended the Snakemake that asked for it.
    command += ["--nolock", "--ignore-incomplete"]
    command += ["--config", f"experiment={name}", "build=build", f"device={device}"]
    with locks.hold(build / ".lock", lambda owners: _refuse(owners, build)) as lock:
        for path in sorted((build / "runs" / name).glob(f"*/*/{LOCK}")):
            locks.await_free(path, lambda owners, run=path.parent: _on_orphan(owners, run))
        planned = workflow.plan(name, build, device=device)
        Build(ROOT / "book", build / "report", build / "runs", build / "book").drop_cut_off()
        due = workflow.due(planned, build)
        runs = sum(run.folder in due and until in (None, run.kind) for run in planned)
        here = "executor" not in settings and find_device(device).type == "cpu"
        keep = kernels.kept if here and runs >= MANY else contextlib.nullcontext
        with keep((_environment(), [])) as (environment, files):
            code = _snakemake(command, environment, [lock.file, *files], lock, quiet=settings.get("quiet") == "all")
    if code:
        print(f"make reproduce: {name} is not complete; finished runs are kept, run again to go on")
        return 1
    if until:
        print(f"{name}: every {until} run is done, in {time.monotonic() - started:.0f} s")
        return 0
    print((build / "report" / name / "tables" / "results.txt").read_text(encoding="utf-8"))
    flags = (build / "report" / name / "flags.txt").read_text(encoding="utf-8")
    if flags:
        print(f"RED FLAGS that could change a number:\n{flags}")
    where = f" Open {build / 'book' / '_build' / 'html' / 'index.html'}" if with_book else ""
    print(f"{name}: done in {time.monotonic() - started:.0f} s.{where}")
    return 0


def _profile(name: str, dry_run: bool) -> dict[str, Any]:
    """The settings of a profile."""
    known = sorted(path.name for path in (ROOT / "workflow" / "profiles").iterdir())
    if name not in known:
        raise ConfigError(f"unknown profile {name!r}; known: {', '.join(known)}")
    settings = read_yaml(ROOT / "workflow" / "profiles" / name / "config.yaml")
    if settings.get("executor") == "slurm" and not dry_run and shutil.which("sbatch") is None:
        raise ConfigError(
            f"profile {name!r} submits jobs with Slurm's sbatch, which is not on the path; "
            "start it on a machine of the cluster"
        )
    return settings


def _refuse(owners: str, build: Path) -> NoReturn:
    raise ConfigError(
        f"another `make reproduce` ({owners}) works in {build}: wait for its end, or end it (`kill` and the number of "
        "the process)"
    )


def _on_orphan(owners: str, run: Path) -> None:
    """Somebody works on a run: perhaps what is left of a command that was killed. Two must not write in one folder."""
    sys.stderr.write(
        f"isce: {owners} still works in {run}, perhaps left by a command that was killed; waiting for its end "
        "(to end it: `kill` and its number)\n"
    )


def _snakemake(
    command: list[str], environment: Mapping[str, str], files: list[int], lock: locks.Lock, quiet: bool
) -> int:
    """Run Snakemake; returns its exit code. It holds the lock as well: it goes on if this process alone is killed.

    Args:
        command: its options.
        environment: for it and its jobs.
        files: that it is to hold open, the lock's among them.
        lock: of the build folder.
        quiet: show what it says only if it fails and no run has said why.
    """
    with tempfile.TemporaryFile("w+", encoding="utf-8") as said:
        program, passed = ["-m", "snakemake"], files
        if quiet:
            program, passed = ["-c", QUIET_SNAKEMAKE, str(said.fileno())], [*files, said.fileno()]
            command = ["--quiet", "progress", "rules", "host", "reason", *command]
        with subprocess.Popen([sys.executable, *program, *command], env=environment, pass_fds=passed) as process:  # noqa: S603
            lock.name(process.pid)
            code = process.wait()
        said.seek(0)
        text = said.read()
    if code < 0:
        sys.stderr.write(
            f"isce: Snakemake (process {process.pid}) was ended by {signal.Signals(-code).name}; the runs that it had "
            "started go on, and the next `make reproduce` waits for them\n"
        )
    elif code and set(FAILURE.findall(text)) != {"1"}:
        sys.stderr.write(text)
    return code


def _dry_run(experiment: Experiment, device: str, until: str | None, with_book: bool) -> int:
    """Print the runs that are due, how long they should take, and the experiment's tier; writes no file."""
    build = ROOT / "build"
    planned = planned_runs(experiment)
    reasons = workflow.due(planned, build)
    runs = [run for run in planned if run.folder in reasons and until in (None, run.kind)]
    order = list(get_args(Kind))
    todo = [f"{run.kind} {run.name}" for run in sorted(runs, key=lambda run: (order.index(run.kind), run.name))]
    if not until and (todo or workflow.report_is_due(experiment.name, planned, build)):
        todo.append("tables")
    book = Build(ROOT / "book", build / "report", build / "runs", build / "book")
    if with_book and not until and (todo or book.is_cut_off or workflow.book_is_due(experiment.name, build)):
        todo.append("book")
    for job in todo:
        print(f"would run: {job}")
    tier = f" (tier {experiment.tier}: {TIERS[experiment.tier]})" if experiment.tier else ""
    print(f"{experiment.title}{tier}: {f'{len(todo)} steps to do' if todo else 'everything is up to date'}")
    if runs:
        expected = cost.estimates(planned, device)
        print(f"time: {cost.summary(runs, expected, 'GPU' if cost.on_gpu(device) else 'core')}")
        if note := cost.precision_note(runs, device):
            print(note)
    if experiment.minutes:
        print(f"the whole experiment took {experiment.minutes:g} minutes ({experiment.measured_on})")
    return 0


def _environment() -> dict[str, str]:
    """The environment with this Python first on the path, so that the Snakefile's `python` is this one.

    And with glibc keeping freed memory: handing it back after each step and faulting it in again takes a tenth of the
    time of training a network on CIFAR-10.
    """
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
    return {name: str(2**32) for name in KEPT_MEMORY} | os.environ | {"PATH": path}
