"""Which ways of running 50 untargeted steps on MNIST show I-SCE far above SCE, and what is left in the worst case?

    make reproduce EXPERIMENT=mnist-long UNTIL=train
    python benchmarks/gap.py --out benchmarks/results/gap.json

Networks trained with SCE, I-SCE (text, m = 2 and, trained here on the first seed, m = 10) and I-SCE (code), under sign
steps that differ in what they ascend, whose label they ask for, what bounds them, and in precision. The first seed gets
every way, the others those that stood out. Each way is judged by its last point, as a script prints it, and by any
point on the way. Beside it stands the worst case within the ball that 50 steps can't leave. Ten minutes of one core.
"""

from __future__ import annotations

import argparse
import copy
import itertools
import json
import platform
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from shown import save
from torch import Tensor, nn
from tqdm import tqdm

from isce import attacks, data
from isce.attacks import Threat
from isce.attacks.spec import AttackSpec
from isce.files import ROOT, RecordError, sha256
from isce.losses.functional import negative_margin
from isce.losses.released import released_outputs
from isce.parameters.training import ObjectiveSpec, OptimizerSpec
from isce.runs import records
from isce.runs.whole import CHECKPOINT
from isce.training.checkpoint import CheckpointError, LoadedCheckpoint, load_checkpoint
from isce.training.loop import train

Loss = Callable[[Tensor, Tensor], Tensor]
NETWORKS, LARGE = ("sce", "isce-m2", "isce-released"), "isce-m10"
#: How its training differs from SCE's: at that rate it diverges.
TEN = ObjectiveSpec(name="isce", params={"inference": 10.0})
OF_LARGE = {"objective": TEN, "optimizer": OptimizerSpec(lr=0.01), "epochs": 5}
SEEDS, IMAGES, BATCH = (0, 2), 500, 250
STEPS = (5, 50)
#: What bounds the points beside the box, and the size of a step, in pixel values; the script knows no ball, and its
#: steps of 0.01 and 0.04 on [-1, 1] are 0.005 and 0.02 here.
BOUNDS = ((0.1, 0.01), (0.2, 0.01), (0.3, 0.01), (None, 0.005), (None, 0.02))
SOME, ONE = ((0.2, 0.01), (None, 0.005)), ((0.2, 0.01),)
DOUBLE = (0.3, 0.01)
#: The script's map of the outputs on I-SCE (code): m, s, clip. The network was trained with the first.
MAPS = ((0.1, 1.0, True), (0.1, 1.0, False), (0.0, 1.0, True), (1.0, 1.0, True), (0.1, 10.0, True))
LABELS = ("true", "predicted")
STOOD_OUT = (("training", "true"), ("training", "predicted"), ("clipped SCE", "true"))
CLIPPED = 1e-7  # the probabilities that some libraries' cross-entropy stops at
WORST = (
    AttackSpec(attack="matched", objective="margin", steps=100),
    AttackSpec(attack="matched", objective="targeted", steps=50, restarts=9),
)


@dataclass(frozen=True)
class Way:
    """How an attack is run.

    Attributes:
        loss: what it ascends, a name of :func:`functions`.
        label: whose label that is about: the true one, or the network's own prediction, taken anew at each step.
        eps: radius of the l_inf ball that each step is projected to; None: the box [0, 1] alone bounds it.
        size: of a step, in pixel values.
        double: whether it computes in float64.
    """

    loss: str
    label: str
    eps: float | None
    size: float
    double: bool = False

    def reach(self, steps: int) -> float:
        """Radius of the ball that so many steps can't leave."""
        return round(min(1.0, steps * self.size, 1.0 if self.eps is None else self.eps), 9)


def of_outputs(m: float, s: float, clip: bool) -> Loss:
    """Cross-entropy of the script's outputs, (N,)."""
    return lambda logits, y: F.cross_entropy(released_outputs(logits, m, s, clip), y, reduction="none")


def clipped(logits: Tensor, y: Tensor) -> Tensor:
    """Cross-entropy of probabilities that were clipped first: it stands still where one is nearer to 1, (N,)."""
    return -logits.softmax(1).clamp(CLIPPED, 1 - CLIPPED).gather(1, y[:, None])[:, 0].log()


def functions(name: str, loaded: LoadedCheckpoint) -> dict[str, Loss]:
    """What the attacks ascend on a network, each (logits, labels) to (N,)."""
    found: dict[str, Loss] = {"training": lambda logits, y: loaded.objective.per_example(logits, y, None)}
    if name == "isce-released":
        found |= {named(*one): of_outputs(*one) for one in MAPS[1:]}
        found["raw SCE"] = lambda logits, y: F.cross_entropy(logits, y, reduction="none")
    else:
        found["clipped SCE"] = clipped
    if name == "isce-m2":
        found[named(*MAPS[0])] = of_outputs(*MAPS[0])
    return found | {"margin": negative_margin}


def named(m: float, s: float, clip: bool) -> str:
    """Name of the loss with the script's map."""
    return f"out, m = {m:g}, s = {s:g}{'' if clip else ', no clip'}"


def walk(classifier: nn.Module, loss: Loss, way: Way, x: Tensor, y: Tensor) -> dict[str, list[Tensor]]:
    """Attack one batch; what stands after each number of ``STEPS``, and what stood still at the first step.

    With the true label it ends when every image of the batch is misclassified.

    Args:
        classifier: images (N, C, H, W) to logits (N, K), in the precision of ``way``.
        loss: to be ascended, see :func:`functions`.
        way: how; the images are cast to its precision.
        x: images in [0, 1].
        y: true labels (N,).

    Returns:
        ``last``: for each number of steps whether the last point is classified right, bool (N,); ``all``: whether
        every point up to there was, the image too; ``still``: one entry, whose gradient was 0 at the image.

    Raises:
        FloatingPointError: a gradient or a logit is not finite: no outcome, so nothing may stand on it.
    """
    x = x.double() if way.double else x.float()
    low, high = (x * 0, x * 0 + 1) if way.eps is None else ((x - way.eps).clamp(0, 1), (x + way.eps).clamp(0, 1))
    point, right = x.clone(), torch.ones_like(y, dtype=torch.bool)
    found: dict[str, list[Tensor]] = {"last": [], "all": [], "still": []}
    for number in range(max(STEPS) + 1):
        point.requires_grad_()
        logits = classifier(point)
        predicted = logits.detach().argmax(1)
        right = right & (predicted == y)
        if number in STEPS:
            found["last"].append(predicted == y)
            found["all"].append(right)
        if number == max(STEPS):
            break
        if number and way.label == "true" and not bool((predicted == y).any()):  # nothing is left to do
            rest = [predicted == y] * (len(STEPS) - len(found["last"]))
            return found | {"last": found["last"] + rest, "all": found["all"] + rest}
        (slope,) = torch.autograd.grad(loss(logits, y if way.label == "true" else predicted).sum(), point)
        if not bool(slope.isfinite().all() & logits.isfinite().all()):
            raise FloatingPointError(f"a gradient or a logit is not finite at step {number} of {way}")
        if number == 0:
            found["still"].append((slope == 0).flatten(1).all(1))
        point = torch.minimum(torch.maximum(point.detach() + way.size * slope.sign(), low), high)
    return found


def ways(losses: Iterable[str], first: bool) -> Iterator[Way]:
    """On the first seed every function, the training loss within every bound; on the others what stood out there."""
    for loss, label in itertools.product(losses, LABELS):
        if not first:
            bounds = ONE if (loss, label) in STOOD_OUT else ()
        elif loss == "training":
            bounds = BOUNDS
            yield Way(loss, label, *DOUBLE, double=True)
        else:
            bounds = SOME if (loss, label) in STOOD_OUT else ONE
        yield from (Way(loss, label, *bound) for bound in bounds)


def worst(loaded: LoadedCheckpoint, x: Tensor, y: Tensor, radii: list[float]) -> dict[float, Tensor]:
    """Which images the adaptive attacks leave within each radius, bool (N,); what fell in a smaller ball has fallen."""
    network, found = (loaded.classifier, loaded.objective), dict[float, Tensor]()
    with torch.no_grad():
        stands = loaded.classifier(x).argmax(1) == y
    for radius, spec in itertools.product(sorted(radii), WORST):
        rows = stands.nonzero()[:, 0]
        for part in rows.split(BATCH) if len(rows) else ():  # nothing, split, is one empty part
            made = attacks.run(spec, *network, x[part], y[part], Threat("linf", radius), seed=0, index=part)
            if bool((made.rejected & ~made.success).any()):
                raise FloatingPointError(f"{spec.label} has no outcome for some images at radius {radius}")
            stands = stands.index_put((part,), ~made.success)
        found[radius] = stands.clone()
    return found


def judge(name: str, loaded: LoadedCheckpoint, seed: int, x: Tensor, y: Tensor, first: bool) -> list[dict[str, Any]]:
    """Every way on one network: a row for each number of steps, with the worst case in its ball."""
    losses, double = functions(name, loaded), copy.deepcopy(loaded.classifier).double()
    batches = list(zip(x.split(BATCH), y.split(BATCH), strict=True))
    done: list[tuple[Way, dict[str, list[Tensor]]]] = []
    for way in tqdm(list(ways(losses, first)), desc=f"{name}-s{seed}", file=sys.stderr):
        classifier = double if way.double else loaded.classifier
        parts = [walk(classifier, losses[way.loss], way, *batch) for batch in batches]
        done.append((way, {key: [*map(torch.cat, zip(*(p[key] for p in parts), strict=True))] for key in parts[0]}))
    left = worst(loaded, x, y, sorted({way.reach(max(STEPS)) for way, _ in done}))
    for way, found in done:  # whatever broke an image inside a ball counts in it
        for stands, steps in zip(found["all"], STEPS, strict=True):
            left = {radius: all_ & stands if way.reach(steps) <= radius else all_ for radius, all_ in left.items()}
    return [
        {
            "network": name,
            "seed": seed,
            **vars(way),
            "steps": steps,
            "reach": way.reach(steps),
            **{key: int(found[key][number].sum()) for key in ("last", "all")},
            "still": int(found["still"][0].sum()),
            "worst": int(left[way.reach(steps)].sum()) if way.reach(steps) in left else None,
        }
        for way, found in done
        for number, steps in enumerate(STEPS)
    ]


def gaps(rows: list[dict[str, Any]], images: int) -> list[dict[str, Any]]:
    """I-SCE less SCE in points, attacked alike, and with the prediction's label on I-SCE alone.

    SCE is attacked on the same function where it has it, else on its training loss: m and the script's map belong to
    I-SCE. ``judged`` is ``last`` or ``all``, see :func:`walk`; ``left`` is the gap of the worst cases, where known.
    """
    same = ("seed", "eps", "size", "double", "steps")
    of_sce = {(row["loss"], row["label"], *(row[key] for key in same)): row for row in rows if row["network"] == "sce"}
    found: list[dict[str, Any]] = []
    for row, labels, judged in itertools.product(rows, ("true", "predicted", "predicted, SCE true"), ("last", "all")):
        own, _, other = labels.partition(", SCE ")
        if row["network"] == "sce" or row["label"] != own:
            continue
        loss = row["loss"] if row["loss"] in ("margin", "clipped SCE") else "training"
        sce = of_sce[loss, other or own, *(row[key] for key in same)]
        counts = {"isce": row[judged], "sce": sce[judged], "worst isce": row["worst"], "worst sce": sce["worst"]}
        shares: dict[str, Any] = {key: None if of is None else 100 * of / images for key, of in counts.items()}
        about = {key: row[key] for key in ("network", "loss", *same)} | {"labels": labels, "judged": judged}
        left = None if row["worst"] is None else shares["worst isce"] - shares["worst sce"]
        found.append(about | shares | {"gap": shares["isce"] - shares["sce"], "left": left})
    return found


def networks(runs: Path, seeds: list[int]) -> Iterator[tuple[str, int, LoadedCheckpoint, dict[str, Any]]]:
    """Name, seed, network and where it comes from; the one with the large m is trained here, if it isn't there."""
    for seed, name in itertools.product(seeds, NETWORKS):
        folder = runs / f"{name}-s{seed}"
        record, loaded = records.read(folder / "record.json"), load_checkpoint(folder / CHECKPOINT)
        about = {"key": record.key, "commit": record.provenance.commit, "sha256": sha256(folder / CHECKPOINT)}
        yield name, seed, loaded, about
        if name == "sce" and seed == seeds[0]:
            path = ROOT / "build" / "bench" / "gap" / f"{LARGE}-s{seed}" / CHECKPOINT
            if not path.exists():
                made = train(loaded.parameters.model_copy(update=OF_LARGE), path.parent)
                if failed := made.diverged or made.collapsed:
                    raise CheckpointError(f"{LARGE} can't be attacked: {failed}")
            yield LARGE, seed, load_checkpoint(path), {"sha256": sha256(path)}


def main(arguments: list[str] | None = None) -> int:
    """Run every way, print the largest gaps, write all as JSON where asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=Path, default=ROOT / "build" / "runs" / "mnist-long" / "train", help="trained")
    parser.add_argument("--seeds", type=int, nargs="+", default=list(SEEDS), help="training seeds; the first gets all")
    parser.add_argument("--images", type=int, default=IMAGES, help=f"test images, stratified (default: {IMAGES})")
    parser.add_argument("--threads", type=int, default=1, help="threads on the CPU (default: 1)")
    parser.add_argument("--out", type=Path, help="also write the rows to this JSON file")
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    start, trained, rows = time.process_time(), dict[str, Any](), list[dict[str, Any]]()
    try:
        for name, seed, loaded, about in networks(options.runs, options.seeds):
            trained[f"{name}-s{seed}"] = about
            test = data.load(loaded.parameters.dataset).test
            test = test.select(data.stratified(test.labels, options.images))
            x = test.unit().contiguous(memory_format=torch.channels_last)
            loaded.classifier.requires_grad_(False)
            rows += judge(name, loaded, seed, x, test.labels, first=seed == options.seeds[0])
    except (RecordError, CheckpointError) as error:
        parser.error(f"{error}; `make reproduce EXPERIMENT=mnist-long UNTIL=train` trains the networks")
    where = {
        "machine": platform.machine(),
        "threads": options.threads,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "CPU minutes": round((time.process_time() - start) / 60),
    }
    found = {"where": where, "networks": trained, "images": options.images, "rows": rows}
    found["gaps"] = gaps(rows, options.images)
    print(json.dumps(where))
    for gap in sorted(found["gaps"], key=lambda gap: -gap["gap"])[:20]:
        print(json.dumps(gap))
    if options.out:
        save(options.out, found, "gap", "precision", "mechanisms", "numbers")
    return 0


if __name__ == "__main__":
    sys.exit(main())
