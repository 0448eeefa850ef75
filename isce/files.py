"""Files: canonical JSON, hashes and atomic writes."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import tempfile
from pathlib import Path
from typing import Any


class RecordError(ValueError):
    """A record that can't be read: damaged, incomplete, or of another schema version."""


def canonical(value: Any) -> str:
    """JSON with sorted keys and no spare blanks: equal values, equal text."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def sha256(data: bytes | str | Path) -> str:
    """SHA-256 as hexadecimal text of bytes, of text (UTF-8), or of a file's content."""
    if isinstance(data, Path):
        with data.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    return hashlib.sha256(data.encode() if isinstance(data, str) else data).hexdigest()


def write_atomic(path: Path, data: bytes | str) -> None:
    """Write a file so that other processes and a crash see either the old content or the new, never a part.

    Raises:
        OSError: no permission or no space, naming ``path``; the old content stays and no part file is left.
    """
    try:
        _replace(path, data)
    except OSError as error:  # names a part file, or (no space left) none at all
        raise OSError(error.errno, error.strerror, str(path)) from None


def _replace(path: Path, data: bytes | str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data.encode() if isinstance(data, str) else data)
            file.flush()
            os.fsync(file.fileno())
        umask = os.umask(0)
        os.umask(umask)
        Path(name).chmod(0o666 & ~umask)  # mkstemp makes private files; a result is for everybody
        Path(name).replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            Path(name).unlink()
        raise


ROOT = Path(__file__).resolve().parent.parent
