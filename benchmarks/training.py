"""Time of a training step here against the bare step of the same network, and against the usual DataLoader loop.

Bare: batches lie ready in memory; forward, backward, update and nothing else. What isce.training adds to it is the
choice and the scaling of the batch, the accounts of loss and accuracy, and the learning rate. The usual loop reads
images one by one through torch's DataLoader in this process; once in the same memory layout, once in torch's default.
Times as in benchmarks/losses.py.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
import tempfile
from pathlib import Path

import torch
import torch.nn.functional as F
from losses import Contestant, measure, ratios
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from isce import config, data, training
from isce.checkpoint import assemble, placed
from isce.models import Classifier
from isce.records import write_atomic

SHAPES = {"digits": (1, 8, 8), "mnist": (1, 28, 28), "cifar10": (3, 32, 32)}
BATCHES = 10


def random_data(name: str, batch: int) -> data.Data:
    """Random bytes in the shape of a data set, ten batches of them."""
    shape = SHAPES[name]
    generator = torch.Generator().manual_seed(0)
    peak = 16 if name == "digits" else 255
    images = torch.randint(peak + 1, (BATCHES * batch, *shape), generator=generator, dtype=torch.uint8)
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
    """One epoch of ten steps of each way to train."""
    spec = parameters.optimizer
    shape = {name: getattr(random, name) for name in ("input_shape", "mean", "std", "num_classes")}

    def step(classifier: Classifier, optimizer: torch.optim.Optimizer, x: Tensor, y: Tensor) -> Tensor:
        optimizer.zero_grad()
        loss = F.cross_entropy(classifier(x), y)
        loss.backward()
        optimizer.step()
        return loss

    def fresh(layout: torch.memory_format) -> tuple[Classifier, torch.optim.Optimizer]:
        classifier = placed(assemble(parameters, shape)[0], device).to(memory_format=layout)
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

    ours = training._Run(parameters, random, torch.device(device), Path(tempfile.gettempdir()))  # writes nothing
    return {
        "bare step": bare(),
        "baseline again": bare(),
        "isce.training": lambda: ours._train(1),
        "DataLoader": usual(torch.channels_last),
        "DataLoader, default layout": usual(torch.contiguous_format),
    }


def main(arguments: list[str] | None = None) -> int:
    """Print the table; write it as JSON where asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", nargs="+", choices=SHAPES, default=["digits", "mnist"], help="shapes of images")
    parser.add_argument("--model", default="small-cnn", help="network (default: small-cnn)")
    parser.add_argument("--batch", type=int, default=128, help="images in a batch (default: 128)")
    parser.add_argument("--device", default="cpu", help="device of torch (default: cpu)")
    parser.add_argument("--threads", type=int, default=1, help="threads on the CPU (default: 1)")
    parser.add_argument("--seconds", type=float, default=30.0, help="time for each shape (default: 30)")
    parser.add_argument("--out", type=Path, help="also write the table to this JSON file")
    options = parser.parse_args(arguments)
    if options.threads < 1 or options.seconds <= 0 or options.batch < 1:
        parser.error("--threads, --seconds and --batch must be positive")
    torch.set_num_threads(options.threads)
    where = {
        "device": torch.cuda.get_device_name() if options.device.startswith("cuda") else platform.processor(),
        "threads": options.threads,
        "model": options.model,
        "batch": options.batch,
        "torch": torch.__version__,
        "python": platform.python_version(),
    }
    print("ratio of medians of ten training steps, with 95% bootstrap interval;", json.dumps(where))
    rows = []
    for name in options.data:
        parameters = config.TrainParameters(
            dataset=name, model=options.model, batch_size=options.batch, augment="none", threads=options.threads
        )
        times = measure(
            contestants(parameters, random_data(name, options.batch), options.device), options.device, options.seconds
        )
        baseline = next(iter(times))
        median = float(times[baseline].quantile(0.5)) / BATCHES * 1e6
        print(f"\n{name}: {baseline} {median:.0f} us, {len(times[baseline])} rounds")
        for row in ratios(times):
            rows.append({"data": name, "baseline": baseline, "baseline_us": median, **row})
            print(f"  {row['loss']:<27} {row['ratio']:6.3f}  [{row['low']:.3f}, {row['high']:.3f}]")
    if options.out:
        write_atomic(options.out, json.dumps({"where": where, "rows": rows}, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
