"""C&W by its learning rate: how many images of MNIST are left in the Euclidean ball of the records' row ``cw100``?

C&W moves the inverse tanh of each pixel, which is far out for a black one (findings/advertorch-cw-black-pixels.sh). At
the rate that the rows have, 0.01, a hundred steps end before a black pixel has moved. Half a minute for each rate.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import torch
from losses import keep_memory
from shown import save, where

import isce
from isce import attacks, data
from isce.attacks import Threat
from isce.attacks.spec import AttackSpec

RUNS = ("sce-s0", "isce-released-s0")
RATES = (0.01, 0.05, 0.1)
STEPS, EPS, IMAGES = 100, 2.0, 100  #: those of the row


def case(run: str, rate: float) -> dict[str, Any]:
    """Images of one network that C&W leaves at one rate."""
    loaded, test = isce.load(f"mnist/{run}"), data.load("mnist").test.subset(IMAGES)
    spec = AttackSpec.model_validate({"attack": "cw", "steps": STEPS, "params": {"lr": rate}})
    x, y = test.unit(), test.labels
    result = attacks.run(spec, loaded.classifier, loaded.objective, x, y, Threat("l2", EPS), seed=0, index=test.index)
    if bool(result.rejected.any()):
        raise RuntimeError(f"{run}: C&W has no outcome for {int(result.rejected.sum())} images")
    with torch.no_grad():
        right = loaded.classifier(x).argmax(1) == y
    found = {"run": run, "rate": rate, "clean": int(right.sum()), "left": int((right & ~result.success).sum())}
    print(found, flush=True)
    return found


def main(arguments: list[str] | None = None) -> int:
    """Print what C&W leaves at each rate; write it as JSON where asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="also write the values to this JSON file")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    cases = [case(run, rate) for run in RUNS for rate in RATES]
    if options.out:
        about = {"steps": STEPS, "eps": EPS, "images": IMAGES}
        save(options.out, {"where": where("torch", "advertorch"), **about, "cases": cases}, "cw")
    return 0


if __name__ == "__main__":
    keep_memory()
    sys.exit(main())
