"""Adversarial points beside a record: the file that keeps them, and how it is read back with nothing taken on trust."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from isce.files import RecordError, sha256, write_atomic

_THREAT = re.compile(r"(linf|l2|l0)@\d+(\.\d+)?(e[-+]\d+)?|spatial|released")


def save_points(path: Path, points: Mapping[str, tuple[Tensor, Tensor]]) -> None:
    """Write adversarial points atomically; the same points give the same bytes.

    Args:
        path: the file, normally ``POINTS`` in the run's folder.
        points: by threat (``linf@0.1``): places of the images among those attacked, int64 (n,), rising strictly, and
            the points, float32 (n, C, H, W). ``n`` may be 0.

    Raises:
        ValueError: no threat's name, or tensors of another type or shape.
        OSError: the folder can't be written or the disk is full; a former file stays as it was.
    """
    arrays: dict[str, Tensor] = {}
    for label, (index, adversarial) in points.items():
        _check(label, index, adversarial)
        arrays[f"{label}/index"] = index.cpu().contiguous()
        arrays[f"{label}/points"] = adversarial.cpu().contiguous()
    write_atomic(path, save(arrays))


def load_points(path: Path, digest: str | None = None) -> dict[str, tuple[Tensor, Tensor]]:
    """Read what :func:`save_points` wrote.

    Args:
        path: the file.
        digest: SHA-256 that its record gives; None: not compared.

    Returns:
        Index and points by threat, on the CPU, threats in the order of norm and eps.

    Raises:
        RecordError: missing, damaged, another file than the record's, or not of this format.
    """
    arrays = load_arrays(path, digest)
    labels = sorted({name.rpartition("/")[0] for name in arrays}, key=_order)
    if {f"{label}/{part}" for label in labels for part in ("index", "points")} != set(arrays):
        raise RecordError(f"{path} must hold <threat>/index and <threat>/points, it holds {', '.join(sorted(arrays))}")
    points = {label: (arrays[f"{label}/index"], arrays[f"{label}/points"]) for label in labels}
    for label, (index, adversarial) in points.items():
        try:
            _check(label, index, adversarial)
        except ValueError as error:
            raise RecordError(f"{path}: {error}") from None
    return points


def load_arrays(path: Path, digest: str | None = None) -> dict[str, Tensor]:
    """The tensors of a side file, by name, on the CPU.

    Raises:
        RecordError: missing, damaged, or another file than the one with this SHA-256.
    """
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise RecordError(f"can't read {path}: {error.strerror}") from None
    if digest is not None and sha256(raw) != digest:
        raise RecordError(f"{path} is damaged: its SHA-256 is {sha256(raw)}, the record says {digest}")
    try:
        return load(raw)
    except SafetensorError as error:
        raise RecordError(f"{path} is damaged, or no safetensors file ({error})") from None


def _check(label: str, index: Tensor, adversarial: Tensor) -> None:
    if not _THREAT.fullmatch(label):
        raise ValueError(f"a threat is named like linf@0.1, l2@1.5 or spatial, got {label!r}")
    if index.dtype != torch.int64 or index.ndim != 1 or bool((index.diff() <= 0).any()) or bool((index < 0).any()):
        what = f"{index.dtype} {tuple(index.shape)}"
        raise ValueError(f"index of {label} must be int64 (n,), at least 0 and rising strictly, got {what}")
    if adversarial.dtype != torch.float32 or adversarial.ndim != 4 or len(adversarial) != len(index):
        got = f"{adversarial.dtype} {tuple(adversarial.shape)}"
        raise ValueError(f"points of {label} must be float32 ({len(index)}, C, H, W), got {got}")


def _order(label: str) -> tuple[str, float, str]:
    norm, _, eps = label.partition("@")
    return norm, float(eps) if eps and _THREAT.fullmatch(label) else 0.0, label
