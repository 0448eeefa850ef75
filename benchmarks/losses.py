"""Time of each softmax-type loss against torch.nn.functional.cross_entropy, and of a whole training step.

All contestants of a table take turns within one run, so that a busy machine slows all of them alike; a row shows the
ratio of a median to the baseline's with its bootstrap interval. One contestant is the baseline a second time: its ratio
shows what difference this run can't tell from none. On one CPU thread the clock is the process's CPU time, which other
processes disturb least; else it is wall time.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from isce import losses, models
from isce.files import write_atomic

SHAPES = [(128, 10), (8192, 10), (4096, 1000)]
STEP = "training step (128, 1, 28, 28)"
BASELINE = "F.cross_entropy"
GOALS = {"large loss": 1.3, "large loss, compiled": 1.05, "training step": 1.02}

Contestant = Callable[[], Any]


def objectives(classes: int) -> dict[str, nn.Module]:
    """The objectives that compute on logits as softmax cross-entropy does."""
    generator = torch.Generator().manual_seed(0)
    matrix = torch.rand(classes, classes, generator=generator)
    return {
        "sce": losses.build("sce"),
        "isce": losses.build("isce", inference=2.0),
        "isce (C,)": losses.build("isce", inference=matrix[0]),
        "isce (C, C)": losses.build("isce", inference=matrix),
        "isce-released": losses.build("isce-released"),
        "label-smoothing": losses.build("label-smoothing"),
        "logit-squeezing": losses.build("logit-squeezing"),
        "cosface": losses.build("cosface"),
        "arcface": losses.build("arcface"),
        "lgm": losses.build("lgm"),
        "mmc": losses.build("mmc"),
    }


def loss_contestants(shape: tuple[int, int], device: str, compiled: bool) -> dict[str, Contestant]:
    """Forward and backward of each loss on the same logits."""
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(shape, generator=generator).to(device).requires_grad_()
    target = torch.randint(shape[1], shape[:1], generator=generator).to(device)

    def contestant(function: Callable[[Tensor, Tensor], Tensor]) -> Contestant:
        if compiled:
            function = torch.compile(function, fullgraph=True)

        def run() -> None:
            logits.grad = None
            function(logits, target).backward()

        return run

    named = {name: contestant(objective.to(device)) for name, objective in objectives(shape[1]).items()}

    def function(logits: Tensor, target: Tensor) -> Tensor:
        return losses.inference_softmax_cross_entropy(logits, target, 2.0)

    named["isce, function"] = contestant(function)
    return {BASELINE: contestant(F.cross_entropy), "baseline again": contestant(F.cross_entropy), **named}


def step_contestants(device: str, compiled: bool) -> dict[str, Contestant]:
    """A whole step of SGD of the small CNN on MNIST-sized random images: I-SCE against SCE, equal weights."""
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(128, 1, 28, 28, generator=generator).to(device)
    target = torch.randint(10, (128,), generator=generator).to(device)

    def contestant(name: str) -> Contestant:
        torch.manual_seed(0)
        objective = losses.build(name)
        backbone = models.build("small-cnn", input_shape=(1, 28, 28), mean=[0.13], std=[0.31])
        classifier = models.Classifier(backbone, objective.score_map(backbone.embedding_dim, 10)).to(device)
        objective = objective.to(device)
        optimizer = torch.optim.SGD(classifier.parameters(), lr=0.01, momentum=0.9)

        def loss(images: Tensor, target: Tensor) -> Tensor:
            return objective(classifier(images), target)

        forward = torch.compile(loss, fullgraph=True) if compiled else loss

        def run() -> None:
            optimizer.zero_grad()
            forward(images, target).backward()
            optimizer.step()

        return run

    return {"sce": contestant("sce"), "baseline again": contestant("sce"), "isce": contestant("isce")}


def measure(contestants: dict[str, Contestant], device: str, seconds: float, least: int = 20) -> dict[str, Tensor]:
    """Times in seconds of each contestant, one each in every round (at least so many), in an order drawn for each."""
    wait = torch.cuda.synchronize if device.startswith("cuda") else (lambda: None)
    clock = time.process_time if device == "cpu" and torch.get_num_threads() == 1 else time.perf_counter
    names, times = list(contestants), {name: [] for name in contestants}
    for name in names * 3:  # warm up
        contestants[name]()
    generator = torch.Generator().manual_seed(0)
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or len(times[names[0]]) < least:
        for position in torch.randperm(len(names), generator=generator).tolist():
            wait()
            start = clock()
            contestants[names[position]]()
            wait()
            times[names[position]].append(clock() - start)
    return {name: torch.tensor(values, dtype=torch.float64) for name, values in times.items()}


def keep_memory() -> None:
    """Start this process anew with glibc keeping the memory that is freed.

    Else it may return it to the system and fault it in again at every step, or not, by the chance of the heap's layout:
    of two contestants that allocate alike one then took 1.4 times as long as the other.
    """
    kept = {"MALLOC_TRIM_THRESHOLD_": str(2**32), "MALLOC_MMAP_THRESHOLD_": str(2**32)}
    if any(os.environ.get(name) != value for name, value in kept.items()):
        os.execve(sys.executable, [sys.executable, *sys.argv], os.environ | kept)  # noqa: S606 - itself again


def ratios(times: dict[str, Tensor], draws: int = 1000) -> list[dict[str, Any]]:
    """Ratio of medians to the first contestant, with its 95% bootstrap interval over rounds."""
    baseline, *others = times
    rounds = len(times[baseline])
    generator = torch.Generator().manual_seed(0)
    drawn = torch.randint(rounds, (draws, rounds), generator=generator)

    def median(name: str) -> Tensor:
        return times[name][drawn].quantile(0.5, dim=1)

    below = median(baseline)
    rows = []
    for name in others:
        low, high = (median(name) / below).quantile(torch.tensor([0.025, 0.975], dtype=torch.float64)).tolist()
        ratio = float(times[name].quantile(0.5) / times[baseline].quantile(0.5))
        rows.append({"loss": name, "ratio": ratio, "low": low, "high": high, "rounds": rounds})
    return rows


def run(
    device: str, compiled: bool, seconds: float, only: list[str] | None, log: Callable[[str], None]
) -> list[dict[str, Any]]:
    """All rows (those named in ``only``), each with its baseline's median time in microseconds."""
    jobs: list[tuple[str, Callable[[], dict[str, Contestant]]]] = [
        (str(shape), lambda shape=shape: loss_contestants(shape, device, compiled)) for shape in SHAPES
    ]
    jobs.append((STEP, lambda: step_contestants(device, compiled)))
    rows = []
    for label, contestants in jobs:
        entered = contestants()
        baseline = next(iter(entered))
        always = {baseline, "baseline again"}
        times = measure({n: c for n, c in entered.items() if not only or n in always | set(only)}, device, seconds)
        median = float(times[baseline].quantile(0.5)) * 1e6
        log(f"\n{label}: {baseline} {median:.0f} us, {len(times[baseline])} rounds")
        for row in ratios(times):
            rows.append({"shape": label, "baseline": baseline, "baseline_us": median, **row})
            log(f"  {row['loss']:<16} {row['ratio']:6.3f}  [{row['low']:.3f}, {row['high']:.3f}]")
    return rows


def main(arguments: list[str] | None = None) -> int:
    """Print the table; write it as JSON where asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--compile", action="store_true", help="compile all contestants (needs a C++ compiler on the CPU)"
    )
    parser.add_argument("--device", default="cpu", help="device of torch (default: cpu)")
    parser.add_argument("--threads", type=int, default=1, help="threads on the CPU (default: 1)")
    parser.add_argument("--seconds", type=float, default=10.0, help="time for each table row group (default: 10)")
    parser.add_argument("--only", nargs="+", choices=list(objectives(2)), help="losses to time (default: all)")
    parser.add_argument("--out", type=Path, help="also write the table to this JSON file")
    options = parser.parse_args(arguments)
    if options.threads < 1 or options.seconds <= 0:
        parser.error("--threads and --seconds must be positive")
    torch.set_num_threads(options.threads)
    torch._dynamo.config.recompile_limit = 100  # all objectives share one forward, which is compiled for each
    where = {
        "device": torch.cuda.get_device_name() if options.device.startswith("cuda") else platform.machine(),
        "threads": options.threads,
        "compiled": options.compile,
        "torch": torch.__version__,
        "python": platform.python_version(),
    }
    print("ratio of medians of forward and backward, with 95% bootstrap interval;", json.dumps(where))
    rows = run(options.device, options.compile, options.seconds, options.only, print)
    print("\ngoals for isce, ratio at most:", ", ".join(f"{name} {goal}" for name, goal in GOALS.items()))
    if options.out:
        write_atomic(options.out, json.dumps({"where": where, "goals": GOALS, "rows": rows}, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
