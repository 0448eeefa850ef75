"""How long an experiment takes on a Slurm of one node with one and with two workers, beside what paper says.

    python benchmarks/cluster.py --experiment quick

Runs the experiment from nothing through the profile `slurm` on this machine (tests/workflow/one_node_slurm.py), once
for each number of workers. On paper: a run follows the training that it needs, so that w workers take

    max(work / w, longest chain) + rest

where `work` is the sum over runs of their seconds (from their records) plus what a job costs besides, the longest chain
is one training with the longer of what follows it, and `rest` is planning and tables. What a job costs besides and the
rest are read off the measurement with one worker, so only the rows beyond it test the formula.
"""

from __future__ import annotations

import argparse
import csv
import io
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from isce.files import ROOT, write_atomic
from isce.runs import records

MEASURED, PAPER = (1, 2), (4, 8, 16)
PARTS = ("isce", "notebooks", "workflow", "experiments")


def run(experiment: str, workers: int, project: Path) -> tuple[float, list[records.Record]]:
    """Seconds from start to tables, and the records."""
    for part in PARTS:
        shutil.copytree(ROOT / part, project / part, ignore=shutil.ignore_patterns("__pycache__"))
    (project / "book").mkdir()
    reproduce = [
        sys.executable,
        "-m",
        "isce",
        "reproduce",
        "--experiment",
        experiment,
        "--profile",
        "slurm",
        "--no-book",
    ]
    command = [
        sys.executable,
        str(ROOT / "tests" / "workflow" / "one_node_slurm.py"),
        "--cpus",
        str(workers),
        *reproduce,
    ]
    started = time.monotonic()
    subprocess.run(command, cwd=project, env=os.environ | {"PYTHONPATH": str(project)}, check=True)  # noqa: S603
    seconds = time.monotonic() - started
    return seconds, list(records.read_all(project / "build" / "runs" / experiment).values())


def paper(found: Iterable[records.Record], one_worker: float, workers: int) -> float:
    """Seconds with so many workers; see above. What isn't a run's own seconds is shared among the jobs."""
    seconds = {(record.kind, record.run): record.provenance.seconds for record in found}
    besides = (one_worker - sum(seconds.values())) / (len(seconds) + 1)  # the tables are one more step
    work = sum(seconds.values()) + besides * len(seconds)
    chains = [
        seconds["train", run] + max(s for (kind, name), s in seconds.items() if kind != "train" and name == run)
        for kind, run in seconds
        if kind == "train"
    ]
    return max(work / workers, max(chains) + 2 * besides) + besides


def main() -> int:
    """Measure, print, and write benchmarks/results/cluster.json and the table that the book's page shows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--experiment", default="quick")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results")
    options = parser.parse_args()
    rows: list[dict[str, Any]] = []
    measured: dict[int, tuple[float, list[records.Record]]] = {}
    for workers in MEASURED:
        before = os.getloadavg()[0]
        with tempfile.TemporaryDirectory(prefix="cluster-") as folder:
            measured[workers] = run(options.experiment, workers, Path(folder) / "project")
        rows.append({"workers": workers, "measured_s": measured[workers][0], "load_before": before})
    rows += [{"workers": workers, "measured_s": None} for workers in PAPER]
    seconds, found = measured[1]
    for row in rows:
        row["paper_s"] = paper(found, seconds, row["workers"])
    where = {"machine": f"{platform.machine()}, {os.cpu_count()} CPU", "python": platform.python_version()}
    outcome = {"where": where, "experiment": options.experiment, "runs": len(found), "rows": rows}
    write_atomic(options.out / "cluster.json", json.dumps(outcome, indent=2) + "\n")
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(["workers", "measured (s)", "on paper (s)"])
    for row in rows:
        took = "not measured" if row["measured_s"] is None else f"{row['measured_s']:.0f}"
        table.writerow([row["workers"], took, "(taken as given)" if row["workers"] == 1 else f"{row['paper_s']:.0f}"])
    write_atomic(options.out / "cluster.csv", text.getvalue())
    print(text.getvalue())
    return 0


if __name__ == "__main__":
    sys.exit(main())
