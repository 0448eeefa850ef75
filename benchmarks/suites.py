"""The suite `strong` against AutoAttack's standard version (Croce and Hein 2020, as pyautoattack ships it).

On the same networks (benchmarks/targets.py) and test images that they get right. The stage is `strong` without
AutoAttack; `strong` is the stage, then AutoAttack on what it left. Each round runs both once, in turn first;
CPU times (one thread) are kept in build/bench, so that a call that was stopped goes on with the next round. The
images begin at position 500: those before it served to choose the rows of `strong`.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import platform
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from losses import keep_memory
from pyautoattack import AutoAttack
from shown import save
from targets import ADVERSARIAL, FOLDER, images, target
from torch import Tensor, nn

from isce.evaluation import evaluate
from isce.files import canonical, sha256, write_atomic
from isce.losses import Objective
from isce.parameters.attack import AttackParameters, Suite, load_suite

FIRST, BATCH = 500, 256
#: Network, eps, images.
CASES = [
    ("sce", 0.3, 200),
    ("isce-m2", 0.3, 200),
    ("isce-released", 0.3, 200),
    ("mmc", 0.3, 200),
    (ADVERSARIAL, 0.3, 100),
    ("sce", 0.1, 50),
]

Row = dict[str, float]


def autoattack(classifier: nn.Module, x: Tensor, y: Tensor, eps: float) -> Tensor:
    """Which images AutoAttack leaves unbroken, bool (N,)."""
    attack = AutoAttack(classifier, norm="Linf", eps=eps, seed=0, version="standard", device="cpu")
    points, _ = attack.run_standard_evaluation(x, y, batch_size=BATCH)
    with torch.no_grad():
        return classifier(points).argmax(1) == y


def stage(classifier: nn.Module, objective: Objective, x: Tensor, y: Tensor, eps: float) -> Tensor:
    """Which images the rows of `strong` before AutoAttack leave unbroken, bool (N,)."""
    rows = [row for row in load_suite("strong").rows if row.attack != "autoattack"]
    parameters = AttackParameters(
        checkpoint="-", suite=Suite(name="stage", rows=rows, survivors_only=True), eps=[eps], batch_size=BATCH
    )
    evaluation = evaluate(classifier, objective, x, y, parameters, progress=False)
    left = evaluation.clean.copy()
    for outcome in next(iter(evaluation.outcomes.values())).values():
        left &= ~outcome.broken
    return torch.from_numpy(left)


def one_round(name: str, eps: float, number: int, swap: bool) -> Row:
    """CPU seconds and images left of each contestant."""
    classifier, objective = target(name)
    x, y = images(classifier, number, FIRST)

    def ours() -> Row:
        left, seconds = _timed(lambda: stage(classifier, objective, x, y, eps))
        both, more = left, 0.0
        if bool(left.any()):
            still, more = _timed(lambda: autoattack(classifier, x[left], y[left], eps))
            both = left.clone()
            both[left] = still
        return {
            "stage_s": seconds,
            "stage_left": int(left.sum()),
            "strong_s": seconds + more,
            "strong_left": int(both.sum()),
        }

    def theirs() -> Row:
        left, seconds = _timed(lambda: autoattack(classifier, x, y, eps))
        return {"autoattack_s": seconds, "autoattack_left": int(left.sum())}

    first, second = (theirs, ours) if swap else (ours, theirs)
    return {"n": len(y), **first(), **second()}


def _timed(function: Callable[[], Tensor]) -> tuple[Tensor, float]:
    start = time.process_time()
    result = function()
    return result, time.process_time() - start


def summary(name: str, eps: float, rounds: list[Row]) -> dict[str, Any]:
    """Medians over rounds, and the ratio of AutoAttack's time to the others' in each round: lowest, median, highest."""
    median = {key: statistics.median(row[key] for row in rounds) for key in rounds[0]}
    ratios = {part: sorted(row["autoattack_s"] / row[f"{part}_s"] for row in rounds) for part in ("stage", "strong")}
    return {"network": name, "eps": eps, "rounds": len(rounds), "medians": median, "faster": ratios}


def show(row: dict[str, Any]) -> None:
    """Print one case."""
    median, n = row["medians"], row["medians"]["n"]
    print(f"\n{row['network']}, eps {row['eps']}, {n:.0f} images, {row['rounds']} rounds")
    print(f"  {'autoattack':<12} {median['autoattack_s']:8.1f} s           robust {median['autoattack_left'] / n:6.1%}")
    for part in ("stage", "strong"):
        ratios = row["faster"][part]
        times = f"{statistics.median(ratios):.2f}x faster [{ratios[0]:.2f}, {ratios[-1]:.2f}]"
        print(f"  {part:<12} {median[f'{part}_s']:8.1f} s           robust {median[f'{part}_left'] / n:6.1%}  {times}")


def main(arguments: list[str] | None = None) -> int:
    """Run rounds until each case has enough, then print the table; write it as JSON where asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3, help="rounds of each case (default: 3)")
    parser.add_argument("--minutes", type=float, default=12.0, help="begin no round after this long (default: 12)")
    parser.add_argument("--out", type=Path, help="also write the table to this JSON file")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    end = time.monotonic() + 60 * options.minutes
    suite = load_suite("strong").model_dump(mode="json")
    kept_in = FOLDER / f"rounds-{sha256(canonical([suite, FIRST, BATCH]))[:8]}.json"
    kept: dict[str, list[Row]] = json.loads(kept_in.read_text(encoding="utf-8")) if kept_in.exists() else {}
    for number in range(options.rounds):
        for name, eps, count in CASES:
            rounds = kept.setdefault(f"{name}@{eps} n{count}", [])
            if len(rounds) == number and time.monotonic() < end:
                rounds.append(one_round(name, eps, count, swap=bool(number % 2)))
                write_atomic(kept_in, json.dumps(kept, indent=2) + "\n")
    table = [summary(n, e, kept[f"{n}@{e} n{c}"]) for n, e, c in CASES if kept[f"{n}@{e} n{c}"]]
    packages = {name: importlib.metadata.version(name) for name in ("torch", "pyautoattack")}
    where = {"device": platform.machine(), "threads": 1, "python": platform.python_version(), **packages}
    print("CPU seconds, medians of interleaved rounds;", json.dumps(where))
    for row in table:
        show(row)
    if options.out:
        save(options.out, {"where": where, "suite": suite, "table": table}, "autoattack")
    return 0


if __name__ == "__main__":
    keep_memory()
    sys.exit(main())
