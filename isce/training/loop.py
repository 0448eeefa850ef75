"""Training runs: one network, one objective, one data set, from a seed to two checkpoints.

The whole set lies on the device as bytes; a batch is an index. Every draw comes from a generator keyed by seed, purpose
and epoch, so that a run that was killed goes on from its state file to the same bits (on the CPU).
"""

from __future__ import annotations

import hashlib
import logging
import math
import time
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm.auto import tqdm

from isce import data as data_sets
from isce.data.batches import DeviceSet, draw_moves, mean_image
from isce.data.sets import Data
from isce.models.assembly import assemble
from isce.parameters.semantics import numbers, versions
from isce.parameters.training import OptimizerSpec, ScheduleSpec, TrainParameters
from isce.training.adversarial import pgd
from isce.training.checkpoint import (
    CheckpointError,
    LoadedCheckpoint,
    below,
    load_checkpoint,
    placed,
    prefixed,
    read_tensors,
    write_tensors,
)

__all__ = ["LoadedCheckpoint", "TrainResult", "load_checkpoint", "train"]

VALIDATION_BATCH = 256
_log = logging.getLogger(__name__)

Row = dict[str, float]


@dataclass(frozen=True)
class TrainResult:
    """What came out of a training run, beside the checkpoints.

    Attributes:
        history: one row for each finished epoch: ``epoch`` (from 1), ``train_loss`` and ``train_accuracy`` (while
            training, before each step), ``validation_loss``, ``validation_accuracy``, ``lr`` (of the last step).
        best_epoch: epoch of the highest validation accuracy, the earliest of several; None if none finished.
        seconds: wall time, of this process alone; in no file.
        diverged: why training stopped early, or None.
        collapsed: what shows that the network at the end decides hardly better than by chance, or None.
        resumed: epochs taken over from an interrupted run.
    """

    history: list[Row]
    best_epoch: int | None
    seconds: float
    diverged: str | None
    collapsed: str | None
    resumed: int


def train(
    parameters: TrainParameters,
    folder: Path,
    *,
    data: Data | None = None,
    device: torch.device | str = "cpu",
    progress: bool = True,
    on_epoch: Callable[[Row], None] | None = None,
) -> TrainResult:
    """Train, and write ``best.safetensors`` (on validation) and ``last.safetensors`` into ``folder``.

    After each epoch ``state.safetensors`` is written there; a run that was killed, started again with the same
    parameters, data, semantics numbers, package versions and kind of device, goes on from it. It goes away at the end.
    A loss that isn't finite ends the run: its last checkpoint then holds the weights after the last finite epoch (the
    initial ones where there is none), as does its best where no epoch finished.

    Args:
        parameters: everything that decides the outcome.
        folder: made if missing.
        data: the data set, if it is at hand; None: load it.
        device: where to train.
        progress: show a bar over the epochs.
        on_epoch: called with the row of each epoch once its state is on disk.

    Raises:
        ValueError: ``data`` is another set than ``parameters`` names, ``train_images`` exceeds it, or the network can't
            take its images.
        FileNotFoundError, OSError: see :func:`isce.data.load`; ``folder`` can't be written.
    """
    started = time.monotonic()
    data = data or data_sets.load(parameters.dataset)
    if data.name != parameters.dataset:
        raise ValueError(f"data set {data.name!r} given, but the parameters name {parameters.dataset!r}")
    with _threads(parameters.threads):
        run = _Run(parameters, data, torch.device(device), folder)
        resumed = run.resume()
        diverged = None
        with tqdm(total=parameters.epochs, initial=resumed, disable=not progress, unit="epoch") as bar:
            while len(run.history) < parameters.epochs and diverged is None:
                diverged = run.epoch()
                if diverged is None:
                    run.save_state()
                    row = run.history[-1]
                    bar.set_postfix(loss=f"{row['train_loss']:.3f}", validation=f"{row['validation_accuracy']:.1%}")
                    bar.update()
                    if on_epoch:
                        on_epoch(row)
        run.finish()
    return TrainResult(run.history, run.best_epoch, time.monotonic() - started, diverged, run.collapsed(), resumed)


@contextmanager
def _threads(number: int) -> Generator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _generator(seed: int, purpose: str, epoch: int) -> torch.Generator:
    """A CPU generator of its own for each purpose and epoch of a run."""
    digest = hashlib.sha256(f"{seed}/{purpose}/{epoch}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "little", signed=True))


def learning_rate(optimizer: OptimizerSpec, schedule: ScheduleSpec, step: int, steps: int) -> float:
    """Learning rate of step ``step`` (from 0) out of ``steps``.

    Cosine: lr (1 + cos(pi step / steps)) / 2 (Loshchilov and Hutter 2017, without restarts). Step: lr times gamma for
    each milestone m with step >= m * steps.
    """
    if schedule.name == "cosine":
        return optimizer.lr * (1 + math.cos(math.pi * step / steps)) / 2
    return optimizer.lr * schedule.gamma ** sum(step >= m * steps for m in schedule.milestones)


class _Run:
    """One training run: its networks, optimizer and history, and their files."""

    def __init__(self, parameters: TrainParameters, data: Data, device: torch.device, folder: Path) -> None:
        self.parameters, self.data, self.device, self.folder = parameters, data, device, folder
        images = parameters.train_images
        self.train_set = DeviceSet(data.train if images is None else data.train.subset(images), device)
        self.validation_set = DeviceSet(data.validation, device)
        shape = {name: getattr(data, name) for name in ("input_shape", "mean", "std", "num_classes")}
        classifier, objective = assemble(parameters, shape)
        if classifier.backbone.mean_image is not None:
            classifier.backbone.mean_image.copy_(mean_image(data.train))
        self.classifier = placed(classifier, device)
        self.objective = objective.to(device)
        # A score map may hold weights of its objective: each only once.
        self.learnt = list(dict.fromkeys([*self.classifier.parameters(), *self.objective.parameters()]))
        self.optimizer = self._optimizer()
        self.history: list[Row] = []
        self.best_epoch: int | None = None
        self.best = self.weights()
        # Free adversarial training carries it on from batch to batch; empty otherwise.
        free = parameters.adversarial is not None and parameters.adversarial.kind == "free"
        self.perturbation = torch.zeros(parameters.batch_size if free else 0, *data.input_shape, device=device)
        self.identity = self._identity()
        self.steps = parameters.epochs * math.ceil(len(self.train_set) / parameters.batch_size)

    def _optimizer(self) -> torch.optim.Optimizer:
        spec = self.parameters.optimizer
        if spec.name == "adam":
            return torch.optim.Adam(self.learnt, lr=spec.lr, weight_decay=spec.weight_decay)
        return torch.optim.SGD(
            self.learnt, lr=spec.lr, momentum=spec.momentum, nesterov=spec.nesterov, weight_decay=spec.weight_decay
        )

    def weights(self) -> dict[str, Tensor]:
        """Copies of all weights and buffers of classifier and objective."""
        own = prefixed("classifier", self.classifier.state_dict()) | prefixed("objective", self.objective.state_dict())
        return {name: tensor.detach().clone() for name, tensor in own.items()}

    def load(self, weights: Mapping[str, Tensor]) -> None:
        """Put back what :meth:`weights` gave."""
        self.classifier.load_state_dict(below("classifier", weights))
        self.objective.load_state_dict(below("objective", weights))

    def epoch(self) -> str | None:
        """Train and validate one epoch; if a loss isn't finite, leave the weights as they were and say so."""
        before = self.weights()
        number = len(self.history) + 1
        row: Row = {"epoch": number, **self._train(number), **self._validate()}
        for name in ("train_loss", "validation_loss"):
            if not math.isfinite(row[name]):
                self.load(before)
                return f"{name} is {row[name]} in epoch {number} of {self.parameters.epochs}"
        self.history.append(row)
        best = self.history[self.best_epoch - 1]["validation_accuracy"] if self.best_epoch else -1.0
        if row["validation_accuracy"] > best:
            self.best_epoch, self.best = number, self.weights()
        return None

    def collapsed(self) -> str | None:
        """What shows that the weights at the end decide no better than by chance, or None.

        The share of clean validation images, below twice that of a guess: it is of the weights as they are left, and
        low in no run that learnt something, while the accuracy during adversarial training may well be.
        """
        twice_chance = 2 / self.data.num_classes
        reached = self.history[-1]["validation_accuracy"] if self.history else 1.0
        if reached >= twice_chance:
            return None
        return f"validation accuracy {reached:.1%} at the end is below twice chance ({twice_chance:.1%})"

    def _train(self, number: int) -> Row:
        parameters, split = self.parameters, self.train_set
        self.classifier.train()
        self.objective.train()
        order = torch.randperm(len(split), generator=_generator(parameters.seed, "order", number)).to(self.device)
        moves = None
        if parameters.augment == "shift-flip":
            moves = draw_moves(split, _generator(parameters.seed, "moves", number))
        starts = _generator(parameters.seed, "starts", number)
        totals = torch.zeros(3, dtype=torch.float64, device=self.device)
        batches = order.split(parameters.batch_size)
        lr = 0.0
        for place, index in enumerate(batches):
            lr = learning_rate(
                parameters.optimizer, parameters.schedule, (number - 1) * len(batches) + place, self.steps
            )
            for group in self.optimizer.param_groups:
                group["lr"] = lr
            totals += self._learn(*split.batch(index, moves), starts)
        loss, correct, seen = totals.tolist()
        return {"lr": lr, "train_loss": loss / seen, "train_accuracy": correct / seen}

    def _learn(self, x: Tensor, y: Tensor, starts: torch.Generator) -> Tensor:
        """Learn from one batch, in the way of the run; see :meth:`_step`."""
        spec = self.parameters.adversarial
        if spec is None:
            return self._step(x, y)
        if spec.kind == "pgd":
            noise = torch.rand(x.shape, generator=starts).to(self.device)
            return self._step(pgd(self._scores, self.objective, x, y, noise, spec.eps, spec.steps, spec.step_size), y)
        totals = torch.zeros(3, dtype=torch.float64, device=self.device)
        shift = self.perturbation[: len(x)]
        for _ in range(spec.steps):
            # The gradient is taken behind the box: one before it would be 0 wherever a black pixel was made blacker.
            point = (x + shift).clamp(0, 1).requires_grad_()
            totals += self._step(point, y)
            assert point.grad is not None
            shift.add_(point.grad, alpha=spec.step_size).clamp_(-spec.eps, spec.eps)
        return totals

    def _step(self, x: Tensor, y: Tensor) -> Tensor:
        """One update; sum of losses, correct answers and number of images (3,) before it.

        Where the images require a gradient they are given the sign of the matched function's, from the same pass.
        """
        self.optimizer.zero_grad()
        scores, embedding = self._scores(x)
        loss = self.objective(scores, y, embedding)
        if x.requires_grad:
            matched = self.objective.matched(scores, y, embedding).sum()
            x.grad = torch.autograd.grad(matched, x, retain_graph=True)[0].sign()
        loss.backward(inputs=self.learnt)
        self.optimizer.step()
        with torch.no_grad():
            correct = (scores.argmax(1) == y).sum()
            return torch.stack([loss.double() * len(y), correct, torch.full_like(correct, len(y))])

    @torch.no_grad()
    def _validate(self) -> Row:
        split = self.validation_set
        self.classifier.eval()
        self.objective.eval()
        totals = torch.zeros(2, dtype=torch.float64, device=self.device)
        for index in torch.arange(len(split), device=self.device).split(VALIDATION_BATCH):
            x, y = split.batch(index)
            scores, embedding = self._scores(x)
            losses = self.objective.per_example(scores, y, embedding)
            totals += torch.stack([losses.double().sum(), (scores.argmax(1) == y).sum()])
        loss, correct = (totals / len(split)).tolist()
        return {"validation_loss": loss, "validation_accuracy": correct}

    def _scores(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Scores and embedding in float32, computed in the precision of the run."""
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.parameters.precision == "bfloat16"):
            scores, embedding = self.classifier(x, return_embedding=True)
        return scores.float(), embedding.float()

    # --- files

    @property
    def _state_path(self) -> Path:
        return self.folder / "state.safetensors"

    def _identity(self) -> dict[str, Any]:
        """Everything that must be equal for a run to go on from a state file."""
        return {
            "parameters": self.parameters.model_dump(mode="json"),
            "data": self.data.sha256,
            "semantics": numbers(["train", *self.parameters.parts()]),
            "packages": versions(self.parameters.packages()),
            "device": self.device.type,
        }

    def save_state(self) -> None:
        """Write everything that the next epoch depends on."""
        slots = self.optimizer.state_dict()["state"]
        moments = {f"{i}.{k}": v for i, slot in slots.items() for k, v in slot.items() if isinstance(v, Tensor)}
        tensors = self.weights() | prefixed("best", self.best) | prefixed("optimizer", moments)
        tensors["perturbation"] = self.perturbation
        metadata = {"kind": "state", "history": self.history, "best_epoch": self.best_epoch, **self.identity}
        write_tensors(self._state_path, tensors, metadata)

    def resume(self) -> int:
        """Go on from the state file if there is one that fits; the number of epochs that were done."""
        if not self._state_path.exists():
            return 0
        try:
            tensors, metadata = read_tensors(self._state_path)
        except CheckpointError as error:
            _log.warning("starting from the beginning: %s", error)
            return 0
        other = [name for name, value in self.identity.items() if metadata.get(name) != value]
        if other:
            _log.warning("starting from the beginning: %s has other %s", self._state_path, ", ".join(other))
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
            "objective": parameters.objective.label,
            "model": parameters.model,
            "data_sha256": data.sha256,
            **{n: getattr(data, n) for n in ("input_shape", "mean", "std", "num_classes", "class_names")},
        }
        for name, epoch, weights in (
            ("best", self.best_epoch or 0, self.best),
            ("last", len(self.history), self.weights()),
        ):
            write_tensors(self.folder / f"{name}.safetensors", weights, {**metadata, "epoch": epoch})
        self._state_path.unlink(missing_ok=True)
