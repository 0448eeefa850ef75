"""``make reproduce``: plan an experiment's runs, let Snakemake do those that are due, and say what came of it."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, NoReturn

from isce.files import ROOT
from isce.publish.build import Build
from isce.runs import cost, locks
from isce.runs import plan as workflow
from isce.runs.devices import check_device, find_device
from isce.runs.execution import LOCK
from isce.runs.experiment import TIERS, Experiment, load_experiment
from isce.runs.plan import NOTEBOOK_HASH
from isce.runs.run import Run
from isce.strict import ConfigError, read_yaml

#: Above these sizes glibc would hand freed memory back to the system.
KEPT_MEMORY = ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_")
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
        dry_run: only print.

    Raises:
        ConfigError: a value that is not allowed, or another process works in the build folder.
    """
    started, build = time.monotonic(), ROOT / "build"
    experiment = load_experiment(name)
    settings = _profile(profile, dry_run)
    check_device(device)
    if "executor" not in settings and not dry_run:
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
    with locks.hold(
        build / ".lock", lambda owners: _refuse(f"another `make reproduce` ({owners})", str(build))
    ) as lock:
        for path in sorted((build / "runs" / name).glob(f"*/*/{LOCK}")):
            locks.await_free(path, lambda owners, run=path.parent: _on_orphan(owners, run, dry_run))
            if not dry_run and not path.with_name(NOTEBOOK_HASH).exists():
                path.with_name("record.json").unlink(missing_ok=True)  # killed before its notebook was whole
        planned = workflow.plan(name, build, device=device)
        if dry_run:
            return _dry_run(experiment, planned, device, command)
        Build(ROOT / "book", build / "report", build / "runs", build / "book").drop_cut_off()
        code = _snakemake(command, lock, quiet=settings.get("quiet") == "all")
    if code:
        print(f"make reproduce: {name} is not complete; finished runs are kept, run again to go on")
        return 1
    if until:
        print(f"{name}: every {until} run is done, in {time.monotonic() - started:.0f} s")
        return 0
    print((build / "report" / name / "tables" / "results.txt").read_text(encoding="utf-8"))
    flags = (build / "report" / name / "flags.txt").read_text(encoding="utf-8")
    if flags:
        print(f"RED FLAGS, look at these runs before you use a figure:\n{flags}")
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


def _refuse(who: str, where: str) -> NoReturn:
    raise ConfigError(f"{who} works in {where}: wait for its end, or end it (`kill` and the number of the process)")


def _on_orphan(owners: str, run: Path, dry_run: bool) -> None:
    """Somebody works on a run: perhaps what is left of a command that was killed. Two must not write in one folder."""
    if dry_run:
        _refuse(owners, str(run))
    sys.stderr.write(
        f"isce: {owners} still works in {run}, perhaps left by a command that was killed; waiting for its end "
        "(to end it: `kill` and its number)\n"
    )


def _snakemake(command: list[str], lock: locks.Lock, quiet: bool) -> int:
    """Run Snakemake; returns its exit code. It holds the lock as well: it goes on if this process alone is killed.

    Args:
        command: its options.
        lock: of the build folder.
        quiet: show what it says only if it fails and no run has said why.
    """
    with tempfile.TemporaryFile("w+", encoding="utf-8") as said:
        program, passed = ["-m", "snakemake"], [lock.file]
        if quiet:
            program, passed = ["-c", QUIET_SNAKEMAKE, str(said.fileno())], [lock.file, said.fileno()]
            command = ["--quiet", "progress", "rules", "host", "reason", *command]
        with subprocess.Popen([sys.executable, *program, *command], env=_environment(), pass_fds=passed) as process:  # noqa: S603
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


def _dry_run(experiment: Experiment, planned: list[Run], device: str, command: list[str]) -> int:
    """Print the runs that Snakemake would start, how long they should take, and the experiment's tier."""
    command = [sys.executable, "-m", "snakemake", *command, "--dry-run", "--quiet", "host", "reason"]
    done = subprocess.run(command, env=_environment(), capture_output=True, text=True, check=False)  # noqa: S603
    if done.returncode:
        sys.stderr.write(done.stdout + done.stderr)
        return 1
    todo: set[tuple[str, ...]] = set()
    for block in done.stdout.split("\nrule ")[1:]:
        rule = block.split(":", 1)[0]
        wildcards = dict(re.findall(r"(\w+)=([^,\s]+)", block.partition("wildcards: ")[2].partition("\n")[0]))
        if rule not in ("all", "without_book"):
            todo.add((wildcards.get("kind", rule), wildcards.get("run", "")))
    order = ("train", "attack", "minmax", "explain", "tables", "book")
    for kind, run in sorted(todo, key=lambda job: (order.index(job[0]), job[1])):
        print(f"would run: {kind} {run}".rstrip())
    tier = f" (tier {experiment.tier}: {TIERS[experiment.tier]})" if experiment.tier else ""
    print(f"{experiment.title}{tier}: {f'{len(todo)} steps to do' if todo else 'everything is up to date'}")
    if due := [run for run in planned if (run.kind, run.name) in todo]:
        expected = cost.estimates(planned, device)
        print(f"time: {cost.summary(due, expected, 'GPU' if cost.on_gpu(device) else 'core')}")
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
