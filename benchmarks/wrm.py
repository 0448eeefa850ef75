"""What does the certificate of WRM bound on a smooth network, and does any attack get above it?

    python benchmarks/wrm.py --out benchmarks/results/wrm.json

Trains ``elu-cnn`` on digits with cross-entropy, and with WRM beside it. For every penalty gamma an ascent from each
test image gives phi, and with it the bound gamma rho + mean phi of the mean loss at mean squared distance rho. Other
ascents attack: under other penalties, from the images and from beside them, and along spheres. Where one gets above a
bound, the script raises.

The ascent finds phi only where loss - gamma distance^2 is concave, that is where no curvature of the loss exceeds
2 gamma. Curvatures are eigenvalues of the Hessian at the images and at the points found, not of all points between, so
these bounds are estimates. What is proved for all points follows from the layers' norms (:func:`constants`), and is
loose. Four minutes of one core.
"""

from __future__ import annotations

import argparse
import copy
import json
import math
import platform
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from shown import save
from torch import Tensor, nn
from tqdm import tqdm

from isce import data
from isce.attacks.ascent import ascend, slope
from isce.defences.wrm import Certificate, penalised
from isce.files import ROOT, sha256
from isce.minmax.chain import difference_map
from isce.minmax.layers import LAYERS
from isce.models import Classifier
from isce.parameters.training import TrainParameters
from isce.runs.whole import CHECKPOINT
from isce.training.checkpoint import CheckpointError, load_checkpoint
from isce.training.loop import train

TRAINING = {
    "dataset": "digits",
    "model": "elu-cnn",
    "epochs": 30,
    "batch_size": 64,
    "optimizer": {"name": "sgd", "lr": 0.05, "momentum": 0.9},
    "schedule": {"name": "cosine"},
}
NETWORKS: dict[str, dict[str, Any]] = {"SCE": {}, "SCE + WRM": {"defence": {"name": "wrm", "params": {"gamma": 2.0}}}}
IMAGES, STEPS = 200, 100
#: Penalties of the certificate, from the one with the least to fulfil; those of the attacks lie between and below.
GAMMAS = (512.0, 256.0, 128.0, 64.0, 32.0, 16.0, 8.0, 4.0, 2.0, 1.0)
#: Mean squared distances, in pixel units.
RHOS = (1e-5, 3e-5, 1e-4, 3e-4, 1e-3, 3e-3, 0.01, 0.03, 0.1, 0.3)
ROUNDING = 1e-9
PLAIN = (nn.AvgPool2d, nn.Conv2d, nn.ELU, nn.Flatten, nn.Identity, nn.Linear)

Loss = Callable[[Tensor], Tensor]
#: Mean squared distance and mean loss.
Pair = tuple[float, float]


def curvature(loss: Loss, x: Tensor) -> Tensor:
    """Largest eigenvalue of the Hessian of a loss at each point (N, ...), (N,)."""
    x = x.detach().requires_grad_()
    gradient = torch.autograd.grad(loss(x).sum(), x, create_graph=True)[0].flatten(1)
    columns = [torch.autograd.grad(entry.sum(), x, retain_graph=True)[0].flatten(1) for entry in gradient.T]
    hessian = torch.stack(columns, dim=2)
    return torch.linalg.eigvalsh((hessian + hessian.transpose(1, 2)) / 2)[:, -1]


def constants(classifier: Classifier) -> tuple[float, float]:
    """Upper bounds of the slope and of the curvature of cross-entropy, for every image and every point of space.

    A map with slope a and curvature b in l_2, then ELU, whose slope and curvature are at most 1, has slope a and
    curvature b + a^2; a linear layer multiplies both by its norm. Cross-entropy has slope sqrt(2) and curvature 1/2 in
    the logits. Derived here.

    Raises:
        ValueError: another layer than a linear one or ELU with alpha 1.
    """
    backbone = classifier.backbone
    entries = (1 / backbone.std.detach().double()).expand(backbone.input_shape)[None]
    slope, bend = float(entries.max()), 0.0
    for layer in (*backbone.layers, backbone.embed):
        assert isinstance(layer, nn.Module)
        if not isinstance(layer, PLAIN) or (isinstance(layer, nn.ELU) and layer.alpha != 1):
            raise ValueError(f"no bound of the curvature for {layer}")
        entries, norm = LAYERS[type(layer)](layer, entries)
        slope, bend = (slope, bend + slope**2) if isinstance(layer, nn.ELU) else (norm * slope, norm * bend)
    norm = float(torch.linalg.matrix_norm(difference_map(classifier.score_map)[0].double(), 2))
    slope, bend = norm * slope, norm * bend
    return math.sqrt(2) * slope, slope**2 / 2 + math.sqrt(2) * bend


def proved(clean: float, squares: float, slope: float, bend: float, rho: float) -> float:
    """The mean loss at mean squared distance rho is at most this, by Taylor's theorem or by the slope alone.

    The first is the least of gamma rho + phi over gamma > bend / 2, with phi(x) <= loss(x) + ||grad loss(x)||^2 /
    (2 (2 gamma - bend)). Derived here.

    Args:
        clean: mean loss of the images.
        squares: mean of ||grad loss(x)||^2 over the images.
        slope: bound of the slope, of :func:`constants`.
        bend: bound of the curvature, of :func:`constants`.
        rho: in pixel units, squared.
    """
    return clean + min(math.sqrt(squares * rho) + bend * rho / 2, slope * math.sqrt(rho))


def certificates(loss: Loss, x: Tensor, gammas: Iterable[float] = GAMMAS) -> Iterator[tuple[Certificate, float]]:
    """Certificate at each penalty, from the largest, with the largest curvature seen up to there.

    A penalty does what it must, as far as was seen, where that curvature is at most 2 gamma.
    """
    seen = float(curvature(loss, x).max())
    for gamma in gammas:
        z = penalised(loss, x, gamma, STEPS)
        seen = max(seen, float(curvature(loss, z).max()))
        cost, value = mean(loss, x, z)
        yield Certificate(gamma, value - gamma * cost, cost), seen


def attack(loss: Loss, x: Tensor) -> list[Pair]:
    """What the attacks reach, the images themselves first."""
    draws = torch.Generator().manual_seed(0)
    found = [mean(loss, x, x)]
    for gamma in (gamma / math.sqrt(2) for gamma in GAMMAS):
        noise = torch.randn(x.shape, generator=draws, dtype=x.dtype) / (8 * math.sqrt(gamma))
        found += [mean(loss, x, penalised(loss, x, gamma, STEPS)), mean(loss, x, near(loss, x, noise, gamma))]
    for rho in RHOS:
        found.append(mean(loss, x, sphere(loss, x, math.sqrt(rho))))
    return found


def near(loss: Loss, x: Tensor, noise: Tensor, gamma: float) -> Tensor:
    """The ascent of :func:`penalised`, but from beside the images."""

    def step(z: Tensor, gradient: Tensor, number: int) -> Tensor:
        return z + (gradient / (2 * gamma) - (z - x)) / math.sqrt(number + 2)

    return ascend(x + noise, lambda z: slope(loss, z), step, STEPS)


def sphere(loss: Loss, x: Tensor, radius: float) -> Tensor:
    """Climb at the same distance from each image: always to where the gradient points, turning less and less."""

    def step(z: Tensor, gradient: Tensor, number: int) -> Tensor:
        return x + radius * unit((z - x) / radius + unit(gradient) * 2 / math.sqrt(number + 1))

    return ascend(x, lambda z: slope(loss, z), step, STEPS // 2)


def unit(of: Tensor) -> Tensor:
    """Divide each row by its l_2 norm; 0 stays 0."""
    return F.normalize(of.flatten(1), eps=1e-300).view_as(of)


def mean(loss: Loss, x: Tensor, z: Tensor) -> Pair:
    """Mean of ||z - x||^2 and of the loss at z."""
    with torch.no_grad():
        return float((z - x).square().flatten(1).sum(1).mean()), float(loss(z).mean())


def reached(pairs: list[Pair], rho: float) -> float:
    """Largest mean loss at mean squared distance at most rho: of a pair, or of two, each on a share of the mass."""
    best = max(loss for cost, loss in pairs if cost <= rho)
    for low, below in pairs:
        for high, above in pairs:
            if low <= rho < high:
                best = max(best, below + (above - below) * (rho - low) / (high - low))
    return best


def check(pairs: list[Pair], bounds: dict[str, Callable[[float], float]]) -> None:
    """Raise :class:`ArithmeticError` where an attack lies above a bound, or either is not a number."""
    for name, bound in bounds.items():
        for rho, loss in pairs:
            if not loss <= bound(rho) + ROUNDING:
                raise ArithmeticError(f"attacks reach a mean loss of {loss:g} at {rho:g}; {name} says {bound(rho):g}")


def judge(name: str, classifier: Classifier, x: Tensor, y: Tensor) -> dict[str, Any]:
    """Certificates, what is proved, what attacks reach, and the bounds at each rho, checked against the attacks."""

    def loss(z: Tensor) -> Tensor:
        return F.cross_entropy(classifier(z), y, reduction="none")

    rows = list(tqdm(certificates(loss, x), desc=name, total=len(GAMMAS), file=sys.stderr))
    pairs = attack(loss, x)
    lipschitz, bend = constants(classifier)
    squares = float(slope(loss, x).square().flatten(1).sum(1).mean())
    known = (pairs[0][1], squares, lipschitz, bend)
    held = [made for made, seen in rows if seen <= 2 * made.gamma]
    bounds = {f"gamma {made.gamma:g}": made.bound for made in held}
    check(pairs, bounds | {"the proof": lambda rho: proved(*known, rho)})
    return {
        "network": name,
        "accuracy": float((classifier(x).argmax(1) == y).double().mean()),
        **dict(zip(("clean", "squares", "slope", "bend"), known, strict=True)),
        "gammas": [
            {**made._asdict(), "seen": seen, "holds": made in held, "attack": reached(pairs, made.cost)}
            for made, seen in rows
        ],
        "pairs": pairs,
        "rhos": [
            {
                "rho": rho,
                "attack": reached(pairs, rho),
                "bound": min((made.bound(rho) for made in held), default=None),
                "proved": proved(*known, rho),
            }
            for rho in RHOS
        ],
    }


def main(arguments: list[str] | None = None) -> int:
    """Train what is not there, judge both networks, write all as JSON where asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=IMAGES, help=f"test images, stratified (default: {IMAGES})")
    parser.add_argument("--out", type=Path, help="also write the rows to this JSON file")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    start, trained, rows = time.process_time(), dict[str, Any](), list[dict[str, Any]]()
    for name, more in NETWORKS.items():
        path = ROOT / "build" / "bench" / "wrm" / name.lower().replace(" + ", "-") / CHECKPOINT
        if not path.exists():
            made = train(TrainParameters.model_validate(TRAINING | more), path.parent)
            if failed := made.diverged or made.collapsed:
                raise CheckpointError(f"{name} can't be judged: {failed}")
        trained[name] = {"sha256": sha256(path)}
        test = data.load("digits").test
        test = test.select(data.stratified(test.labels, options.images))
        classifier = copy.deepcopy(load_checkpoint(path).classifier).double().requires_grad_(False)
        rows.append(judge(name, classifier, test.unit().double(), test.labels))
    where = {
        "machine": platform.machine(),
        "threads": 1,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "CPU minutes": round((time.process_time() - start) / 60),
    }
    found = {"where": where, "networks": trained, "images": options.images, "steps": STEPS, "rows": rows}
    print(json.dumps(rows, indent=1))
    if options.out:
        save(options.out, found, "wrm", "transport")
    return 0


if __name__ == "__main__":
    sys.exit(main())
