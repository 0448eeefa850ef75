"""Time of a training step here against the bare step of the same network, and against the usual DataLoader loop.

Bare: batches lie ready in memory; forward, backward, update and nothing else. What isce.training adds to it is the
choice and the scaling of the batch, the accounts of loss and accuracy, and the learning rate. The usual loop reads
images one by one through torch's DataLoader in this process; once in the same memory layout, once in torch's default.
Beside them: training in bfloat16; adversarial training, `free` with one replay and `pgd` with one step. Times as in
benchmarks/losses.py.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from losses import Contestant, measure, ratios
from shown import save
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from isce import data
from isce.data.batches import DeviceSet
from isce.models import Classifier
from isce.models.assembly import assemble
from isce.parameters import training as config
from isce.training.checkpoint import placed
from isce.training.loop import train_epoch
from isce.training.state import State

GOAL = 1.10
SETTINGS = ["digits:small-cnn", "mnist:small-cnn", "cifar10:preact-resnet-20", "cifar10:preact-resnet-32"]


def random_data(name: str, batch: int, steps: int) -> data.Data:
    """Random bytes in the shape of a data set, ``steps`` batches of them."""
    shape = data.SETS[name].shape
    generator = torch.Generator().manual_seed(0)
    peak = 16 if name == "digits" else 255
    images = torch.randint(peak + 1, (steps * batch, *shape), generator=generator, dtype=torch.uint8)
    split = data.Split(images, torch.randint(10, (len(images),), generator=generator), peak)
    level = (0.5,) * shape[0]
    return data.Data(name, split, split, split, 10, shape, level, level, "", tuple("0123456789"))


class OneByOne(Dataset[tuple[Tensor, Tensor]]):
    """Images in [0, 1], converted when they are asked for."""

    def __init__(self, split: data.Split) -> None:
        self.split = split

    def __len__(self) -> int:
        return len(self.split)

    def __getitem__(self, place: int) -> tuple[Tensor, Tensor]:
        return self.split.images[place].float() / self.split.peak, self.split.labels[place]


def contestants(parameters: config.TrainParameters, random: data.Data, device: str) -> dict[str, Contestant]:
    """One epoch of each way to train."""
    spec = parameters.optimizer
    shape = {name: getattr(random, name) for name in ("input_shape", "mean", "std", "num_classes")}

    def step(classifier: Classifier, optimizer: torch.optim.Optimizer, x: Tensor, y: Tensor) -> Tensor:
        optimizer.zero_grad()
        loss = F.cross_entropy(classifier(x), y)
        loss.backward()
        optimizer.step()
        return loss

    def fresh(layout: torch.memory_format) -> tuple[Classifier, torch.optim.Optimizer]:
        # torch's annotations leave this form of `to` out.
        classifier = placed(assemble(parameters, shape)[0], device).to(memory_format=layout)  # pyright: ignore[reportCallIssue]
        return classifier, torch.optim.SGD(classifier.parameters(), lr=spec.lr, momentum=spec.momentum)

    def bare() -> Contestant:
        classifier, optimizer = fresh(torch.channels_last)
        ready = random.train.unit(device=device).contiguous(memory_format=torch.channels_last)
        batches = list(
            zip(ready.split(parameters.batch_size), random.train.labels.split(parameters.batch_size), strict=True)
        )

        def run() -> None:
            for x, y in batches:
                step(classifier, optimizer, x, y.to(device))

        return run

    def usual(layout: torch.memory_format) -> Contestant:
        classifier, optimizer = fresh(layout)
        loader = DataLoader(OneByOne(random.train), batch_size=parameters.batch_size, shuffle=True)

        def run() -> None:
            for x, y in loader:
                step(classifier, optimizer, x.to(device, memory_format=layout), y.to(device)).item()

        return run

    def ours(**changes: Any) -> Contestant:
        changed = config.TrainParameters(**(parameters.model_dump() | changes))
        run = State(changed, random, torch.device(device), Path(tempfile.gettempdir()))  # writes nothing
        train_set = DeviceSet(random.train, torch.device(device))
        return lambda: train_epoch(run, train_set, 1)

    ball = {"eps": 0.1, "steps": 1, "step_size": 0.1}
    return {
        "bare step": bare(),
        "baseline again": bare(),
        "isce.training": ours(),
        "isce.training, bfloat16": ours(precision="bfloat16"),
        "isce.training, free, 1 replay": ours(adversarial={"kind": "free", **ball}),
        "isce.training, pgd, 1 step": ours(adversarial={"kind": "pgd", **ball}),
        "DataLoader": usual(torch.channels_last),
        "DataLoader, default layout": usual(torch.contiguous_format),
    }


def main(arguments: list[str] | None = None) -> int:
    """Print the table; write it as JSON where asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--on", nargs="+", default=SETTINGS, help=f"data set:network (default: {' '.join(SETTINGS)})")
    parser.add_argument("--batch", type=int, default=128, help="images in a batch (default: 128)")
    parser.add_argument("--steps", type=int, default=10, help="training steps that are timed as one (default: 10)")
    parser.add_argument("--device", default="cpu", help="device of torch (default: cpu)")
    parser.add_argument("--threads", type=int, default=1, help="threads on the CPU (default: 1)")
    parser.add_argument("--seconds", type=float, default=30.0, help="time for each setting (default: 30)")
    parser.add_argument("--out", type=Path, help="also write the table to this JSON file")
    options = parser.parse_args(arguments)
    if min(options.threads, options.seconds, options.batch, options.steps) <= 0:
        parser.error("--threads, --seconds, --batch and --steps must be positive")
    torch.set_num_threads(options.threads)
    where = {
        "device": torch.cuda.get_device_name() if options.device.startswith("cuda") else platform.machine(),
        "threads": options.threads,
        "batch": options.batch,
        "steps": options.steps,
        "torch": torch.__version__,
        "python": platform.python_version(),
    }
    print("ratio of medians of --steps training steps, with 95% bootstrap interval;", json.dumps(where))
    rows = []
    for setting in options.on:
        name, _, model = setting.partition(":")
        parameters = config.TrainParameters(
            dataset=name, model=model, batch_size=options.batch, augment="none", threads=options.threads
        )
        entered = contestants(parameters, random_data(name, options.batch, options.steps), options.device)
        times = measure(entered, options.device, options.seconds)
        baseline = next(iter(times))
        median = float(times[baseline].quantile(0.5)) / options.steps * 1e6
        print(f"\n{setting}: {baseline} {median:.0f} us, {len(times[baseline])} rounds")
        for row in ratios(times):
            rows.append({"setting": setting, "baseline": baseline, "baseline_us": median, **row})
            print(f"  {row['loss']:<29} {row['ratio']:6.3f}  [{row['low']:.3f}, {row['high']:.3f}]")
    print(f"\ngoal for isce.training, ratio at most: {GOAL}")
    if options.out:
        save(options.out, {"where": where, "goal": GOAL, "rows": rows}, "training")
    return 0


if __name__ == "__main__":
    sys.exit(main())
