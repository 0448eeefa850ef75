"""What the experiments of tiers B and C cost to train, on paper, before a GPU is at hand.

    python benchmarks/plan.py --out benchmarks/results/plan.json

Operations: torch counts those of the matrix products and convolutions of one training step of the very run (two for a
multiplication with its addition), on a small batch of random images; times the images of all steps. Inner ascents
count, validation does not. Seconds on a CPU: from the step times of benchmarks/training.py (isce/runs/cost.py), none
where a network was not measured. Seconds on a GPU were not measured; beside that
stands what they would be at an assumed rate (--rate). Attack runs and analyses are counted as runs alone.
"""

from __future__ import annotations

import argparse
import json
import math
import platform
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
from shown import save
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry
from training import random_data

from isce.files import ROOT, canonical
from isce.parameters.training import TrainParameters
from isce.runs import cost
from isce.runs.experiment import Experiment, load_experiment
from isce.runs.run import planned_runs
from isce.training.loop import _Run

BATCH = 8
TIERS = ("B", "C")


class Counter(TorchDispatchMode):
    """Adds up operations by torch's formulas; FlopCounterMode itself can't follow the gradients of an inner ascent."""

    total = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if formula := flop_registry.get(func._overloadpacket):
            self.total += formula(*args, **(kwargs or {}), out_val=out)
        return out


def step_flops(parameters: TrainParameters) -> float:
    """Floating-point operations of one training step for each image, in all its passes."""
    random = random_data(parameters.dataset, BATCH, 1)
    run = _Run(parameters, random, torch.device("cpu"), Path(tempfile.gettempdir()))  # writes nothing
    run.classifier.train()
    with Counter() as counter:
        run._learn(random.train.unit(), random.train.labels, torch.Generator().manual_seed(0))
    return counter.total / BATCH


def planned(experiment: Experiment, rate: float) -> dict[str, Any]:
    """One row: the runs of an experiment and what its trainings cost."""
    times, counted = cost.step_times(), dict[str, float]()
    steps, flops, seconds = 0, 0.0, list[float | None]()
    for _, run in experiment.runs():
        images = run.train_images or cost.IMAGES[run.dataset][0]
        replays = run.adversarial.steps if run.adversarial and run.adversarial.kind == "free" else 1
        steps += run.epochs * replays * math.ceil(images / run.batch_size)
        same = canonical(run.model_dump(mode="json", exclude={"seed"}))
        if same not in counted:
            counted[same] = step_flops(run)
        flops += counted[same] * images * run.epochs
        seconds.append(cost.training_seconds(run, times))
    kinds = [run.kind for run in planned_runs(experiment)]
    return {
        "experiment": experiment.name,
        "tier": experiment.tier,
        "trainings": kinds.count("train"),
        "other_runs": len(kinds) - kinds.count("train"),
        "steps": steps,
        "flops": flops,
        "cpu_seconds": None if None in seconds else sum(s for s in seconds if s is not None),
        "gpu_seconds": None,  # not measured
        "gpu_seconds_at_assumed_rate": flops / rate,
    }


def main(arguments: list[str] | None = None) -> int:
    """Print the table; write it as JSON where asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--rate",
        type=float,
        default=30.0,
        help="TFLOP/s that a GPU is assumed to sustain, an assumption and no measurement (default: 30)",
    )
    parser.add_argument("--out", type=Path, help="also write the table to this JSON file")
    options = parser.parse_args(arguments)
    if options.rate <= 0:
        parser.error("--rate must be positive")
    found = [load_experiment(path.stem) for path in sorted((ROOT / "experiments").glob("*.yaml"))]
    rows = [planned(e, 1e12 * options.rate) for e in sorted(found, key=lambda e: e.tier or "") if e.tier in TIERS]
    where = {"device": platform.machine(), "torch": torch.__version__, "python": platform.python_version()}
    print(f"training; GPU: not measured, beside it an assumed {options.rate:g} TFLOP/s; {json.dumps(where)}")
    for row in rows:
        cpu = "unknown" if row["cpu_seconds"] is None else f"{row['cpu_seconds'] / 3600:.1f} h"
        print(
            f"{row['tier']} {row['experiment']:<15} {row['trainings']:>3} trainings {row['steps']:>9,} steps "
            f"{row['flops'] / 1e15:>9.1f} PFLOP  one core {cpu:>8}  "
            f"at that rate {row['gpu_seconds_at_assumed_rate'] / 60:6.1f} min"
        )
    if options.out:
        found = {"where": where, "assumed_tflops_per_second": options.rate, "rows": rows}
        save(options.out, found, "plan")
    return 0


if __name__ == "__main__":
    sys.exit(main())
