"""``python -m isce``: what the Makefile and the Snakefile call. ``--help`` lists the commands."""

from __future__ import annotations

import argparse
import fcntl
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from isce.book import Build
from isce.config import ROOT, ConfigError, read_yaml
from isce.experiments import TIERS, Experiment, load_experiment
from isce.records import RecordError

if TYPE_CHECKING:
    from isce.workflow import Run

#: Above these sizes glibc would hand freed memory back to the system.
KEPT_MEMORY = ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_")


@contextmanager
def _only_one(build: Path) -> Generator[int]:
    """Hold the build folder's lock and give its file; the kernel frees it when no process has it, however they end."""
    build.mkdir(parents=True, exist_ok=True)
    with (build / ".lock").open("a+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            lock.seek(0)
            owner = lock.read().strip() or "unknown"
            raise ConfigError(f"another `make reproduce` (process {owner}) works in {build}; wait or stop it") from None
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        yield lock.fileno()


def _reproduce(options: argparse.Namespace) -> int:
    from isce import workflow

    experiment = load_experiment(options.experiment)
    profiles = sorted(path.name for path in (ROOT / "workflow" / "profiles").iterdir())
    if options.profile not in profiles:
        raise ConfigError(f"unknown profile {options.profile!r}; known: {', '.join(profiles)}")
    settings = read_yaml(ROOT / "workflow" / "profiles" / options.profile / "config.yaml")
    if settings.get("executor") == "slurm" and not options.dry_run and shutil.which("sbatch") is None:
        raise ConfigError(
            f"profile {options.profile!r} submits jobs with Slurm's sbatch, which is not on the path; "
            "start it on a machine of the cluster"
        )
    started = time.monotonic()
    build = ROOT / "build"
    command = [sys.executable, "-m", "snakemake", "--snakefile", str(ROOT / "workflow" / "Snakefile")]
    command += ["--directory", str(ROOT)]
    command += ["--profile", str(ROOT / "workflow" / "profiles" / options.profile)]
    jobs = options.jobs or (None if "jobs" in settings else os.cpu_count())
    command += ["--jobs", str(jobs)] if jobs else []
    command += ["without_book"] if options.no_book or options.until else []
    command += ["--until", options.until] if options.until else []
    command += ["--nolock", "--config", f"experiment={experiment.name}", "build=build", f"device={options.device}"]
    with _only_one(build) as lock:
        planned = workflow.plan(experiment.name, build, device=options.device)
        if options.dry_run:
            return _dry_run(experiment, planned, options.device, [*command, "--dry-run", "--quiet", "host", "reason"])
        # Snakemake holds the lock as well: it goes on if this process alone is killed.
        code = subprocess.call(command, env=_environment(), pass_fds=[lock])  # noqa: S603
    if code:
        print(f"make reproduce: {experiment.name} is not complete; finished runs are kept, run again to go on")
        return 1
    if options.until:
        print(f"{experiment.name}: every {options.until} run is done, in {time.monotonic() - started:.0f} s")
        return 0
    print((build / "report" / experiment.name / "tables" / "results.txt").read_text(encoding="utf-8"))
    flags = (build / "report" / experiment.name / "flags.txt").read_text(encoding="utf-8")
    if flags:
        print(f"RED FLAGS, look at these runs before you use a figure:\n{flags}")
    where = "" if options.no_book else f" Open {build / 'book' / '_build' / 'html' / 'index.html'}"
    print(f"{experiment.name}: done in {time.monotonic() - started:.0f} s.{where}")
    return 0


def _dry_run(experiment: Experiment, planned: list[Run], device: str, command: list[str]) -> int:
    """Print the runs that Snakemake would start, how long they should take, and the experiment's tier."""
    from isce import cost

    done = subprocess.run(command, env=_environment(), capture_output=True, text=True, check=False)  # noqa: S603
    if done.returncode:
        sys.stderr.write(done.stdout + done.stderr)
        return 1
    blocks = done.stdout.split("\nrule ")[1:]
    todo: set[tuple[str, ...]] = set()
    for block in blocks:
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


def _run(options: argparse.Namespace) -> int:
    from isce.execution import execute

    execute(options.kind, options.params, options.device)
    return 0


def _report(options: argparse.Namespace) -> int:
    from isce import report

    if options.experiment is None:
        report.write_each(_experiments(options.records), options.records, options.out)
    elif not report.write(options.experiment, options.records, options.out):
        raise ConfigError(f"no attack record of experiment {options.experiment!r} in {options.records}")
    return 0


def _experiments(folder: Path) -> list[str]:
    """Experiments that have records in a folder; those without an experiment file are named and left out."""
    found = sorted({path.relative_to(folder).parts[0] for path in folder.glob("*/*/*/record.json")})
    known = {path.stem for path in (ROOT / "experiments").glob("*.yaml")}
    for name in set(found) - known:
        sys.stderr.write(f"isce: {folder / name} holds records of an experiment that has no file; left out\n")
    return [name for name in found if name in known]


def _build(options: argparse.Namespace) -> Build:
    return Build(options.source, options.report, options.records, options.out)


def _book(options: argparse.Namespace) -> int:
    print(f"book: {_build(options).render()}")
    return 0


def _links(options: argparse.Namespace) -> int:
    found = _build(options).links()
    for status, address, page in found:
        print(f"{status:<12} {address}  ({page})")
    broken = sum(status in ("broken", "timeout") for status, _, _ in found)
    print(f"{len(found)} links to other places, {broken} broken")
    return 1 if broken else 0


def _pdf(options: argparse.Namespace) -> int:
    from isce import pdf

    pages = pdf.print_book(options.book.resolve(), options.out)
    print(f"pdf: {options.out}, {pages} pages")
    return 0


def _compare(options: argparse.Namespace) -> int:
    from isce import cells, workflow
    from isce.records import read_all

    keys = {(run.kind, run.name): run.key for run in workflow.runs(load_experiment(options.experiment))}
    sides = [
        [r for r in read_all(folder / options.experiment).values() if r.kind == "attack" and (r.kind, r.run) in keys]
        for folder in (ROOT / "build" / "runs", options.results)
    ]
    for side, command in zip(sides, ("reproduce", "results"), strict=True):
        if not side:
            raise ConfigError(f"nothing to compare: run `make {command} EXPERIMENT={options.experiment}` first")
    for side, name in zip(sides, ("own", "committed"), strict=True):
        old = sum(record.key != keys[record.kind, record.run] for record in side)
        if old:
            print(f"{old} of {len(side)} {name} records are stale: made with other code, parameters or versions")
    rows = cells.compare(*sides)
    print(f"{'run':<24} {'cell':<32} {'ours':>6} {'committed':>9}")
    for row in rows:
        mark = "" if row["agrees"] else f"  {row['why'] or 'differs'}"
        ours, committed = ("none" if row[side] is None else f"{row[side]:.1f}" for side in ("ours", "committed"))
        print(f"{row['run']:<24} {row['key']:<32} {ours:>6} {committed:>9}{mark}")
    agree = sum(row["agrees"] for row in rows)
    print(f"{agree} of {len(rows)} cells agree within their 95% intervals over images")
    return 0 if agree == len(rows) else 1


def _adopt(options: argparse.Namespace) -> int:
    from isce.adoption import adopt

    done, every = adopt(options.experiment, ROOT / "build" / "runs", options.results, options.partial)
    print(f"{done} of {every} records of {options.experiment} are now in {options.results}; commit them")
    return 0


def _verify(options: argparse.Namespace) -> int:
    from isce.verification import verify_run

    verdicts = verify_run(options.folder)
    for verdict in verdicts:
        print("\n".join(verdict.lines()))
    return 0 if all(verdict.holds for verdict in verdicts) else 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m isce", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="command")

    def command(name: str, action: object, text: str) -> argparse.ArgumentParser:
        added = commands.add_parser(name, help=text, description=text)
        added.set_defaults(action=action)
        return added

    reproduce = command("reproduce", _reproduce, "run an experiment: train, attack, tabulate, build the book")
    reproduce.add_argument("--experiment", default="digits", help="a file of experiments/ (default: digits)")
    reproduce.add_argument("--jobs", type=_positive, help="parallel runs (default: cores, or as the profile says)")
    reproduce.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N (default: auto)")
    reproduce.add_argument("--profile", default="local", help="a folder of workflow/profiles (default: local)")
    reproduce.add_argument("--dry-run", action="store_true", help="print what would run")
    reproduce.add_argument("--no-book", action="store_true", help="stop after the tables")
    reproduce.add_argument("--until", choices=["train"], help="stop after these runs; attack them later, or elsewhere")
    run = command("run", _run, "execute one run's notebook")
    run.add_argument("kind", choices=["train", "attack", "minmax", "explain"])
    run.add_argument("params", type=Path)
    run.add_argument("--device", default="auto")
    report = command("report", _report, "numbers, tables and figures from records")
    report.add_argument("experiment", nargs="?", help="default: every experiment that has records")
    report.add_argument("--records", type=Path, required=True)
    report.add_argument("--out", type=Path, required=True)
    for name, action, text in (
        ("book", _book, "render the book from a report folder"),
        ("links", _links, "check the book's links to other places (needs a network)"),
    ):
        book = command(name, action, text)
        book.add_argument("--source", type=Path, default=ROOT / "book", help="default: the project's book")
        book.add_argument("--report", type=Path, required=True)
        book.add_argument("--records", type=Path, required=True, help="what the report was made from, to link to")
        book.add_argument("--out", type=Path, required=True)
    pdf = command("pdf", _pdf, "print the rendered book, through a headless Chromium or Chrome")
    pdf.add_argument("--book", type=Path, default=ROOT / "book" / "_build" / "html", help="its folder")
    pdf.add_argument("--out", type=Path, default=ROOT / "book" / "_build" / "isce.pdf")
    for name, action, text in (
        ("compare", _compare, "compare own records with the committed ones, cell by cell"),
        ("adopt", _adopt, "copy own finished records to the committed ones"),
    ):
        added = command(name, action, text)
        added.add_argument("--experiment", default="digits")
        added.add_argument("--results", type=Path, default=ROOT / "results")
        if name == "adopt":
            added.add_argument("--partial", action="store_true", help="adopt the runs that are done, keep the others")
    verify = command("verify", _verify, "judge the saved adversarial points of an attack run anew")
    verify.add_argument("folder", type=Path, help="such as build/runs/digits/attack/sce-s0")
    return parser


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, got {value}")
    return value


def main(arguments: list[str] | None = None) -> int:
    """Run one command; returns the exit code. Errors of input and files are one line, without a traceback."""
    options = _parser().parse_args(arguments)
    try:
        return int(options.action(options))
    except (ConfigError, RecordError, RuntimeError, OSError) as error:
        sys.stderr.write(f"isce: {error}\n")
        return 1


if __name__ == "__main__":
    sys.exit(main())
