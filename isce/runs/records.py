"""Records: one JSON file for each run, written atomically and last; and the many read back as one data frame.

A record's *content* (schema, kind, experiment, run, parameters, results, flags, files, key) is the same for the same
inputs, bit for bit on the CPU; what may differ between two executions (commit, time, machine) stands apart in
``provenance``. ``checksum`` covers both, so that a flipped byte is noticed.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, SerializerFunctionWrapHandler, ValidationError, model_serializer

from isce.files import RecordError, canonical, sha256, write_atomic
from isce.parameters.semantics import versions

Kind = Literal["train", "attack", "minmax", "explain"]

SCHEMA_VERSION = 2

DISTANCES = "distances.safetensors"  # side file of an attack record: of each image to its nearest adversarial one
MASKS = "robust.safetensors"  # side file of an attack record: for each threat which images are robust; clean ones
POINTS = "adversarial.safetensors"  # side file of an attack record: all adversarial points of the worst case
EXPLAIN = "explain.safetensors"  # side file of an explain record: paths, gradients, embeddings, gallery
NOTEBOOK = "notebook.ipynb"  # beside a record: the notebook as it ran; no record can hold its hash
EXAMPLES = "examples.safetensors"  # side file of an attack record: clean, adversarial, labels, predictions


class Cost(BaseModel):
    """What one row of a suite cost in one threat model; the counts are images, summed over all calls."""

    model_config = ConfigDict(extra="forbid")

    seconds: float = Field(ge=0)
    gradients: int = Field(ge=0, description="images for which the network was differentiated")
    forwards: int = Field(ge=0, description="images that it classified, those on the way to a gradient too")


class Provenance(BaseModel):
    """Where, when and with what a record was made."""

    model_config = ConfigDict(extra="forbid")

    commit: str | None = Field(description="git commit; None outside a repository")
    modified: bool | None = Field(description="whether tracked files differed from that commit")
    packages: dict[str, str]
    python: str
    machine: str
    device: str
    seconds: float = Field(ge=0)
    created: str = Field(description="UTC, ISO 8601")
    rows: dict[str, dict[str, Cost]] | None = Field(default=None, description="what each row of an attack run cost")

    @model_serializer(mode="wrap")
    def _older_ones_as_they_were(self, plain: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leave out what a record made before this field does not have: its checksum must stay."""
        values = plain(self)
        return values if self.rows is not None else {name: value for name, value in values.items() if name != "rows"}


class Record(BaseModel):
    """The outcome of one run.

    Attributes:
        schema_version: version of this schema.
        kind: which notebook wrote it.
        experiment: name of the experiment file; ``adhoc`` for a notebook run by hand.
        run: name of the run inside the experiment.
        key: hash of what decides the results; see ``isce.runs.key``.
        parameters: validated parameters.
        results: the outcome; accuracies are shares in [0, 1].
        flags: red flags, each a name with its detail.
        files: SHA-256 of the side files, by name relative to the record.
        data_sha256: hash of the data set's content.
        provenance: see :class:`Provenance`.
        checksum: SHA-256 of all the rest.
    """

    model_config = ConfigDict(extra="forbid", ser_json_inf_nan="constants")  # so that a NaN is refused, not nulled

    schema_version: Literal[2] = SCHEMA_VERSION
    kind: Kind
    experiment: str
    run: str
    key: str
    parameters: dict[str, Any]
    results: dict[str, Any]
    flags: dict[str, str] = Field(default_factory=dict)
    files: dict[str, str] = Field(default_factory=dict)
    data_sha256: str
    provenance: Provenance
    checksum: str = ""

    def content(self) -> dict[str, Any]:
        """What must be equal between two executions of the same run."""
        return self.model_dump(mode="json", exclude={"provenance", "checksum"})

    def _digest(self) -> str:
        return sha256(canonical(self.model_dump(mode="json", exclude={"checksum"})))

    def save(self, path: Path) -> None:
        """Write the record atomically as JSON, with its checksum.

        Raises:
            ValueError: a figure is not finite (JSON has no NaN; say ``None`` and why in a flag).
            OSError: the folder can't be written or the disk is full; a former record stays as it was.
        """
        self.checksum = self._digest()
        text = json.dumps(self.model_dump(mode="json"), indent=1, allow_nan=False)
        write_atomic(path, text + "\n")


def provenance(
    device: str, seconds: float, root: Path | None = None, rows: dict[str, dict[str, Cost]] | None = None
) -> Provenance:
    """The provenance of a run that ends now.

    Args:
        device: device the tensors lived on, e.g. ``cpu`` or the GPU's name.
        seconds: wall time of the run, with that of rows of attacks that an earlier execution had finished.
        root: folder whose git commit is noted; default: the current folder.
        rows: what each row of an attack run cost, by threat and row.
    """
    commit = _git(["rev-parse", "HEAD"], root)
    changes = _git(["status", "--porcelain", "--untracked-files=no"], root)
    return Provenance(
        commit=commit,
        modified=None if commit is None or changes is None else bool(changes),
        packages=versions(),
        python=platform.python_version(),
        machine=f"{platform.system()} {platform.machine()}, {os.cpu_count()} CPU",
        device=device,
        seconds=round(seconds, 3),
        created=datetime.now(UTC).isoformat(timespec="microseconds"),
        rows=rows,
    )


def _git(arguments: list[str], root: Path | None) -> str | None:
    try:
        done = subprocess.run(  # noqa: S603 - fixed command
            ["git", *arguments],  # noqa: S607
            cwd=root,
            capture_output=True,
            text=True,
            check=True,
            timeout=30,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def read(path: Path) -> Record:
    """Read and check one record.

    Raises:
        RecordError: missing, damaged (checksum differs), incomplete, or of another schema version.
    """
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise RecordError(f"can't read record {path}: {error.strerror}") from None
    except ValueError as error:
        raise RecordError(f"record {path} is damaged: not JSON ({error})") from None
    version = values.get("schema_version") if isinstance(values, dict) else None
    if version != SCHEMA_VERSION:
        raise RecordError(f"record {path} has schema version {version!r}; this package reads {SCHEMA_VERSION}")
    try:
        record = Record.model_validate(values)
    except ValidationError as error:
        fields = ", ".join(".".join(map(str, e["loc"])) for e in error.errors())
        raise RecordError(f"record {path} is damaged: wrong or missing {fields}") from None
    try:
        digest = record._digest()  # pyright: ignore[reportPrivateUsage]
    except ValueError as error:
        raise RecordError(f"record {path} is damaged: {error}") from None
    if record.checksum != digest:
        raise RecordError(f"record {path} is damaged: its checksum differs; remove it and run again")
    return record


def read_all(folder: Path) -> dict[Path, Record]:
    """All records below a folder, by path, in the order of their paths."""
    return {path: read(path) for path in sorted(folder.rglob("record.json"))}
