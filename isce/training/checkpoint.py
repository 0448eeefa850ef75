"""Checkpoints: safetensors with one JSON text as metadata and a SHA-256 over both. No pickle is written or read."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from isce.files import canonical, write_atomic
from isce.losses import Objective
from isce.models import Classifier
from isce.models.assembly import assemble
from isce.models.lipschitz import plain
from isce.parameters.training import TrainParameters
from isce.strict import validate

SCHEMA_VERSION: Final = 1
_HEADER = "isce"  # one entry for all: safetensors writes several in an order that changes from run to run


class CheckpointError(ValueError):
    """A checkpoint that can't be read: missing, damaged, or of another schema version."""


@dataclass(frozen=True)
class LoadedCheckpoint:
    """A trained classifier with the objective it was trained with.

    Attributes:
        classifier: in evaluation mode.
        objective: in evaluation mode, with its own trained weights if it has any.
        parameters: of the training run.
        metadata: everything else that was saved: ``epoch``, ``input_shape``, ``num_classes``, ``class_names``,
            ``mean``, ``std``, ``data_sha256``, ``sha256``, ...
    """

    classifier: Classifier
    objective: Objective
    parameters: TrainParameters
    metadata: dict[str, Any]


def placed(classifier: Classifier, device: torch.device | str) -> Classifier:
    """The classifier on a device, in the memory layout that is fastest there (twice as fast on the CPU)."""
    # torch's annotations leave this form of `to` out.
    return classifier.to(device).to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]


def prefixed(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """``tensors`` with ``prefix.`` before each name."""
    return {f"{prefix}.{name}": tensor for name, tensor in tensors.items()}


def below(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors whose name starts with ``prefix.``, without it."""
    start = f"{prefix}."
    return {name.removeprefix(start): tensor for name, tensor in tensors.items() if name.startswith(start)}


def write_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, Any]) -> None:
    """Write tensors and metadata atomically; the same content gives the same bytes.

    Raises:
        OSError: the folder can't be written or the disk is full; a former file stays as it was.
    """
    # Copies: safetensors refuses tensors that share memory, and other layouts than the contiguous one.
    copies = {n: t.detach().to("cpu", copy=True, memory_format=torch.contiguous_format) for n, t in tensors.items()}
    text = {**metadata, "schema_version": SCHEMA_VERSION}
    text["sha256"] = _digest(copies, text)
    write_atomic(path, save(copies, {_HEADER: canonical(text)}))


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read what :func:`write_tensors` wrote: tensors on the CPU, metadata.

    Raises:
        CheckpointError: missing, damaged, or of another schema version.
    """
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise CheckpointError(f"can't read checkpoint {path}: {error.strerror}") from None
    try:
        tensors = load(raw)
        header = json.loads(raw[8 : 8 + int.from_bytes(raw[:8], "little")])
        metadata = json.loads(header["__metadata__"][_HEADER])
        version = metadata["schema_version"]
    except (SafetensorError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"checkpoint {path} is damaged, or no checkpoint of this package ({error!r})") from None
    if version != SCHEMA_VERSION:
        raise CheckpointError(f"checkpoint {path} has schema version {version!r}; this package reads {SCHEMA_VERSION}")
    expected = metadata.get("sha256")
    found = _digest(tensors, {name: value for name, value in metadata.items() if name != "sha256"})
    if found != expected:
        raise CheckpointError(f"checkpoint {path} is damaged: its content has SHA-256 {found}, expected {expected}")
    return tensors, metadata


def _digest(tensors: Mapping[str, Tensor], metadata: Mapping[str, Any]) -> str:
    digest = hashlib.sha256(canonical(metadata).encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)};".encode())
        digest.update(tensor.flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def load_checkpoint(path: Path | str, device: torch.device | str = "cpu") -> LoadedCheckpoint:
    """Rebuild the classifier and the objective of a training run.

    Args:
        path: ``best.safetensors`` or ``last.safetensors`` of the run.
        device: where the weights go.

    Raises:
        CheckpointError: missing, damaged, of another schema version, or of a network that is built otherwise now.
        isce.strict.ConfigError: its training parameters are no longer allowed.
    """
    path = Path(path)
    tensors, metadata = read_tensors(path)
    if metadata.get("kind") != "checkpoint":
        raise CheckpointError(f"{path} is no checkpoint but of kind {metadata.get('kind')!r}")
    parameters = validate(TrainParameters, metadata["parameters"], f"checkpoint {path}")
    classifier, objective = assemble(parameters, metadata)
    try:
        classifier.load_state_dict(below("classifier", tensors))
        objective.load_state_dict(below("objective", tensors))
    except RuntimeError as error:
        reason = " ".join(str(error).split())
        raise CheckpointError(f"checkpoint {path} doesn't fit the network as it is built now: {reason}") from None
    plain(classifier)
    classifier = placed(classifier, device)
    return LoadedCheckpoint(classifier.eval(), objective.to(device).eval(), parameters, metadata)
