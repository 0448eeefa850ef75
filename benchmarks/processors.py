"""How much of the scatter between runs is the training seed's, and how much the processor's?

    python benchmarks/processors.py --out benchmarks/results/processors.json

The networks of experiment ``digits`` trained with SCE, each seed under every processor that this one can look like to
the libraries, with one and two threads, and attacked by the attacks of the worst case. Outcomes are kept in the file
given, so that a run that was ended goes on. About twenty seconds of one core a network.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import platform
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
from gap import worst
from shown import save
from tqdm import tqdm

from isce import data
from isce.files import sha256
from isce.runs.experiment import load_experiment
from isce.runs.whole import CHECKPOINT
from isce.training.checkpoint import load_checkpoint
from isce.training.loop import train

#: Variables under which the libraries compute as on another processor.
PROCESSORS: dict[str, dict[str, str]] = {
    "this one": {},
    "SSE4.1": {"DNNL_MAX_CPU_ISA": "SSE41", "ATEN_CPU_CAPABILITY": "default"},
    "AVX2": {"DNNL_MAX_CPU_ISA": "AVX2", "ATEN_CPU_CAPABILITY": "avx2"},
    "AVX-512": {"DNNL_MAX_CPU_ISA": "AVX512_CORE"},
}
THREADS, SEEDS, EPS = (1, 2), 10, 0.1


def outcome(seed: int, threads: int) -> dict[str, Any]:
    """Train and attack one network in this process, as its variables say."""
    torch.set_num_threads(threads)
    runs = dict(load_experiment("digits").runs())
    run = runs["sce-s0"].model_copy(update={"seed": seed, "threads": threads})
    with tempfile.TemporaryDirectory() as folder:
        train(run, Path(folder), progress=False)
        loaded = load_checkpoint(Path(folder) / CHECKPOINT)
        digest = sha256(Path(folder) / CHECKPOINT)
    loaded.classifier.requires_grad_(False)
    test = data.load("digits").test
    x = test.unit().contiguous(memory_format=torch.channels_last)
    with torch.no_grad():
        clean = int((loaded.classifier(x).argmax(1) == test.labels).sum())
    left = int(worst(loaded, x, test.labels, [EPS])[EPS].sum())
    return {"seed": seed, "sha256": digest, "images": len(x), "clean": clean, "left": left}


def main(arguments: list[str] | None = None) -> int:
    """Make the rows that are missing, each in a process of its own, and write all as JSON after each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=SEEDS, help=f"training seeds, from 0 (default: {SEEDS})")
    parser.add_argument("--out", type=Path, help="JSON file; rows that it has are not made again")
    parser.add_argument("--one", type=int, nargs=2, metavar=("SEED", "THREADS"), help="one network, printed as JSON")
    options = parser.parse_args(arguments)
    if options.one:
        print(json.dumps(outcome(*options.one)))
        return 0
    if options.out is None:
        parser.error("--out is needed")
    where = {"machine": platform.machine(), "torch": torch.__version__, "python": platform.python_version()}
    where["processor"] = torch.backends.cpu.get_cpu_capability()
    rows: list[dict[str, Any]] = json.loads(options.out.read_text())["rows"] if options.out.exists() else []
    done = {(row["processor"], row["threads"], row["seed"]) for row in rows}
    wanted = [w for w in itertools.product(PROCESSORS, THREADS, range(options.seeds)) if w not in done]
    for processor, threads, seed in tqdm(sorted(wanted, key=lambda each: each[2]), file=sys.stderr):
        command = [sys.executable, __file__, "--one", str(seed), str(threads)]
        environment = os.environ | PROCESSORS[processor] | {"OMP_NUM_THREADS": str(threads)}
        made = subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE, text=True)  # noqa: S603
        rows.append({"processor": processor, "threads": threads} | json.loads(made.stdout))
        save(options.out, {"where": where, "eps": EPS, "rows": rows})
    save(options.out, {"where": where, "eps": EPS, "rows": rows}, "processors", "scatter")
    return 0


if __name__ == "__main__":
    sys.exit(main())
