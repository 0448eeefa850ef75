"""Locks on what one process at a time may write: the system frees each when no process has its file open any more.

A process that is killed leaves no lock behind, unless a child that got the open file from it still works.
"""

from __future__ import annotations

import fcntl
import os
import platform
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import IO


@contextmanager
def hold(path: Path, busy: Callable[[str], None]) -> Generator[Lock]:
    """Hold the lock of a file, made if missing, as this process.

    Args:
        path: the lock's file; its folder is made if missing.
        busy: called with the names of the processes that hold it, where others do; raises, or returns in order to wait.

    Raises:
        OSError: the file can't be written, or its file system has no locks; the error names it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+", encoding="utf-8") as file:
        _lock(file, fcntl.LOCK_EX, busy)
        lock = Lock(file)
        lock.name(os.getpid())
        yield lock


def await_free(path: Path, busy: Callable[[str], None]) -> None:
    """Return once nobody holds the lock of an existing file; see :func:`hold`."""
    with path.open(encoding="utf-8") as file:
        _lock(file, fcntl.LOCK_SH, busy)


def is_held(path: Path) -> bool:
    """Whether a process holds the lock of a file; not where there is no such file."""
    if not path.exists():
        return False
    with path.open(encoding="utf-8") as file:
        try:
            _flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


class Lock:
    """A lock that is held."""

    def __init__(self, file: IO[str]) -> None:
        self._file = file

    @property
    def file(self) -> int:
        """Descriptor of its file: a child process that gets it holds the lock too."""
        return self._file.fileno()

    def name(self, process: int, more: str = "") -> None:
        """Write down who holds it, for those who find it held: a process of this machine, and words about it."""
        self._file.truncate(0)
        self._file.write(f"process {process} on {platform.node()}{more}")
        self._file.flush()


def _lock(file: IO[str], mode: int, busy: Callable[[str], None]) -> None:
    try:
        _flock(file, mode | fcntl.LOCK_NB)
    except BlockingIOError:
        file.seek(0)
        busy(file.read().strip() or "a process that just began")
        _flock(file, mode)


def _flock(file: IO[str], mode: int) -> None:
    try:
        fcntl.flock(file, mode)
    except OSError as error:
        raise OSError(error.errno, error.strerror, file.name) from None  # with an errno it is a BlockingIOError still
