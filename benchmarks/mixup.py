"""Where is a network that was trained with mixup weak on MNIST? Attacks on the black pixels alone, and on the others.

    python benchmarks/mixup.py --out benchmarks/results/mixup.json

Mixup lays faint strokes of one digit over another and asks for a share of the second label. So a network must read
faint strokes on black. Here that is looked at: the same ascent moves all pixels, those that are 0, or those that are
not; and the second digit of a pair is laid over the first, as mixup does. With a large alpha both digits of a pair are
nearly equally strong, and none is faint. Networks are trained as in experiment ``mnist-defences``, kept in
build/bench/mixup, and outcomes in the file given, so that a run that was ended goes on. Five minutes of one core each.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import torch
from rates import trained
from shown import save, where
from torch import Tensor, nn

from isce import data
from isce.attacks.base import margin
from isce.files import ROOT, sha256
from isce.parameters.training import DefenceSpec, TrainParameters
from isce.runs.experiment import load_experiment
from isce.runs.whole import CHECKPOINT
from isce.training.checkpoint import load_checkpoint

ALPHAS = (None, 1.0, 64.0)  # of mixup; None: SCE alone
SEEDS, IMAGES = (0, 1), 500
EPS, STEPS = 0.1, 50
SHARES = (0.05, 0.1, 0.2)  # of the second digit


def parameters(alpha: float | None, seed: int) -> TrainParameters:
    """Parameters of experiment ``mnist-defences``, with another alpha; None: without mixup."""
    runs = dict(load_experiment("mnist-defences").runs())
    if alpha is None:
        return runs[f"sce-s{seed}"]
    spec = DefenceSpec(name="mixup", params={"alpha": alpha})
    return runs[f"sce-mixup-s{seed}"].model_copy(update={"defence": spec})


def stands(classifier: nn.Module, x: Tensor, y: Tensor, moved: Tensor) -> Tensor:
    """Whether each image is right at every point of an ascent that moves some of its pixels, bool (N,).

    Args:
        classifier: images to logits.
        x: images in [0, 1], (N, C, H, W).
        y: labels (N,).
        moved: which pixels may move by up to ``EPS``, bool, shape of ``x``.

    Raises:
        FloatingPointError: a margin is not finite: no outcome, so nothing may stand on it.
    """
    low, high = ((x - EPS * moved).clamp(0, 1), (x + EPS * moved).clamp(0, 1))
    point, right = x.clone(), torch.ones_like(y, dtype=torch.bool)
    for step in range(STEPS + 1):
        point.requires_grad_()
        lead = margin(classifier(point), y)
        if not bool(torch.isfinite(lead).all()):
            raise FloatingPointError("a margin is not finite")
        right &= lead > 0
        (slope,) = torch.autograd.grad(lead.sum(), point)
        point = (point.detach() - 2 * EPS * (1 - step / STEPS) * slope.sign()).clamp(low, high)
    return right


def row(classifier: nn.Module, x: Tensor, y: Tensor, other: Tensor) -> dict[str, Any]:
    """What attacks leave of the images of one network, where its slope lies, and how it sees a faint second digit.

    Args:
        classifier: images to logits.
        x: images in [0, 1], (N, C, H, W).
        y: labels (N,).
        other: places of the second images (N,), int64.
    """
    black = x == 0
    point = x.clone().requires_grad_()
    (slope,) = torch.autograd.grad(margin(classifier(point), y).sum(), point)
    pairs = y != y[other]
    seen: dict[str, float] = {}
    with torch.no_grad():
        clean = int((margin(classifier(x), y) > 0).sum())
        for share in SHARES:
            probability = classifier((1 - share) * x + share * x[other]).softmax(1)
            seen[f"{share:g}"] = float(probability.gather(1, y[other][:, None])[pairs].mean())
    moved = {"all": torch.ones_like(black), "black": black, "others": ~black}
    left = {name: int(stands(classifier, x, y, pixels).sum()) for name, pixels in moved.items()}
    on_black = (slope * black).abs().flatten(1).sum(1) / slope.abs().flatten(1).sum(1)
    return {"clean": clean, "left": left, "slope": float(on_black.nanmean()), "seen": seen}


def main(arguments: list[str] | None = None) -> int:
    """Make the rows that are missing, and write all as JSON after each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=list(SEEDS), help="training seeds")
    parser.add_argument("--images", type=int, default=IMAGES, help=f"test images, stratified (default: {IMAGES})")
    parser.add_argument("--out", type=Path, required=True, help="JSON file; rows that it has are not made again")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    found: dict[str, Any] = {"where": where("torch"), "images": options.images, "eps": EPS, "steps": STEPS, "rows": []}
    if options.out.exists():
        kept = json.loads(options.out.read_text())
        if wrong := [name for name in ("images", "eps", "steps") if kept[name] != found[name]]:
            parser.error(f"{options.out} holds rows of {wrong[0]} {kept[wrong[0]]}: give another file")
        found["rows"] = kept["rows"]
    test = data.load("mnist").test
    test = test.select(data.stratified(test.labels, options.images))
    other = torch.randperm(len(test), generator=torch.Generator().manual_seed(0))
    for seed in options.seeds:
        for alpha in ALPHAS:
            about = {"alpha": alpha, "seed": seed}
            if any(about.items() <= each.items() for each in found["rows"]):
                continue
            folder = ROOT / "build" / "bench" / "mixup" / f"{'sce' if alpha is None else f'alpha{alpha:g}'}-s{seed}"
            if failed := trained(parameters(alpha, seed), folder)["failed"]:
                raise RuntimeError(f"no outcome of {folder.name}: {failed}")
            classifier = load_checkpoint(folder / CHECKPOINT).classifier.requires_grad_(False)
            made = about | {"sha256": sha256(folder / CHECKPOINT)} | row(classifier, test.unit(), test.labels, other)
            print(json.dumps(made), flush=True)
            found["rows"].append(made)
            save(options.out, found, "mixup", "mixed")
    return 0


if __name__ == "__main__":
    sys.exit(main())
