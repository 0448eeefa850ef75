"""Kernels forked from one process that has loaded the packages: to load them takes longer than a short run works.

``make reproduce`` keeps such a process while it works (``isce.publish.kernels``) and names its socket in a variable. A
run that finds nobody there starts its kernel itself.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from select import select

SOCKET = "ISCE_KERNELS"  #: variable that names the socket


def fork(command: Sequence[str], environment: Mapping[str, str], folder: str, lock: int) -> Forked | None:
    """Ask for a kernel; None where nobody keeps the packages loaded.

    Args:
        command: that would start the kernel: ``python -m ipykernel_launcher`` and its arguments.
        environment: of the kernel.
        folder: in which it is to work.
        lock: open file that it is to hold, beside this process's output and errors.
    """
    path = os.environ.get(SOCKET)
    if not path:
        return None
    connection = socket.socket(socket.AF_UNIX)
    request = {"arguments": list(command[2:]), "environment": dict(environment), "folder": folder}
    try:
        connection.connect(path)
        socket.send_fds(connection, [b"\0"], [sys.__stdout__.fileno(), sys.__stderr__.fileno(), lock])  # pyright: ignore[reportOptionalMemberAccess]
        connection.sendall(json.dumps(request).encode() + b"\n")
        answer = _line(connection)
    except OSError:
        answer = ""
    if answer:
        return Forked(connection, int(answer))
    connection.close()
    return None


class Forked:
    """A kernel that another process forked, with what jupyter_client uses of :class:`subprocess.Popen`.

    It is killed when this process ends, or when the one that forked it does.
    """

    stdin = stdout = stderr = None

    def __init__(self, connection: socket.socket, pid: int) -> None:
        self.pid, self._connection = pid, connection
        self.returncode: int | None = None

    def poll(self) -> int | None:
        """The exit code, minus the signal that ended it; None while it works."""
        if self.returncode is None and select([self._connection], [], [], 0)[0]:
            self.wait()
        return self.returncode

    def wait(self) -> int:
        """Wait for its end and return the exit code."""
        if self.returncode is None:
            self.returncode = int(_line(self._connection) or -signal.SIGKILL)  # no word: whoever forked it was killed
            self._connection.close()
        return self.returncode

    def send_signal(self, number: int) -> None:
        """Send it a signal, if it works."""
        if self.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def kill(self) -> None:
        """Kill it."""
        self.send_signal(signal.SIGKILL)

    def terminate(self) -> None:
        """Ask it to end."""
        self.send_signal(signal.SIGTERM)


Process = subprocess.Popen[bytes] | Forked  #: a kernel's


def _line(connection: socket.socket) -> str:
    """The next line, without its end; empty where the other side ends first. There is one line at a time."""
    with connection.makefile() as lines:
        return lines.readline().strip()
