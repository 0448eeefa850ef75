"""What bounds and per-example terms cost: against a forward pass, against the loss with a vector, and per image.

All contestants of a table take turns, as in ``losses.py``, whose clock and intervals these are. Takes about two minutes
and MNIST; the network is trained first where build/bench has none.
"""

from __future__ import annotations

import argparse
import platform
import sys
import time
from pathlib import Path
from typing import Any

import torch
from losses import keep_memory, measure, ratios
from shown import save
from targets import images, target
from torch import nn

from isce import models
from isce.attacks import Threat
from isce.losses import inference_softmax_cross_entropy
from isce.minmax import upper_bounds
from isce.minmax.certificates import Method
from isce.minmax.chain import chain, double
from isce.minmax.interval import interval_bounds
from isce.minmax.linear import linear_bounds

EPS = 0.01


def terms(seconds: float) -> list[dict[str, Any]]:
    """Forward and backward of I-SCE with a vector, and with one term for each example and class."""
    rows = []
    for shape in ((128, 10), (8192, 10), (4096, 1000)):
        generator = torch.Generator().manual_seed(0)
        logits = torch.randn(shape, generator=generator).requires_grad_()
        target = torch.randint(shape[1], shape[:1], generator=generator)
        vector, table = torch.rand(shape[1], generator=generator), torch.rand(shape, generator=generator)

        def step(
            m: torch.Tensor, per_example: bool, logits: torch.Tensor = logits, target: torch.Tensor = target
        ) -> None:
            logits.grad = None
            inference_softmax_cross_entropy(logits, target, m, per_example=per_example).backward()

        contestants = {
            "isce (C,)": lambda m=vector, step=step: step(m, False),
            "baseline again": lambda m=vector, step=step: step(m, False),
            "isce (N, C)": lambda m=table, step=step: step(m, True),
        }
        rows += [{"what": f"loss {shape}", **row} for row in ratios(measure(contestants, "cpu", seconds))]
    return rows


def intervals(seconds: float) -> list[dict[str, Any]]:
    """Interval bounds of a batch of 128 MNIST-sized images against one forward pass, in float32 as in training."""
    rows = []
    for name in ("interval-cnn", "small-cnn", "lenet"):
        torch.manual_seed(0)
        backbone = models.build(name, input_shape=(1, 28, 28), mean=[0.13], std=[0.31])
        network = models.Classifier(backbone, nn.Linear(backbone.embedding_dim, 10)).eval().requires_grad_(False)
        x, y, parts = torch.rand(128, 1, 28, 28), torch.randint(10, (128,)), chain(network)
        contestants = {
            "forward": lambda network=network, x=x: network(x),
            "baseline again": lambda network=network, x=x: network(x),
            "interval bounds": lambda parts=parts, x=x, y=y: interval_bounds(parts, x, y, 0.1),
        }
        rows += [{"what": name, **row} for row in ratios(measure(contestants, "cpu", seconds))]
    return rows


def proofs(count: int) -> list[dict[str, Any]]:
    """Processor time of bounds over images of the small CNN trained with SCE, and the share that they prove."""
    classifier, _ = target("sce")
    assert isinstance(classifier, models.Classifier)
    x, y = images(classifier, count)
    rows = []
    methods: list[Method] = ["interval", "linear"]
    for method in methods:
        started = time.process_time()
        bounds = upper_bounds(classifier, x, y, Threat("linf", EPS), method)
        rows.append(_proved(method, bounds, y, time.process_time() - started))
    started = time.process_time()
    with torch.no_grad():
        some = zip(x.double().split(50), y.split(50), strict=True)
        bounds = torch.cat([linear_bounds(double(classifier), *part, EPS, tighten=False) for part in some])
    rows.insert(1, _proved("linear, hidden ranges by intervals", bounds, y, time.process_time() - started))
    return rows


def _proved(method: str, bounds: torch.Tensor, y: torch.Tensor, seconds: float) -> dict[str, Any]:
    share = (bounds.scatter(1, y[:, None], -torch.inf).amax(1) < 0).double().mean()
    return {"method": method, "images": len(y), "seconds_per_1000": 1000 * seconds / len(y), "proved": float(share)}


def main(arguments: list[str] | None = None) -> int:
    """Print the tables; write them as JSON where asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=5.0, help="time for each group of rows (default: 5)")
    parser.add_argument("--images", type=int, default=200, help="images to prove (default: 200)")
    parser.add_argument("--out", type=Path, help="also write the tables to this JSON file")
    options = parser.parse_args(arguments)
    if options.seconds <= 0 or options.images < 1:
        parser.error("--seconds and --images must be positive")
    torch.set_num_threads(1)
    found: dict[str, Any] = {"where": {"device": platform.machine(), "torch": torch.__version__, "threads": 1}}
    for name, make in {"terms": terms, "intervals": intervals}.items():
        found[name] = make(options.seconds)
        for row in found[name]:
            print(f"{row['what']:<18} {row['loss']:<16} {row['ratio']:.2f} [{row['low']:.2f}, {row['high']:.2f}]")
    found["proofs"] = proofs(options.images)
    for row in found["proofs"]:
        print(f"{row['method']:<36} {row['seconds_per_1000']:8.1f} s for 1000 images, {row['proved']:.1%} proved")
    if options.out:
        save(options.out, found, "bounds")
    return 0


if __name__ == "__main__":
    keep_memory()
    sys.exit(main())
