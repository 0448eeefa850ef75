"""The adaptive attacks of this package against AutoAttack's standard version (Croce and Hein 2020, in pyautoattack).

Digits networks, trained here in a minute or two and kept in build/bench, and test images that they get right. Ours is
the suite `adaptive`; AutoAttack is run on the same images, and then on what ours left. Each round runs both, in turn
first; times are CPU times of one thread. A call that was stopped goes on with the next case.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from losses import keep_memory
from shown import save, where
from torch import Tensor

from isce import attacks, data
from isce.attacks import Threat
from isce.attacks.spec import AttackSpec
from isce.evaluation import evaluate
from isce.files import ROOT, canonical, sha256, write_atomic
from isce.parameters.attack import AttackParameters, load_suite
from isce.parameters.semantics import CHANGES
from isce.parameters.training import TrainParameters
from isce.training.checkpoint import LoadedCheckpoint, load_checkpoint
from isce.training.loop import train

FOLDER, SUITE, BATCH = ROOT / "build" / "bench", "adaptive", 256
AUTOATTACK = AttackSpec(attack="autoattack")
MADRY = {"kind": "pgd", "eps": 0.15, "steps": 5, "step_size": 0.05}
#: What differs from the defaults of a training run.
NETWORKS: dict[str, dict[str, Any]] = {
    "sce": {"objective": {"name": "sce"}},
    "isce, m = 2": {"objective": {"name": "isce", "params": {"inference": 2.0}}},
    "isce-released": {"objective": {"name": "isce-released"}},
    "sce, Madry": {"objective": {"name": "sce"}, "epochs": 40, "adversarial": MADRY},
    "isce-released, Madry": {"objective": {"name": "isce-released"}, "epochs": 40, "adversarial": MADRY},
}
CASES = [
    *((name, Threat("linf", 0.15 if "Madry" in name else 0.1)) for name in NETWORKS),
    ("sce", Threat("linf", 0.2)),
    *((name, Threat("l2", 0.4)) for name in ("sce", "isce-released", "sce, Madry")),
]

Row = dict[str, float]


def network(name: str) -> LoadedCheckpoint:
    """A trained network; it is trained where it isn't there."""
    parameters = TrainParameters.model_validate(NETWORKS[name])
    folder = FOLDER / sha256(canonical(parameters.model_dump(mode="json")))[:8]
    if not (folder / "last.safetensors").exists():
        train(parameters, folder)
    return load_checkpoint(folder / "last.safetensors")


def one_round(name: str, threat: Threat, number: int, *, swap: bool) -> Row:
    """CPU seconds and images left of each contestant."""
    loaded, test = network(name), data.load("digits").test
    with torch.no_grad():
        index = (loaded.classifier(test.unit()).argmax(1) == test.labels).nonzero()[:number, 0]
    x, y = test.unit(index), test.labels[index]

    def theirs(some: Tensor) -> Tensor:
        given = (AUTOATTACK, loaded.classifier, loaded.objective, x[some], y[some], threat)
        return some[~attacks.run(*given, seed=0, index=index[some]).success]

    def ours() -> Row:
        values = {"checkpoint": "-", "suite": load_suite(SUITE), "norm": threat.norm, "eps": [threat.eps]}
        parameters = AttackParameters.model_validate(values | {"batch_size": BATCH})
        given = (loaded.classifier, loaded.objective, x, y, parameters)
        found, seconds = _timed(lambda: evaluate(*given, index=index, progress=False))
        left = torch.from_numpy(found.robust(threat.label)).nonzero()[:, 0]
        still, more = _timed(lambda: theirs(left) if len(left) else left)
        return {"ours_s": seconds, "ours_left": len(left), "after_s": more, "after_left": len(still)}

    def alone() -> Row:
        left, seconds = _timed(lambda: theirs(torch.arange(len(y))))
        return {"autoattack_s": seconds, "autoattack_left": len(left)}

    first, second = (alone, ours) if swap else (ours, alone)
    return {"n": len(y), **first(), **second()}


def _timed(function: Callable[[], Any]) -> tuple[Any, float]:
    start = time.process_time()
    result = function()
    return result, time.process_time() - start


def summary(name: str, threat: Threat, rounds: list[Row]) -> dict[str, Any]:
    """Medians over rounds, and the ratio of our time to AutoAttack's in each round: lowest, median, highest."""
    median = {key: statistics.median(row[key] for row in rounds) for key in rounds[0]}
    ratios = sorted(row["ours_s"] / row["autoattack_s"] for row in rounds)
    return {"network": name, "threat": threat.label, "rounds": len(rounds), "medians": median, "ratios": ratios}


def main(arguments: list[str] | None = None) -> int:
    """Run rounds until each case has enough, then print the table; write it as JSON where asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3, help="rounds of each case (default: 3)")
    parser.add_argument("--images", type=int, default=150, help="images of each case (default: 150)")
    parser.add_argument("--out", type=Path, help="also write the table to this JSON file")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    suite = load_suite(SUITE).model_dump(mode="json")
    kept_in = FOLDER / f"engine-{sha256(canonical([suite, CHANGES, options.images]))[:8]}.json"
    kept: dict[str, list[Row]] = json.loads(kept_in.read_text(encoding="utf-8")) if kept_in.exists() else {}
    for number in range(options.rounds):
        for name, threat in CASES:
            rounds = kept.setdefault(f"{name} {threat.label}", [])
            if len(rounds) == number:
                rounds.append(one_round(name, threat, options.images, swap=bool(number % 2)))
                write_atomic(kept_in, json.dumps(kept, indent=2) + "\n")
                print(name, threat.label, rounds[-1], flush=True)
    table = [summary(name, threat, kept[f"{name} {threat.label}"]) for name, threat in CASES]
    machine = where("torch", "pyautoattack")
    print("CPU seconds, medians of interleaved rounds;", json.dumps(machine))
    for row in table:
        median = row["medians"]
        print(f"{row['network']}, {row['threat']}: ratio {statistics.median(row['ratios']):.3f}; left ", end="")
        print(f"{median['ours_left']:g} and {median['autoattack_left']:g} of {median['n']:g}", end="")
        print(f", after both {median['after_left']:g}")
    if options.out:
        save(options.out, {"where": machine, "suite": suite, "table": table}, "autoattack")
    return 0


if __name__ == "__main__":
    keep_memory()
    sys.exit(main())
