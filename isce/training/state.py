"""A training run between two epochs: its networks, optimizer and history, and the files that keep them."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from isce.data.batches import mean_image
from isce.data.sets import Data
from isce.defences import Defence
from isce.minmax.chain import chain
from isce.models.assembly import assemble
from isce.parameters.semantics import numbers, versions
from isce.parameters.training import TrainParameters
from isce.training.checkpoint import CheckpointError, below, placed, prefixed, read_tensors, write_tensors
from isce.training.precision import resolve, slow

_log = logging.getLogger(__name__)

Row = dict[str, float]


def identity(parameters: TrainParameters, data: Data, device: torch.device) -> dict[str, Any]:
    """What must be equal for a run to take over what a killed one left."""
    return {
        "parameters": parameters.model_dump(mode="json"),
        "data": data.sha256,
        "semantics": numbers(["train", *parameters.parts()]),
        "packages": versions(parameters.packages()),
        "device": device.type,
        "precision": resolve(parameters.precision, device),
    }


class State:
    """Everything that the next epoch depends on; fresh, until :meth:`resume` finds a file to go on from.

    Attributes:
        classifier: the network.
        objective: its training loss.
        defence: what it changes about the training; None: nothing.
        learnt: the weights that the optimizer moves.
        optimizer: its learning rate is set anew for each batch.
        history: one row for each finished epoch, see :class:`isce.training.TrainResult`.
        best: weights after the epoch ``best_epoch``; empty while that is None.
        precision: float32 or bfloat16; of the weights it is float32 always.
        perturbation: what free adversarial training carries on from batch to batch; empty otherwise.
    """

    def __init__(self, parameters: TrainParameters, data: Data, device: torch.device, folder: Path) -> None:
        self.parameters, self.data, self.device, self.folder = parameters, data, device, folder
        self.path = folder / "state.safetensors"
        self.precision = resolve(parameters.precision, device)
        if slow(parameters.precision, device):
            _log.warning("bfloat16 is slow here, without instructions for it; precision: auto avoids that")
        shape = {name: getattr(data, name) for name in ("input_shape", "mean", "std", "num_classes")}
        classifier, objective = assemble(parameters, shape)
        if classifier.backbone.mean_image is not None:
            classifier.backbone.mean_image.copy_(mean_image(data.train))
        if objective.needs_bounds:
            chain(classifier)  # refuses a network without bounds, before any work
        self.classifier = placed(classifier, device)
        self.objective = objective.to(device)
        self.defence = parameters.defence.build().to(device) if parameters.defence else None
        self.learnt = (self.defence or Defence()).learnt(self.classifier, self.objective)
        spec = parameters.optimizer
        options: dict[str, Any] = {"lr": spec.lr, "weight_decay": spec.weight_decay}
        if spec.name == "adam":
            self.optimizer: torch.optim.Optimizer = torch.optim.Adam(self.learnt, **options)
        else:
            options |= {"momentum": spec.momentum, "nesterov": spec.nesterov}
            self.optimizer = torch.optim.SGD(self.learnt, **options)
        self.history: list[Row] = []
        self.best_epoch: int | None = None
        self.best: dict[str, Tensor] = {}
        free = parameters.adversarial is not None and parameters.adversarial.kind == "free"
        self.perturbation = torch.zeros(parameters.batch_size if free else 0, *data.input_shape, device=device)
        self.identity = identity(parameters, data, device)

    def weights(self) -> dict[str, Tensor]:
        """Copy all weights and buffers of classifier and objective."""
        own = prefixed("classifier", self.classifier.state_dict()) | prefixed("objective", self.objective.state_dict())
        return {name: tensor.detach().clone() for name, tensor in own.items()}

    def load(self, weights: Mapping[str, Tensor]) -> None:
        """Put back what :meth:`weights` gave."""
        self.classifier.load_state_dict(below("classifier", weights))
        self.objective.load_state_dict(below("objective", weights))

    def add(self, row: Row) -> None:
        """Add a finished epoch; the first of equally good epochs stays the best.

        Good is the share of validation images that are proved, where the objective is about that, else that are right,
        or what the defence says.
        """
        measure = "validation_certified" if self.objective.needs_bounds else (self.defence or Defence).measure
        best = self.history[self.best_epoch - 1][measure] if self.best_epoch else -1.0
        self.history.append(row)
        if row[measure] > best:
            self.best_epoch, self.best = len(self.history), self.weights()

    def collapsed(self) -> str | None:
        """Say what shows that the network decides no better than by chance, or None.

        The validation accuracy after the last epoch is compared with twice the accuracy of a guess. Accuracy during
        adversarial training may be as low in a run that has learnt something; validation accuracy is not.
        """
        twice_chance = 2 / self.data.num_classes
        if not self.history or self.history[-1]["validation_accuracy"] >= twice_chance:
            return None
        reached = self.history[-1]["validation_accuracy"]
        return f"validation accuracy {reached:.1%} at the end is below twice chance ({twice_chance:.1%})"

    def save(self) -> None:
        """Write the state file."""
        slots = self.optimizer.state_dict()["state"]
        moments = {f"{i}.{k}": v for i, slot in slots.items() for k, v in slot.items() if isinstance(v, Tensor)}
        tensors = self.weights() | prefixed("best", self.best) | prefixed("optimizer", moments)
        tensors["perturbation"] = self.perturbation
        metadata = {"kind": "state", "history": self.history, "best_epoch": self.best_epoch, **self.identity}
        write_tensors(self.path, tensors, metadata)

    def resume(self) -> int:
        """Go on from the state file if there is one that fits; the number of epochs that were done."""
        if not self.path.exists():
            return 0
        try:
            tensors, metadata = read_tensors(self.path)
        except CheckpointError as error:
            _log.warning("starting from the beginning: %s", error)
            return 0
        other = [name for name, value in self.identity.items() if metadata.get(name) != value]
        if other:
            _log.warning("starting from the beginning: %s has other %s", self.path, ", ".join(other))
            return 0
        self.load(tensors)
        slots: dict[int, dict[str, Tensor]] = {}
        for name, tensor in below("optimizer", tensors).items():
            number, _, key = name.partition(".")
            slots.setdefault(int(number), {})[key] = tensor
        self.optimizer.load_state_dict({**self.optimizer.state_dict(), "state": slots})
        self.best = {name: tensor.to(self.device) for name, tensor in below("best", tensors).items()}
        self.perturbation.copy_(tensors["perturbation"])
        self.history, self.best_epoch = metadata["history"], metadata["best_epoch"]
        return len(self.history)

    def finish(self) -> None:
        """Write both checkpoints, then drop the state file."""
        data, parameters = self.data, self.parameters
        metadata = {
            "kind": "checkpoint",
            "parameters": parameters.model_dump(mode="json"),
            "objective": parameters.label,
            "model": parameters.model,
            "data_sha256": data.sha256,
            **{n: getattr(data, n) for n in ("input_shape", "mean", "std", "num_classes", "class_names")},
        }
        for name, epoch, weights in (
            ("best", self.best_epoch or 0, self.best or self.weights()),
            ("last", len(self.history), self.weights()),
        ):
            write_tensors(self.folder / f"{name}.safetensors", weights, {**metadata, "epoch": epoch})
        self.path.unlink(missing_ok=True)
