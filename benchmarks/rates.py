"""Is it the loss or the learning rate? SCE and I-SCE (text) on MNIST at five rates, with all else equal.

    python benchmarks/rates.py --out benchmarks/results/rates.json

A term of m multiplies the gradient of an image that is already classified right, so that at one learning rate I-SCE
takes longer steps than SCE. Here every loss is trained at every rate as in experiment ``mnist`` (6 epochs, cosine), and
the attacks of the worst case are run on each network. Networks are kept in build/bench/rates and outcomes in the file
given, so that a run that was ended goes on. About two minutes of one core a network.
"""

from __future__ import annotations

import argparse
import itertools
import json
import platform
import sys
from pathlib import Path
from typing import Any

import torch
from gap import worst
from shown import save

from isce import data
from isce.attacks.base import margin
from isce.files import ROOT, sha256, write_atomic
from isce.parameters.training import ObjectiveSpec, TrainParameters
from isce.runs.experiment import load_experiment
from isce.runs.whole import CHECKPOINT
from isce.training.checkpoint import load_checkpoint
from isce.training.loop import train

LOSSES = (
    ObjectiveSpec(name="sce"),
    ObjectiveSpec(name="isce", params={"inference": 2.0}),
    ObjectiveSpec(name="isce", params={"inference": 5.0}),
)
RATES = (0.0025, 0.005, 0.01, 0.02, 0.05)
SEEDS, IMAGES = (0, 1, 2), 500
EPS = [0.05, 0.1, 0.15]


def parameters(loss: ObjectiveSpec, rate: float, seed: int) -> TrainParameters:
    """Parameters of experiment ``mnist``, with another loss and rate."""
    run = dict(load_experiment("mnist").runs())["sce-s0"]
    optimizer = run.optimizer.model_copy(update={"lr": rate})
    return run.model_copy(update={"objective": loss, "seed": seed, "optimizer": optimizer})


def trained(run: TrainParameters, folder: Path) -> dict[str, Any]:
    """Train one network, unless it is there; why that failed, if so, and the last training loss."""
    if not (folder / "history.json").exists():
        made = train(run, folder)
        loss = made.history[-1]["train_loss"] if made.history else None  # none: it diverged in its first epoch
        write_atomic(folder / "history.json", json.dumps({"failed": made.diverged or made.collapsed, "loss": loss}))
    return json.loads((folder / "history.json").read_text())


def row(run: TrainParameters, folder: Path, images: int) -> dict[str, Any]:
    """Train one network, unless it is there, and attack it; one whose training failed has no accuracy."""
    about = {"network": run.objective.label, "rate": run.optimizer.lr, "seed": run.seed}
    ended = trained(run, folder)
    if ended["failed"]:
        return about | ended
    loaded = load_checkpoint(folder / CHECKPOINT)
    loaded.classifier.requires_grad_(False)
    test = data.load("mnist").test
    test = test.select(data.stratified(test.labels, images))
    x = test.unit().contiguous(memory_format=torch.channels_last).requires_grad_()
    lead = margin(loaded.classifier(x), test.labels)
    (slope,) = torch.autograd.grad(lead.sum(), x)
    left = worst(loaded, x.detach(), test.labels, EPS)
    return (
        about
        | ended
        | {
            "sha256": sha256(folder / CHECKPOINT),
            "clean": int((lead > 0).sum()),
            "worst": {f"{eps:g}": int(stands.sum()) for eps, stands in left.items()},
            "margin": float(lead.detach().median()),
            "slope": float(slope.flatten(1).abs().sum(1).median()),
        }
    )


def main(arguments: list[str] | None = None) -> int:
    """Make the rows that are missing, and write all as JSON after each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=list(SEEDS), help="training seeds")
    parser.add_argument("--rates", type=float, nargs="+", default=list(RATES), help="learning rates")
    parser.add_argument("--images", type=int, default=IMAGES, help=f"test images, stratified (default: {IMAGES})")
    parser.add_argument("--out", type=Path, required=True, help="JSON file; rows that it has are not made again")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    where = {"machine": platform.machine(), "torch": torch.__version__, "python": platform.python_version()}
    found: dict[str, Any] = {"where": where, "images": options.images, "eps": EPS, "rows": []}
    if options.out.exists():
        kept = json.loads(options.out.read_text())
        if kept["images"] != options.images or kept["eps"] != EPS:
            parser.error(f"{options.out} holds rows of {kept['images']} images at eps {kept['eps']}: give another file")
        found["rows"] = kept["rows"]
    for seed, rate, loss in itertools.product(options.seeds, options.rates, LOSSES):
        run = parameters(loss, rate, seed)
        if any((r["network"], r["rate"], r["seed"]) == (loss.label, rate, seed) for r in found["rows"]):
            continue
        made = row(run, ROOT / "build" / "bench" / "rates" / f"{loss.label}-{rate:g}-s{seed}", options.images)
        print(json.dumps(made), flush=True)
        found["rows"].append(made)
        save(options.out, found, "rates", "learnt")
    return 0


if __name__ == "__main__":
    sys.exit(main())
