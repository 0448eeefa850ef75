"""Trained networks by name: checkpoints that come with the project, each with its hash in ``checkpoints.json``.

The files lie in the folder ``checkpoints`` of the repository; an installed package has the hashes alone, and fetches a
file from the project's release where that has an address. ``python -m isce export`` writes files and hashes.
"""

from __future__ import annotations

import difflib
import json
import os
from http.client import HTTPException
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import torch

from isce import __version__
from isce.files import ROOT, sha256, write_atomic
from isce.training.checkpoint import CheckpointError, LoadedCheckpoint, load_checkpoint

MANIFEST = Path(__file__).with_name("checkpoints.json")
TIMEOUT = 30.0  # seconds without an answer from a server


def read_manifest(path: Path | None = None) -> dict[str, Any]:
    """What comes with the project: ``repository``, its address or empty, and ``networks``.

    Each network, by its name ``<experiment>/<run>``, has ``sha256`` and ``bytes`` of its file; ``key`` and ``commit``
    of the record of its training; ``attacked``: whether the committed records of attacks are of these very weights, or
    of the same training on another processor.

    Args:
        path: of the manifest; None: the package's own.
    """
    return json.loads((path or MANIFEST).read_text(encoding="utf-8"))


def names() -> list[str]:
    """Names of all networks that :func:`load` knows, such as ``digits/sce-s0``."""
    return sorted(read_manifest()["networks"])


def load(name: str, device: torch.device | str = "cpu") -> LoadedCheckpoint:
    """Load a trained network of the project, with the objective that it was trained with.

    The file is looked for in the folder that ``ISCE_CHECKPOINTS`` names; without that in ``checkpoints`` of the
    repository or else of the current folder. One that is missing is fetched into it. No pickle is read.

    Args:
        name: ``<experiment>/<run>``, one of :func:`names`.
        device: where the weights go.

    Raises:
        CheckpointError: no such network; its file is missing and can't be fetched, damaged, or not the one that was
            exported.
        OSError: a file that was fetched can't be written.
    """
    manifest = read_manifest()
    known = manifest["networks"]
    if name not in known:
        begun = [one for one in known if one.startswith(name)][:3]
        close = begun or difflib.get_close_matches(name, known, cutoff=0.5)
        meant = f"did you mean {' or '.join(close)}" if close else f"one of {', '.join(known) or 'none'}"
        raise CheckpointError(f"unknown network {name!r}: {meant}?")
    path = _folder() / f"{name}.safetensors"
    if not path.is_file():
        write_atomic(path, _fetched(name, path, manifest))
    if (found := sha256(path)) != known[name]["sha256"]:
        raise CheckpointError(
            f"{path} is damaged or another file: its SHA-256 is {found}, expected {known[name]['sha256']}; remove it"
        )
    return load_checkpoint(path, device)


def asset(name: str) -> str:
    """Name of a network's file in a release, which knows no folders."""
    return f"{name.replace('/', '.')}.safetensors"


def _folder() -> Path:
    own = ROOT / "checkpoints"
    return Path(os.environ.get("ISCE_CHECKPOINTS") or (own if own.is_dir() else "checkpoints"))


def _fetched(name: str, path: Path, manifest: dict[str, Any]) -> bytes:
    """Content of a network's file from the release of this version, checked.

    Raises:
        CheckpointError: no address, no answer, or another content; says where to put the file, or how to make it.
    """
    expected, experiment = manifest["networks"][name], name.partition("/")[0]
    missing = f"{path.absolute()} is missing"
    instead = (
        f"put it there, or let ISCE_CHECKPOINTS name a folder that has {name}.safetensors; to make it, run `make "
        f"reproduce EXPERIMENT={experiment} UNTIL=train` and `python -m isce export {experiment}` in the repository"
    )
    if not manifest["repository"]:
        raise CheckpointError(f"{missing}, and the project has no address to fetch it from: {instead}")
    address = f"{manifest['repository']}/releases/download/v{__version__}/{asset(name)}"
    try:
        with urlopen(address, timeout=TIMEOUT) as answer:  # noqa: S310 - https alone, as tests/test_shipped.py sees to
            content: bytes = answer.read(expected["bytes"] + 1)
    except (OSError, HTTPException) as error:
        raise CheckpointError(f"{missing}, and {address} can't be read ({error}): {instead}") from None
    if (found := sha256(content)) != expected["sha256"]:
        raise CheckpointError(
            f"{missing}, and {address} is damaged (SHA-256 {found}, expected {expected['sha256']}): {instead}"
        )
    return content
