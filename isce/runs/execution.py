"""One run of one notebook through papermill, and the line that says how it ended."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import sys
import tempfile
import time
from collections.abc import Generator
from pathlib import Path
from typing import Any

from isce.files import ROOT, RecordError, sha256, write_atomic
from isce.parameters.base import check_device
from isce.runs import forked, locks, records
from isce.runs.line import Line
from isce.runs.records import NOTEBOOK, Kind
from isce.runs.whole import CHECKPOINT, LOCK, NOTEBOOK_HASH, damage, notebook_damage, read_params
from isce.strict import ConfigError

#: Longest path of a Unix socket on any system that is supported (macOS), its end mark included.
LONGEST_SOCKET = 104

#: A kernel that is told to end may find its sockets closed already (a race in ipykernel), and says so with a traceback
#: although all is well. The line leaves no name behind in the notebook.
_NO_LAST_WORDS = "__import__('logging').getLogger('tornado.general').setLevel('CRITICAL')"


def execute(kind: Kind, params: Path, device: str, root: Path = ROOT) -> None:
    """Run one notebook with papermill and print one line about it.

    Where another process works on this run, wait for its end; if the run is then done, that is all.

    Args:
        kind: which notebook.
        params: the run's ``params.yaml``; the run's files go beside it.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
        root: the project's folder.

    Raises:
        RuntimeError: the notebook failed or its kernel was killed; the message holds the error and names the executed
            notebook.
        ConfigError: ``params`` can't be read or lies elsewhere, or the device's name is not allowed.
    """
    check_device(device)
    values = read_params(params)
    folder = params.parent
    if len(folder.resolve().parts) < 4:
        raise ConfigError(f"{params} must lie in a folder EXPERIMENT/KIND/RUN, as the plan of an experiment makes it")
    experiment, run = folder.resolve().parts[-3], folder.resolve().name
    what = f"{kind} {experiment} {run}"
    started = time.monotonic()
    waited: list[str] = []
    line = Line(what)

    def wait(owners: str) -> None:
        waited.append(owners)
        sys.stderr.write(f"isce: {what}: {owners} already works on it; waiting for the end of that\n")

    try:
        with locks.hold(folder / LOCK, wait) as lock:
            if not (waited and _is_done(kind, folder, values["key"])):
                context = {"experiment": experiment, "run": run, "folder": str(folder.resolve()), "device": device}
                _execute(kind, folder, values | context, root, lock, line)
    except (OSError, RuntimeError) as error:
        raise RuntimeError(f"{what}: {error}") from None
    finally:
        line.clear()
    record = records.read(folder / "record.json")
    done, total = _progress(folder)
    took = time.monotonic() - started
    print(f"[{done:>3}/{total}] {kind:<7} {experiment} {run:<20} {_headline(record)} ({took:.0f} s)", flush=True)  # noqa: T201


def _execute(kind: Kind, folder: Path, values: dict[str, Any], root: Path, lock: locks.Lock, line: Line) -> None:
    """Run the notebook into the run's folder, whose lock the kernel holds too: it may outlive this process a little."""
    import papermill
    from papermill.exceptions import PapermillExecutionError

    out = folder / NOTEBOOK
    kernels: list[forked.Process] = []
    (folder / NOTEBOOK_HASH).unlink(missing_ok=True)
    logging.getLogger("papermill").setLevel(logging.CRITICAL)  # what it logs is in the error too
    try:
        with _quiet_kernel(), _private_sockets() as connection:
            papermill.execute_notebook(
                str(root / "notebooks" / f"{kind}.ipynb"),
                str(out),
                parameters=values,
                cwd=str(root),
                progress_bar=False,
                stderr_file=line,
                kernel_name="python3",
                kernel_manager_class=_manager(lock, kernels),
                extra_arguments=["--IPKernelApp.log_level=CRITICAL", f"--IPKernelApp.exec_lines={_NO_LAST_WORDS}"],
                **connection,
            )
    except PapermillExecutionError as error:
        raise RuntimeError(f"{error.ename}: {error.evalue} (see {out})") from None
    except OSError:
        raise
    except Exception as error:  # a foreign package: whatever it raises ends in one line that names the run
        text = f"{type(error).__name__}: {error}"
        if str(error).startswith("Kernel died") and kernels:
            text = f"its kernel {_ended(kernels[-1].wait())}; start it again to go on"
        raise RuntimeError(f"{text} (see {out})") from None
    write_atomic(folder / NOTEBOOK_HASH, sha256(out))


def _ended(code: int) -> str:
    """How a process ended, from its return code, and why it probably did."""
    if code >= 0:
        return f"ended by itself, with exit code {code}"
    name = signal.Signals(-code).name
    if -code == signal.SIGKILL:
        return (
            f"was killed ({name}), most likely by the system because memory ran out: "
            "run fewer side by side (JOBS=1) or give it more memory"
        )
    return f"was ended by signal {name}"


def _manager(lock: locks.Lock, kernels: list[forked.Process]) -> type:
    """Class of a kernel manager whose kernel holds the lock too; each kernel that it starts is added to ``kernels``."""
    from jupyter_client.manager import AsyncKernelManager
    from jupyter_client.provisioning.local_provisioner import LocalProvisioner

    class Manager(AsyncKernelManager):
        async def start_kernel(self, **options: Any) -> None:  # pyright: ignore[reportIncompatibleVariableOverride]
            await super().start_kernel(pass_fds=[lock.file], **options)
            assert isinstance(self.provisioner, LocalProvisioner)
            assert self.provisioner.process is not None
            kernels.append(self.provisioner.process)
            lock.name(os.getpid(), f" (its kernel: {kernels[-1].pid})")

        async def _async_launch_kernel(self, kernel_cmd: list[str], **options: Any) -> None:
            process = forked.fork(kernel_cmd, options["env"], options.get("cwd") or str(Path.cwd()), lock.file)
            if process is None:
                return await super()._async_launch_kernel(kernel_cmd, **options)
            assert isinstance(self.provisioner, LocalProvisioner)
            self.provisioner.process = process  # pyright: ignore[reportAttributeAccessIssue]
            self.provisioner.pid = self.provisioner.pgid = process.pid
            return self._reconcile_connection_info(self.provisioner.connection_info)

    return Manager


def _is_done(kind: Kind, folder: Path, key: str) -> bool:
    """Whether the run in a folder, which nobody works on, is done under this key, and all that it left is whole."""
    try:
        record = records.read(folder / "record.json")
        whole = damage(folder / "record.json") is None and notebook_damage(folder) is None
    except RecordError:
        return False
    left = (folder / NOTEBOOK_HASH).is_file() and (kind != "train" or CHECKPOINT in record.files)
    return record.key == key and whole and left


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
    results, flags = record.results, "".join(f", FLAG {name}" for name in record.flags)
    if record.kind == "train":
        reached = results["validation_accuracy"]
        return (f"validation accuracy {reached:.1%}" if reached is not None else "no epoch finished") + flags
    if record.kind == "minmax":
        threats = results["threats"].items()
        bounded = [f"{name} {found['certified']:.1%}" for name, found in threats if found["certified"] is not None]
        return "certified " + (", ".join(bounded) or "none") + flags
    if record.kind == "explain":
        standing = results["standing"]
        own, best = (standing[f"adaptive-{name}"]["accuracy"] for name in ("training", "margin"))
        return f"clean {standing['clean']['accuracy']:.1%}, attack on own loss {own:.1%}, on margin {best:.1%}{flags}"
    cells = {threat: outcome["worst"] for threat, outcome in results["threats"].items()}
    known = {threat: None if cell["accuracy"] is None else f"{cell['accuracy']:.1%}" for threat, cell in cells.items()}
    worst = ", ".join(f"{threat} {known[threat] or 'not evaluated: ' + cell['why']}" for threat, cell in cells.items())
    proofs = [
        f"{threat} {cell['certified']['accuracy']:.1%}"
        for threat, cell in results["threats"].items()
        if "certified" in cell
    ]
    proved = f", certified {', '.join(proofs)}" if proofs else ""
    if "rejection" in results:
        proved += f", {results['rejection']['clean_rejected']['accuracy']:.1%} of clean images rejected"
    return f"clean {results['clean']['accuracy']:.1%}, worst case {worst}{proved}{flags}"


def _progress(run: Path) -> tuple[int, int]:
    """How many runs of an experiment were done under their present key when this one was, and how many there are."""
    planned = list(run.parent.parent.glob("*/*/params.yaml"))
    own, done = records.read(run / "record.json").provenance.created, 0
    for params in planned:
        with contextlib.suppress(RecordError):
            other = records.read(params.parent / "record.json")
            done += other.provenance.created <= own and other.key == read_params(params)["key"]
    return done, len(planned)
