"""The state file of an evaluation: finished rows, each under a key of what decides it: nothing stale is taken."""

from __future__ import annotations

import contextlib
import errno
import io
import os
import tempfile
import time
import zipfile
import zlib
from dataclasses import fields
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from isce.attacks import Threat
from isce.attacks.spec import AttackSpec, about
from isce.evaluation.identity import digest, identity
from isce.evaluation.job import Job
from isce.evaluation.outcome import Mask, Outcome
from isce.files import canonical, sha256, write_atomic
from isce.parameters.semantics import CHANGES, numbers, versions

#: Every network and objective whose results have changed: a row does not know by which name its own was built.
NETWORKS = [part for part in CHANGES if part.startswith(("network.", "objective."))]


class RowKeys:
    """Hashes of what decides a row's outcome: network, images, the row and what it attacks, semantics, packages.

    The batch size is none of it, but for a batch-dependent network and for an attack that draws for a batch at once: it
    moves other outcomes by float rounding only, and is what has to change when memory runs out.
    """

    def __init__(self, job: Job) -> None:
        self.job = job
        data = [digest(tensor) for tensor in (job.images, job.labels, job.index)]
        chosen = {"seed": job.parameters.seed, "keep_points": job.parameters.keep_points}
        self._nets = [identity(job.classifier), identity(job.objective)]
        self._common = sha256(canonical([self._nets, data, chosen]))

    def key(self, spec: AttackSpec, threat: Threat, standing: Mask, spared: Mask) -> str:
        """Key of one row on the images that stand but for those that are spared; both masks are bool (N,)."""
        job, attack = self.job, about(spec.attack)
        source: list[Any] = []
        if spec.source:
            network = job.sources[spec.source]
            source = [identity(network.classifier), identity(network.objective)]
        batch = job.batch_size if job.whole or attack.draws_by_batch else None
        # What looks for the smallest change does so at the first eps; at the others its points are judged again.
        first = job.parameters.eps[0] if attack.minimal and spec.threat is None else None
        row = spec.model_dump(mode="json", exclude={"source"})
        stands = [len(standing), *(sha256(np.packbits(mask).tobytes()) for mask in (standing, spared))]
        semantics = numbers(["attack", f"attack.{spec.attack}", *NETWORKS])
        packages = versions({"numpy", "torch", *attack.packages})
        parts = [self._common, semantics, packages, row, source, threat.norm, threat.eps, first, stands, batch]
        return sha256(canonical(parts))

    def other(self, *what: Any) -> str:
        """Key of anything else that is found with draws, from plain values that decide it beside network and images."""
        semantics = numbers(["attack", "attack.pgd", "draws", *NETWORKS])
        return sha256(canonical([self._common, semantics, versions({"numpy", "torch", *about("pgd").packages}), *what]))


class State:
    """Finished rows with their keys, in a file if there is one. A file that can't be read holds none.

    Args:
        path: the file; None: rows are kept nowhere.

    Raises:
        OSError: a folder, or a place where no file can be written: better now than after the first row.
    """

    def __init__(self, path: Path | str | None) -> None:
        self.path = None if path is None else Path(path)
        if self.path is not None:
            _check_place(self.path)
        self._rows = _read(self.path) if self.path is not None else {}
        self._used: set[str] = set()

    def get(self, name: str, key: str) -> Row | None:
        """A row, if it is there under this key. One that failed, or was cut short, is tried again."""
        self._used.add(name)
        row = self._rows.get(name)
        return row if row is not None and row.key == key and not row.outcome.error else None

    def add(self, name: str, key: str, outcome: Outcome, seconds: float) -> Row:
        """Keep a finished row, and how long it took."""
        row = Row(key, seconds, time.time(), outcome)
        if self.path is not None:
            self._rows[name] = row
            self._write(self.path)
        return row

    def close(self) -> None:
        """Forget rows that the evaluation no longer has."""
        if self.path is not None and not self._used.issuperset(self._rows):
            self._rows = {name: row for name, row in self._rows.items() if name in self._used}
            self._write(self.path)

    def _write(self, path: Path) -> None:
        arrays: dict[str, Any] = {}
        for name, row in self._rows.items():
            arrays |= {f"{name}/key": np.array(row.key), f"{name}/seconds": row.seconds, f"{name}/made": row.made}
            arrays |= {f"{name}/{f.name}": getattr(row.outcome, f.name) for f in fields(Outcome)}
        buffer = io.BytesIO()
        np.savez_compressed(buffer, allow_pickle=False, **arrays)
        write_atomic(path, buffer.getvalue())


def _check_place(path: Path) -> None:
    if path.is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path.parent):
            pass
    except OSError as error:
        raise OSError(error.errno, f"can't write there ({error.strerror})", str(path)) from None


class Row(NamedTuple):
    """A finished row: its key, how long it took, when it was finished, and its outcome."""

    key: str
    seconds: float
    made: float
    outcome: Outcome


def _read(path: Path) -> dict[str, Row]:
    rows: dict[str, Row] = {}
    # RuntimeError: zipfile's of an archive that seems to be encrypted, or of another kind than any that it knows.
    unreadable = (OSError, ValueError, KeyError, EOFError, RuntimeError, zipfile.BadZipFile, zlib.error)
    with contextlib.suppress(*unreadable), np.load(io.BytesIO(path.read_bytes())) as arrays:
        for name in sorted({stored.rpartition("/")[0] for stored in arrays.files}):
            values = {f.name: arrays[f"{name}/{f.name}"] for f in fields(Outcome)}
            plain = {n: value if value.ndim else value.item() for n, value in values.items()}
            seconds, made = (float(arrays[f"{name}/{what}"]) for what in ("seconds", "made"))
            rows[name] = Row(str(arrays[f"{name}/key"]), seconds, made, Outcome(**plain))
    return rows


def spent_before(folder: Path, moment: float) -> float:
    """Seconds of the rows in a run's state files that were finished before a moment of ``time.time``.

    That is what a resumed run was spared.
    """
    rows = [row for path in sorted(folder.glob("*.npz")) for row in _read(path).values()]
    return sum(row.seconds for row in rows if row.made < moment)
