"""Many runs with one thread each, or one run with many threads? Training images per second, by the clock.

Three ways to use a machine with n cores: one run with one thread, one run with n threads, n runs with one thread each.
They take turns; each run trains on random images for some seconds after all that belong together have warmed up. The
last two use the whole machine, so the faster of them says how many threads a run should have (`threads` in experiment
files, and as many runs at once as there are cores). Nothing else should run meanwhile.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import platform
import statistics
import sys
import time
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any

import torch
from shown import save
from training import SETTINGS, contestants, random_data

from isce.parameters import training as config

BATCH, STEPS = 128, 2


def worker(setting: str, threads: int, seconds: float, ready: Barrier, found: Any) -> None:
    """Train for a while once all are ready; puts images per second into ``found``."""
    torch.set_num_threads(threads)
    name, _, model = setting.partition(":")
    parameters = config.TrainParameters(dataset=name, model=model, batch_size=BATCH, augment="none", threads=threads)
    train = contestants(parameters, random_data(name, BATCH, STEPS), "cpu")["isce.training"]
    train()
    ready.wait()
    rounds, started = 0, time.monotonic()
    while (took := time.monotonic() - started) < seconds:
        train()
        rounds += 1
    found.put(rounds * STEPS * BATCH / took)


def rate(setting: str, runs: int, threads: int, seconds: float) -> float:
    """Images per second of so many runs at once, together."""
    context = multiprocessing.get_context("spawn")
    ready, found = context.Barrier(runs), context.Queue()
    several = [context.Process(target=worker, args=(setting, threads, seconds, ready, found)) for _ in range(runs)]
    for process in several:
        process.start()
    total = sum(found.get(timeout=60 + 10 * seconds) for _ in several)
    for process in several:
        process.join()
    return total


def main(arguments: list[str] | None = None) -> int:
    """Print the table; write it as JSON where asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--on", nargs="+", default=SETTINGS, help=f"data set:network (default: {' '.join(SETTINGS)})")
    parser.add_argument("--seconds", type=float, default=5.0, help="of each measurement (default: 5)")
    parser.add_argument("--rounds", type=int, default=3, help="measurements of each way (default: 3)")
    parser.add_argument("--out", type=Path, help="also write the table to this JSON file")
    options = parser.parse_args(arguments)
    if options.seconds <= 0 or options.rounds < 1:
        parser.error("--seconds must be positive, --rounds at least 1")
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    ways = list(dict.fromkeys([(1, 1), (1, cores), (cores, 1)]))
    where = {
        "machine": f"{platform.system()} {platform.machine()}, {cores} cores",
        "torch": torch.__version__,
        "python": platform.python_version(),
        "batch": BATCH,
        "load before": round(os.getloadavg()[0], 2),
    }
    rows: list[dict[str, Any]] = []
    for setting in options.on:
        rates: dict[tuple[int, int], list[float]] = {way: [] for way in ways}
        for _ in range(options.rounds):
            for runs, threads in ways:
                rates[runs, threads].append(rate(setting, runs, threads, options.seconds))
        for (runs, threads), found in rates.items():
            middle = statistics.median(found)
            rows.append({"setting": setting, "runs": runs, "threads": threads, "images_per_s": middle, "all": found})
            print(f"{setting:<26} {runs} runs, {threads} threads each: {middle:9.0f} images/s", flush=True)
    if options.out:
        outcome = {"where": where, "seconds": options.seconds, "rounds": options.rounds, "rows": rows}
        save(options.out, outcome, "threads")
    return 0


if __name__ == "__main__":
    sys.exit(main())
