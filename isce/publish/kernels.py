"""The process that has loaded what notebooks import, and forks their kernels (``isce.runs.forked`` asks it to)."""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import runpy
import selectors
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Generator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from isce import compat
from isce.files import ROOT
from isce.runs.forked import SOCKET

#: What notebooks import, and what that imports when it is used.
LOADED = ("isce.runs.session", "isce.report.plots.explain", "torch._dynamo", "sklearn.datasets", "ipykernel.kernelapp")


@contextlib.contextmanager
def kept(given: tuple[dict[str, str], list[int]]) -> Generator[tuple[dict[str, str], list[int]]]:
    """Keep such a process for a child that gets this environment and these open files; yields both, with its own.

    It forks no more once this block is left and the child has ended, and ends with the last kernel.
    """
    environment, files = given
    if sys.platform != "linux":  # elsewhere a fork is not safe
        yield given
        return
    held, alive = os.pipe()
    with (
        tempfile.TemporaryDirectory(prefix="isce-") as folder,
        contextlib.closing(os.fdopen(alive, "wb")),
        contextlib.closing(os.fdopen(held, "rb")),
        socket.socket(socket.AF_UNIX) as listener,
    ):
        path = f"{folder}/kernels"
        try:
            listener.bind(path)
        except OSError:  # the folder's name is too long for a socket, or the system has none
            yield given
            return
        listener.listen()
        process = subprocess.Popen(  # noqa: S603
            [sys.executable, "-m", "isce.publish.kernels", str(listener.fileno()), str(held)],
            env={"OMP_NUM_THREADS": "1"} | environment,  # as the kernels will have it
            pass_fds=[listener.fileno(), held],
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # no key of a terminal ends it before the kernels that it forked
        )
        listener.close()
        yield environment | {SOCKET: path}, [*files, alive]
    try:
        process.wait(5)
    except subprocess.TimeoutExpired:  # a Snakemake that was killed leaves runs, which go on
        process.returncode = 0  # let go of it without a warning


def main() -> None:
    """Load the packages, then be the parent of kernels, and in each fork a kernel."""
    listener, held = socket.socket(fileno=int(sys.argv[1])), int(sys.argv[2])
    os.environ["JPY_PARENT_PID"] = str(os.getpid())  # ipykernel reads it when loaded: a kernel ends with this process
    for name in LOADED:
        importlib.import_module(name)
    for load in (compat.import_advertorch, compat.import_foolbox, compat.import_pyautoattack):
        with contextlib.suppress(Exception):  # it fails again in the row that needs it, which says so
            load()
    if len(list(Path("/proc/self/task").iterdir())) > 1:  # what other threads hold, a fork would wait for in vain
        return
    arguments = _serve(listener, held)
    if arguments is None:
        os._exit(0)  # nothing to tidy up, and Python takes its time over that
    sys.argv = arguments
    runpy.run_module("ipykernel_launcher", run_name="__main__", alter_sys=True)


def _serve(listener: socket.socket, held: int) -> list[str] | None:
    """Fork kernels on demand; in a fork, return its command's arguments, else None at the end."""
    selector = selectors.DefaultSelector()
    selector.register(listener, selectors.EVENT_READ)
    selector.register(held, selectors.EVENT_READ)
    while selector.get_map():
        key, _ = selector.select()[0]
        if key.fileobj == held:  # whoever might still ask has ended
            for opened in (listener, held):
                selector.unregister(opened)
            listener.close()
        elif key.fileobj is listener:
            connection, _ = listener.accept()
            asked = _read(connection)
            if asked is None:
                connection.close()
                continue
            if (pid := os.fork()) == 0:
                for other in selector.get_map().values():
                    other.fileobj.close() if isinstance(other.fileobj, socket.socket) else os.close(other.fd)
                connection.close()
                selector.close()
                return _become(*asked)
            for file in asked[1]:
                os.close(file)
            selector.register(connection, selectors.EVENT_READ, pid)
            selector.register(os.pidfd_open(pid), selectors.EVENT_READ, (pid, connection))
            with contextlib.suppress(OSError):
                connection.sendall(f"{pid}\n".encode())
        elif isinstance(key.fileobj, int):  # a kernel has ended
            pid, connection = key.data
            code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
            selector.unregister(key.fileobj)
            os.close(key.fileobj)
            if connection in selector.get_map():
                selector.unregister(connection)
            with contextlib.suppress(OSError):
                connection.sendall(f"{code}\n".encode())
            connection.close()
        else:  # a run has ended
            selector.unregister(key.fileobj)
            os.kill(key.data, signal.SIGKILL)
    return None


def _read(connection: socket.socket) -> tuple[dict[str, Any], list[int]] | None:
    """What a run asks for, and its open files; None where it ended before it had asked."""
    try:
        _, files, _, _ = socket.recv_fds(connection, 1, 3)
        with connection.makefile() as lines:
            return json.loads(lines.readline()), files
    except (OSError, ValueError):
        return None


def _become(request: dict[str, Any], files: list[int]) -> list[str]:
    """Turn this fork into what the kernel would be that the run had started; returns its command's arguments."""
    os.setsid()
    for stream, file in enumerate((os.open(os.devnull, os.O_RDONLY), *files[:2])):
        os.dup2(file, stream)
        os.close(file)
    os.environ.clear()
    os.environ.update(request["environment"])
    os.chdir(request["folder"])
    sys.path[0] = request["folder"]
    torch.seed()  # no two processes begin with the same random numbers
    np.random.seed()  # noqa: NPY002
    return list(request["arguments"])


if __name__ == "__main__":
    main()
