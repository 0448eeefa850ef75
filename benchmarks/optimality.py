"""Local optimality of our attacks, as AttackBench defines it (Cinà et al. 2025): how near to the best of all attacks.

Digits networks of this repository (``isce.load``) and test images that they get right. For each attack the smallest
adversarial distance of every image that it finds. The area above its curve of accuracy against eps, up to the eps at
which the best of all attacks has broken every image that falls at all, is divided by the same area of the pointwise
best: 1 is an attack that nothing beats on any image. Our own rows work at each eps of a grid. So could AutoAttack, for
many times the price: it runs at one eps, so its own share says little, but its points count among the best. Points are
judged by the network anew. Minutes on one core.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from losses import keep_memory
from shown import save, where
from torch import Tensor

import isce
from isce import attacks, compat, data
from isce.attacks import Threat
from isce.attacks.spec import AttackSpec
from isce.attacks.threat import Norm
from isce.evaluation import evaluate
from isce.parameters.attack import AttackParameters, load_suite
from isce.training.checkpoint import LoadedCheckpoint

SUITES = ("adaptive", "nearest")  # ours alone
GRID: dict[Norm, tuple[float, ...]] = {"linf": (0.05, 0.1, 0.2, 0.3), "l2": (0.2, 0.4, 0.8, 1.6)}
MAIN = {"linf": 0.1, "l2": 0.4}
WIDEST = {"linf": 1.0, "l2": 8.0}  # of the digits, 64 pixels
AUTOATTACK = AttackSpec(attack="autoattack")
ALONE = (AttackSpec(attack="fmn", steps=50), AttackSpec(attack="fmn", steps=500), AttackSpec(attack="fab", steps=50))
Distances = np.ndarray[Any, np.dtype[np.float64]]


def optimality(found: dict[str, Distances]) -> dict[str, float]:
    """Local optimality of each attack against the pointwise best of all of them.

    Args:
        found: for each attack the distance of the nearest adversarial point of every image (N,); inf where it has none.

    Returns:
        Shares in [0, 1].

    Raises:
        ValueError: no attack broke any image, or an image lies at no distance at all from its adversarial point.
    """
    best = np.minimum.reduce(list(found.values()))
    known = best[np.isfinite(best)]
    if not len(known) or (best <= 0).any():
        raise ValueError("need distances above 0, and at least one image that an attack broke")
    end = float(known.max())
    areas = {name: float(np.maximum(end - each, 0).sum()) for name, each in found.items()}
    whole = float(np.maximum(end - best, 0).sum())
    # Where only one distance is known the areas have no width: whoever has it is the best.
    return {name: area / whole if whole else float((found[name] <= end).any()) for name, area in areas.items()}


def contestants(loaded: LoadedCheckpoint, x: Tensor, y: Tensor, norm: Norm) -> dict[str, Callable[[], Distances]]:
    """The attacks, each returning its distances (N,)."""
    classifier, objective = loaded.classifier, loaded.objective

    def judged(points: Tensor) -> Distances:
        with torch.no_grad():
            fell = classifier(points).argmax(1) != y
        return Threat(norm, 1).distance(points, x).double().masked_fill(~fell, np.inf).numpy()

    def ours(suite: str) -> Distances:
        values = {"checkpoint": "-", "suite": load_suite(suite), "norm": norm, "eps": list(GRID[norm])}
        parameters = AttackParameters.model_validate(values | {"batch_size": 256})
        return evaluate(classifier, objective, x, y, parameters, progress=False).distance(norm)

    def row(spec: AttackSpec, grid: Sequence[float]) -> Distances:
        """The smallest over the grid; an image that fell needn't be attacked at a larger eps."""
        nearest = np.full(len(y), np.inf)
        for eps in grid:
            todo = torch.from_numpy(np.isinf(nearest)).nonzero()[:, 0]
            if not len(todo):
                break
            given = (spec, classifier, objective, x[todo], y[todo], Threat(norm, eps))
            result = attacks.run(*given, seed=0, index=todo)
            distance = Threat(norm, eps).distance(result.adversarial, x[todo]).double()
            nearest[todo.numpy()] = distance.masked_fill(~result.success, np.inf).numpy()
        return nearest

    foolbox: Any = compat.import_foolbox()
    kinds = {"linf": ["LInfFMNAttack"], "l2": ["L2FMNAttack", "DDNAttack"]}[norm]

    def packaged(kind: str) -> Distances:
        attack, model = getattr(foolbox.attacks, kind)(), foolbox.PyTorchModel(classifier, bounds=(0, 1), device="cpu")
        with compat.quiet():
            points, _, _ = attack(model, x, foolbox.criteria.Misclassification(y), epsilons=None)
        return judged(points)

    found: dict[str, Callable[[], Distances]] = {f"ours (suite {suite})": partial(ours, suite) for suite in SUITES}
    found["AutoAttack at one eps"] = lambda: row(AUTOATTACK, (MAIN[norm],))
    found |= {f"{spec.attack} alone, {spec.steps} steps": partial(row, spec, (WIDEST[norm],)) for spec in ALONE}
    return found | {f"foolbox {kind.removesuffix('Attack')}": partial(packaged, kind) for kind in kinds}


def case(name: str, norm: Norm, number: int) -> dict[str, Any]:
    """Local optimality and CPU seconds of each attack on one network."""
    loaded, test = isce.load(name), data.load("digits").test
    with torch.no_grad():
        index = (loaded.classifier(test.unit()).argmax(1) == test.labels).nonzero()[:number, 0]
    x, y = test.unit(index), test.labels[index]
    distances, seconds = dict[str, Distances](), dict[str, float]()
    for attack, run in contestants(loaded, x, y, norm).items():
        start = time.process_time()
        distances[attack] = run()
        seconds[attack] = round(time.process_time() - start, 1)
    best = np.minimum.reduce(list(distances.values()))
    nearest = {attack: int((each <= best * (1 + 1e-3)).sum()) for attack, each in distances.items()}
    print(name, norm, optimality(distances), seconds, flush=True)
    return {
        "network": name,
        "norm": norm,
        "n": len(y),
        "broken": int(np.isfinite(best).sum()),
        "optimality": optimality(distances),
        "seconds": seconds,
        "nearest": nearest,
    }


def main(arguments: list[str] | None = None) -> int:
    """Print local optimality of each attack on each network; write it as JSON where asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    networks = ["digits/sce-s0", "digits/isce-m2-s0", "digits/isce-released-s0"]
    parser.add_argument("--networks", nargs="+", default=networks, help="names that isce.load knows")
    parser.add_argument("--images", type=int, default=64, help="images of each network (default: 64)")
    parser.add_argument("--out", type=Path, help="also write the table to this JSON file")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    table: list[dict[str, Any]] = []
    found = {"where": where("torch", "pyautoattack", "foolbox", "advertorch"), "grid": GRID, "table": table}
    for name in options.networks:
        for norm in GRID:
            table.append(case(name, norm, options.images))
            if options.out:
                save(options.out, found, "optimality")
    return 0


if __name__ == "__main__":
    keep_memory()
    sys.exit(main())
