"""One run of one notebook through papermill, and the line that says how it ended."""

from __future__ import annotations

import contextlib
import os
import tempfile
import time
from collections.abc import Generator
from pathlib import Path
from typing import Any

from isce import records
from isce.config import ROOT
from isce.evaluation.outcome import in_percent
from isce.workflow import NOTEBOOK, NOTEBOOK_HASH, Kind, read_params

#: Longest path of a Unix socket on any system that is supported (macOS), its end mark included.
LONGEST_SOCKET = 104


def execute(kind: Kind, params: Path, device: str, root: Path = ROOT) -> None:
    """Run one notebook with papermill and print one line about it.

    Args:
        kind: which notebook.
        params: the run's ``params.yaml``; the run's files go beside it.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
        root: the project's folder.

    Raises:
        RuntimeError: the notebook failed; the message holds the error and names the executed notebook.
        ConfigError: ``params`` can't be read.
    """
    import papermill
    from papermill.exceptions import PapermillExecutionError

    values = read_params(params)
    folder = params.parent
    experiment, run = folder.parent.parent.name, folder.name
    context = {"experiment": experiment, "run": run, "folder": str(folder.resolve()), "device": device}
    started = time.monotonic()
    out = folder / NOTEBOOK
    try:
        (folder / NOTEBOOK_HASH).unlink(missing_ok=True)
        with _quiet_kernel(), _private_sockets() as connection:
            papermill.execute_notebook(
                str(root / "notebooks" / f"{kind}.ipynb"),
                str(out),
                parameters=values | context,
                cwd=str(root),
                progress_bar=False,
                kernel_name="python3",
                extra_arguments=["--IPKernelApp.log_level=CRITICAL"],
                **connection,
            )
        records.write_atomic(folder / NOTEBOOK_HASH, records.sha256(out))
    except PapermillExecutionError as error:
        raise RuntimeError(f"{kind} {experiment} {run}: {error.ename}: {error.evalue} (see {out})") from None
    except OSError as error:
        raise RuntimeError(f"{kind} {experiment} {run}: {error}") from None
    record = records.read(folder / "record.json")
    done, total = _progress(folder)
    took = time.monotonic() - started
    print(f"[{done:>3}/{total}] {kind:<7} {experiment} {run:<20} {_headline(record)} ({took:.0f} s)", flush=True)  # noqa: T201


@contextlib.contextmanager
def _quiet_kernel() -> Generator[None]:
    """Keep the kernel's threads to one and its debugger's warning silent; parallel runs share the cores."""
    before = dict(os.environ)
    os.environ |= {"PYDEVD_DISABLE_FILE_VALIDATION": "1", "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1")}
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


@contextlib.contextmanager
def _private_sockets() -> Generator[dict[str, Any]]:
    """How to reach the kernel: Unix sockets in a folder of its own.

    jupyter_client draws free TCP ports, lets go of them and tells the kernel to bind them: two runs that start at once
    may draw the same, and the later kernel dies ("Address already in use"). Where the folder's path is too long for a
    socket, TCP it stays.
    """
    from traitlets.config import Config

    with tempfile.TemporaryDirectory(prefix="isce-", ignore_cleanup_errors=True) as folder:
        stem = f"{folder}/kernel"
        fits = len(os.fsencode(f"{stem}-5")) < LONGEST_SOCKET
        yield {"config": Config({"KernelManager": {"transport": "ipc", "ip": stem}})} if fits else {}


def _headline(record: records.Record) -> str:
    figures, flags = record.figures, "".join(f", FLAG {name}" for name in record.flags)
    if record.kind == "train":
        reached = figures["validation_accuracy"]
        return (f"validation accuracy {reached:.1%}" if reached is not None else "no epoch finished") + flags
    if record.kind == "minmax":
        threats = figures["threats"].items()
        bounded = [f"{name} {found['certified']:.1%}" for name, found in threats if found["certified"] is not None]
        return "certified " + (", ".join(bounded) or "none") + flags
    if record.kind == "explain":
        standing = figures["standing"]
        own, best = (standing[f"adaptive-{name}"]["accuracy"] for name in ("training", "margin"))
        return f"clean {standing['clean']['accuracy']:.1%}, attack on own loss {own:.1%}, on margin {best:.1%}{flags}"
    worst = ", ".join(f"{threat} {in_percent(outcome['worst'])}" for threat, outcome in figures["threats"].items())
    return f"clean {figures['clean']['accuracy']:.1%}, worst case {worst}{flags}"


def _progress(run: Path) -> tuple[int, int]:
    """How many runs of an experiment were done under their present key when this one was, and how many there are."""
    planned = list(run.parent.parent.glob("*/*/params.yaml"))
    own, done = records.read(run / "record.json").provenance.created, 0
    for params in planned:
        with contextlib.suppress(records.RecordError):
            other = records.read(params.parent / "record.json")
            done += other.provenance.created <= own and other.key == read_params(params)["key"]
    return done, len(planned)
