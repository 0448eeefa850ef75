"""What `nearest` breaks of the images that every attack of the `mnist` records left: is their worst case too high?

The networks are those of ``isce.load("mnist/...")``, the images those that the committed record calls robust at its
main eps. `nearest` (isce/attacks/fmn.py) came after these records: minimum-norm descents along the margin and towards
the five likeliest wrong classes. A minute or two for each network on one core.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import Any

import torch
from losses import keep_memory
from safetensors.torch import load_file
from shown import save, where

import isce
from isce import attacks, data
from isce.attacks import Threat
from isce.attacks.spec import AttackSpec
from isce.files import ROOT
from isce.runs import records
from isce.runs.records import MASKS

OBJECTIVES = ("sce", "isce-m2", "isce-released", "mmc")
SEEDS = (0, 1, 2)


def case(run: str, steps: int) -> dict[str, Any]:
    """Images that the record of a run calls robust, and those of them that `nearest` breaks."""
    folder = ROOT / "results" / "mnist" / "attack" / run
    parameters = records.read(folder / "record.json").parameters
    threat = Threat(parameters["norm"], parameters["main_eps"])
    robust = load_file(folder / MASKS)[threat.label].bool()
    loaded, test = isce.load(f"mnist/{run}"), data.load("mnist").test.subset(parameters["images"])
    left = test.select(robust.nonzero()[:, 0])
    start = time.process_time()
    given = (AttackSpec(attack="nearest", steps=steps), loaded.classifier, loaded.objective, left.unit(), left.labels)
    result = attacks.run(*given, threat, seed=0, index=left.index)
    if bool(result.rejected.any()):
        raise RuntimeError(f"{run}: nearest has no outcome for {int(result.rejected.sum())} images")
    seconds = round(time.process_time() - start)
    found = {"left": len(left.labels), "broken": int(result.success.sum()), "seconds": seconds}
    print(run, found, flush=True)
    return {"run": run, "eps": threat.eps, "n": len(test.labels), **found}


def main(arguments: list[str] | None = None) -> int:
    """Print what `nearest` breaks for each network; write it as JSON where asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=100, help="of each descent (default: 100)")
    parser.add_argument("--out", type=Path, help="also write the table to this JSON file")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    table: list[dict[str, Any]] = []
    found = {"where": where("torch", "safetensors"), "steps": options.steps, "table": table}
    for seed in SEEDS:
        for objective in OBJECTIVES:
            table.append(case(f"{objective}-s{seed}", options.steps))
            if options.out:
                save(options.out, found, "nearest", "nearest_numbers")
    return 0


if __name__ == "__main__":
    keep_memory()
    sys.exit(main())
