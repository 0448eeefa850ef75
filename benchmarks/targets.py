"""The networks that the attack benchmarks attack: MNIST's small CNN, trained once and kept in build/bench.

Standard ones take about 25 s each on one core, the adversarially trained one about 10 minutes (it goes on from epoch
to epoch only within one call).
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from isce import data
from isce.data.batches import DeviceSet
from isce.files import ROOT
from isce.losses import Objective
from isce.models.assembly import assemble
from isce.parameters.training import ObjectiveSpec, OptimizerSpec, TrainParameters
from isce.training.checkpoint import load_checkpoint, placed
from isce.training.loop import train

FOLDER = ROOT / "build" / "bench"
STANDARD = {
    "sce": ObjectiveSpec(name="sce"),
    "isce-m2": ObjectiveSpec(name="isce", params={"inference": 2.0}),
    "isce-released": ObjectiveSpec(name="isce-released"),
    "mmc": ObjectiveSpec(name="mmc"),
}
ADVERSARIAL = "sce, adversarially trained"
EPS, EPOCHS, BATCH, LR, STEPS = 0.3, 8, 128, 2e-3, 10


def target(name: str) -> tuple[nn.Module, Objective]:
    """A trained classifier, frozen, and its objective."""
    if name == ADVERSARIAL:
        classifier, objective = _adversarial()
    else:
        folder = FOLDER / name
        if not (folder / "last.safetensors").exists():
            optimizer = OptimizerSpec(name="adam", lr=1e-3) if name == "mmc" else OptimizerSpec(lr=0.02)
            train(
                TrainParameters(
                    dataset="mnist", objective=STANDARD[name], epochs=3, batch_size=BATCH, optimizer=optimizer
                ),
                folder,
            )
        loaded = load_checkpoint(folder / "last.safetensors")
        classifier, objective = placed(loaded.classifier, "cpu"), loaded.objective
    return classifier.eval().requires_grad_(False), objective


def images(classifier: nn.Module, number: int, first: int = 0) -> tuple[Tensor, Tensor]:
    """``number`` MNIST test images that the classifier gets right, from position ``first`` on, and their labels."""
    test = data.load("mnist").test
    x = test.unit()[first : first + number + number // 4 + 16].contiguous(memory_format=torch.channels_last)
    y = test.labels[first : first + len(x)]
    with torch.no_grad():
        right = classifier(x).argmax(1) == y
    return x[right][:number], y[right][:number]


def _adversarial() -> tuple[nn.Module, Objective]:
    """PGD adversarial training (Madry et al. 2018) with Adam; eps grows over the first third, or it learns nothing."""
    mnist, path = data.load("mnist"), FOLDER / "sce-adversarial.safetensors"
    shape = {name: getattr(mnist, name) for name in ("input_shape", "mean", "std", "num_classes")}
    classifier, objective = assemble(TrainParameters(dataset="mnist"), shape)
    classifier = placed(classifier, "cpu")
    if not path.exists():
        _train_adversarially(classifier, DeviceSet(mnist.train, torch.device("cpu")))
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file({name: value.contiguous() for name, value in classifier.state_dict().items()}, path)
    classifier.load_state_dict(load_file(path))
    return classifier, objective


def _train_adversarially(classifier: nn.Module, split: DeviceSet) -> None:
    optimizer = torch.optim.Adam(classifier.parameters(), LR)
    generator = torch.Generator().manual_seed(0)
    total, step = EPOCHS * math.ceil(len(split) / BATCH), 0
    classifier.train()
    for epoch in range(EPOCHS):
        for index in torch.randperm(len(split), generator=generator).split(BATCH):
            done = step / total
            optimizer.param_groups[0]["lr"] = LR * (1 + math.cos(math.pi * max(0.0, done - 0.3) / 0.7)) / 2
            x, y = split.batch(index)
            points = _perturbed(classifier, x, y, EPS * min(1.0, done / 0.35), generator)
            optimizer.zero_grad()
            F.cross_entropy(classifier(points), y).backward()
            optimizer.step()
            step += 1
        print(f"adversarial training: epoch {epoch + 1} of {EPOCHS}", flush=True)


def _perturbed(classifier: nn.Module, x: Tensor, y: Tensor, eps: float, generator: torch.Generator) -> Tensor:
    point = (x + eps * (2 * torch.rand(x.shape, generator=generator) - 1)).clamp(0, 1)
    classifier.requires_grad_(False)
    for _ in range(STEPS if eps else 0):
        point.requires_grad_()
        (gradient,) = torch.autograd.grad(F.cross_entropy(classifier(point), y), point)
        point = (point.detach() + eps / 4 * gradient.sign()).clamp(x - eps, x + eps).clamp_(0, 1)
    classifier.requires_grad_(True)
    return point.detach()
