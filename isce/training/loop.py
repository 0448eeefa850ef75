"""Training: one network, one objective, one data set, from a seed to two checkpoints.

The whole set lies on the device as bytes; a batch is an index. Every draw comes from a generator keyed by seed, purpose
and epoch, so that a run that was killed goes on from its state file to the same bits (on the CPU).
"""

from __future__ import annotations

import hashlib
import logging
import math
import shutil
import time
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from tqdm.auto import tqdm

from isce import data as data_sets
from isce.data.batches import DeviceSet, draw_moves
from isce.data.sets import Data
from isce.defences import Batch
from isce.defences.adversarial import pgd
from isce.files import canonical, write_atomic
from isce.losses import CertifiedInferenceSoftmaxCrossEntropy
from isce.minmax.chain import chain
from isce.minmax.interval import interval_bounds, proves
from isce.models import Guarded
from isce.parameters.training import DefenceSpec, OptimizerSpec, ScheduleSpec, TrainParameters
from isce.training.checkpoint import CheckpointError, LoadedCheckpoint, load_checkpoint
from isce.training.state import Row, State, identity

_log = logging.getLogger(__name__)

VALIDATION_BATCH = 256
FIRST = "first"  # folder of the network that a defence begins with, in that of its run
VALIDATED = ("validation_accuracy", "validation_certified", "validation_detected")


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
        precision: in which it computed, float32 or bfloat16.
    """

    history: list[Row]
    best_epoch: int | None
    seconds: float
    diverged: str | None
    collapsed: str | None
    resumed: int
    precision: str = "float32"


def train(
    parameters: TrainParameters,
    folder: Path,
    *,
    data: Data | None = None,
    device: torch.device | str = "cpu",
    progress: bool = True,
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

    Raises:
        ValueError: ``data`` is another set than ``parameters`` names, ``train_images`` exceeds it, or the network can't
            take its images.
        FileNotFoundError, OSError: see :func:`isce.data.load`; ``folder`` can't be written.
    """
    started = time.monotonic()
    data = data or data_sets.load(parameters.dataset)
    if data.name != parameters.dataset:
        raise ValueError(f"data set {data.name!r} given, but the parameters name {parameters.dataset!r}")
    device, images, diverged = torch.device(device), parameters.train_images, None
    with _threads(parameters.threads):
        train_set = DeviceSet(data.train if images is None else data.train.subset(images), device)
        validation_set = DeviceSet(data.validation, device)
        state = State(parameters, data, device, folder)
        if state.defence and (first := state.defence.before()) is not None:
            before = parameters.model_copy(update={"defence": DefenceSpec.model_validate(first) if first else None})
            loaded = _first(before, folder / FIRST, data, device, progress)
            state.defence.begin(state.classifier, loaded.classifier)
            if not first:  # of the same run
                state.objective.load_state_dict(loaded.objective.state_dict())
        resumed = state.resume()
        left = range(resumed + 1, parameters.epochs + 1)
        bar = tqdm(left, total=parameters.epochs, initial=resumed, disable=not progress, unit="epoch")
        for epoch in bar:
            before = state.weights()
            row: Row = {"epoch": epoch, **train_epoch(state, train_set, epoch), **validate(state, validation_set)}
            row |= _after_epoch(state, validation_set, epoch)
            lost = [name for name, value in row.items() if not math.isfinite(value)]
            if lost:
                state.load(before)
                diverged = f"{lost[0]} is {row[lost[0]]} in epoch {epoch} of {parameters.epochs}"
                break
            state.add(row)
            state.save()
            shown = {name.removeprefix("validation_"): f"{row[name]:.1%}" for name in VALIDATED if name in row}
            bar.set_postfix({"loss": f"{row['train_loss']:.3f}", **shown})
        state.finish()
        shutil.rmtree(folder / FIRST, ignore_errors=True)
    seconds = time.monotonic() - started
    return TrainResult(state.history, state.best_epoch, seconds, diverged, state.collapsed(), resumed, state.precision)


def _first(
    parameters: TrainParameters, folder: Path, data: Data, device: torch.device, progress: bool
) -> LoadedCheckpoint:
    """Train the network that a defence begins with, unless a killed run of the same identity left it there.

    Raises:
        RuntimeError: its training diverged.
    """
    path, note = folder / "last.safetensors", folder / "identity.json"
    own = canonical(identity(parameters, data, device))
    if path.exists():
        try:
            if note.exists() and note.read_text() == own:
                return load_checkpoint(path, device)
            reason = f"{path} was trained otherwise"
        except (CheckpointError, OSError, UnicodeDecodeError) as error:
            reason = str(error)
        _log.warning("training the network that %s begins with anew: %s", folder.parent.name, reason)
        shutil.rmtree(folder)
    write_atomic(note, own)  # before the training: whatever is found there later was trained so
    result = train(parameters, folder, data=data, device=device, progress=progress)
    if result.diverged:
        shutil.rmtree(folder)
        raise RuntimeError(f"the network that {folder.parent.name} begins with: {result.diverged}")
    return load_checkpoint(path, device)


@contextmanager
def _threads(number: int) -> Generator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _generator(seed: int, purpose: str, epoch: int) -> torch.Generator:
    """Make a CPU generator for one purpose and epoch of a run."""
    digest = hashlib.sha256(f"{seed}/{purpose}/{epoch}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "little", signed=True))


def learning_rate(optimizer: OptimizerSpec, schedule: ScheduleSpec, step: int, steps: int) -> float:
    """Return the learning rate of step ``step`` (from 0) out of ``steps``.

    Cosine: lr (1 + cos(pi step / steps)) / 2 (Loshchilov and Hutter 2017, without restarts). Step: lr times gamma for
    each milestone m with step >= m * steps.
    """
    if schedule.name == "cosine":
        return optimizer.lr * (1 + math.cos(math.pi * step / steps)) / 2
    # A constant rate has no milestones: gamma ** 0 is 1.
    return optimizer.lr * schedule.gamma ** sum(step >= m * steps for m in schedule.milestones)


def train_epoch(state: State, split: DeviceSet, epoch: int) -> Row:
    """Train for one epoch (from 1); return ``lr``, ``train_loss`` and ``train_accuracy``."""
    parameters, adversarial = state.parameters, state.parameters.adversarial
    state.classifier.train()
    state.objective.train()
    order = torch.randperm(len(split), generator=_generator(parameters.seed, "order", epoch)).to(state.device)
    moved = parameters.augment == "shift-flip"
    moves = draw_moves(split, _generator(parameters.seed, "moves", epoch)) if moved else None
    starts, draws = (_generator(parameters.seed, purpose, epoch) for purpose in ("starts", "defence"))
    sums, lr = torch.zeros(3, dtype=torch.float64, device=state.device), 0.0
    batches = order.split(parameters.batch_size)
    for place, index in enumerate(batches):
        step = (epoch - 1) * len(batches) + place
        lr = learning_rate(parameters.optimizer, parameters.schedule, step, parameters.epochs * len(batches))
        for group in state.optimizer.param_groups:
            group["lr"] = lr
        x, y = split.batch(index, moves)
        if state.defence:
            state.defence.draw(state.classifier, draws)
        progress = step / (parameters.epochs * len(batches))
        if adversarial is not None and adversarial.kind == "free":
            sums += _replay(state, x, y)
            continue
        if adversarial is not None:
            noise = torch.rand(x.shape, generator=starts).to(state.device)
            budget = adversarial.eps, adversarial.steps, adversarial.step_size
            start = x + adversarial.eps * (2 * noise - 1)
            x = pgd(lambda point: outputs(state, point), state.objective, x, y, start, *budget)
        sums += update(state, x, y, draws=draws, progress=progress)
    loss, correct, seen = sums.tolist()
    return {"lr": lr, "train_loss": loss / seen, "train_accuracy": correct / seen}


def _replay(state: State, x: Tensor, y: Tensor) -> Tensor:
    """Learn from one batch several times (free adversarial training), and move its perturbation along each time."""
    spec = state.parameters.adversarial
    assert spec is not None
    sums = torch.zeros(3, dtype=torch.float64, device=state.device)
    carried = state.perturbation[: len(x)]
    for _ in range(spec.steps):
        # Differentiate at the clipped point: before the clip the gradient is 0 where the clip is active.
        point = (x + carried).clamp(0, 1).requires_grad_()
        sums += update(state, point, y, draws=torch.Generator(), progress=0.0)
        assert point.grad is not None
        carried.add_(point.grad, alpha=spec.step_size).clamp_(-spec.eps, spec.eps)
    return sums


def update(state: State, x: Tensor, y: Tensor, *, draws: torch.Generator, progress: float) -> Tensor:
    """Take one step of the optimizer; return sum of losses, right answers and number of images (3,) before the step.

    Images that require a gradient are given the sign of the gradient of the matched function, from the same pass.

    Args:
        state: the run.
        x: images (N, C, H, W) in [0, 1].
        y: labels (N,).
        draws: what a defence draws from.
        progress: share of the run's steps that have been taken.
    """
    state.optimizer.zero_grad()
    loss, logits = _loss(state, x, y, draws, progress)
    loss.backward(inputs=state.learnt)
    state.optimizer.step()
    if state.defence:
        state.defence.after_step(state.classifier)
    with torch.no_grad():
        correct = (logits.argmax(1) == y).sum()
        return torch.stack([loss.double() * len(y), correct, torch.full_like(correct, len(y))])


def _loss(state: State, x: Tensor, y: Tensor, draws: torch.Generator, progress: float) -> tuple[Tensor, Tensor]:
    """Compute the loss of a batch, and its logits."""
    if state.defence:
        return state.defence.loss(_batch(state, x, y, draws))
    logits, embedding = outputs(state, x)
    if isinstance(state.objective, CertifiedInferenceSoftmaxCrossEntropy):
        return _certified(state, state.objective, logits, x, y, progress), logits
    if x.requires_grad:
        matched = state.objective.matched(logits, y, embedding).sum()
        x.grad = torch.autograd.grad(matched, x, retain_graph=True)[0].sign()
    return state.objective(logits, y, embedding), logits


def _batch(state: State, x: Tensor, y: Tensor, draws: torch.Generator) -> Batch:
    images, classes = (lambda point: outputs(state, point)), state.data.num_classes
    return Batch(x, y, state.classifier, images, state.objective, draws, classes)


@torch.no_grad()
def _after_epoch(state: State, split: DeviceSet, epoch: int) -> Row:
    """Let the defence choose on the validation split; the network is in evaluation mode."""
    if not state.defence:
        return {}
    draws = _generator(state.parameters.seed, "defence-validation", epoch)
    parts = torch.arange(len(split), device=state.device).split(VALIDATION_BATCH)
    return state.defence.after_epoch(_batch(state, *split.batch(index), draws) for index in parts)


def _certified(
    state: State,
    objective: CertifiedInferenceSoftmaxCrossEntropy,
    logits: Tensor,
    x: Tensor,
    y: Tensor,
    progress: float,
) -> Tensor:
    """Compute the loss from bounds over the ball around each image."""
    radius, plain = objective.schedule(progress)
    if plain == 1:
        return objective(logits, y)
    return objective.certified(logits, y, interval_bounds(chain(state.classifier), x, y, radius), plain)


@torch.no_grad()
def validate(state: State, split: DeviceSet) -> Row:
    """Return ``validation_loss`` and ``validation_accuracy`` of a split, in evaluation mode.

    With an objective that needs bounds also ``validation_certified``, the share that interval bounds prove at its eps.
    """
    state.classifier.eval()
    state.objective.eval()
    objective, proved = state.objective, 0
    sums = torch.zeros(2, dtype=torch.float64, device=state.device)
    for index in torch.arange(len(split), device=state.device).split(VALIDATION_BATCH):
        x, y = split.batch(index)
        logits, embedding = outputs(state, x)
        losses = objective.per_example(logits, y, embedding)
        if isinstance(objective, CertifiedInferenceSoftmaxCrossEntropy):
            proved += int(proves(interval_bounds(chain(state.classifier), x, y, objective.eps), y).sum())
        sums += torch.stack([losses.double().sum(), (logits.argmax(1) == y).sum()])
    loss, correct = (sums / len(split)).tolist()
    certified = {"validation_certified": proved / len(split)} if objective.needs_bounds else {}
    return {"validation_loss": loss, "validation_accuracy": correct, **certified}


def outputs(state: State, x: Tensor) -> tuple[Tensor, Tensor]:
    """Return logits of the classes and embedding in float32, computed in the precision of the run."""
    classifier = state.classifier.unguarded if isinstance(state.classifier, Guarded) else state.classifier
    with torch.autocast(state.device.type, torch.bfloat16, enabled=state.precision == "bfloat16"):
        logits, embedding = classifier(x, return_embedding=True)
    return logits.float(), embedding.float()
