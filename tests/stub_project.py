"""A project whose training notebook trains nothing: it works while a file `go` is missing, and notices a second writer.

Its kernel needs no torch, so that tests which kill processes are quick.
"""

import json
import os
import shutil
import subprocess
import sys
import time

import psutil
import yaml

from isce.files import ROOT
from isce.runs import records

PARAMETERS = "folder = ''\nexperiment = run = key = device = dataset = ''"
WORK = """
import os, time
from pathlib import Path

here, own = Path(folder), str(os.getpid())
owner, go = here / "owner", Path.cwd() / "go"
owner.write_text(own)
with (here / "workers").open("a") as workers:
    workers.write(own + "\\n")
while True:
    if owner.read_text() != own:
        (here / "overlap").touch()
    if go.exists():
        break
    time.sleep(0.01)
"""
RECORD = """
from isce.files import sha256, write_atomic
from isce.runs.records import Record, provenance

for name in ("best", "last"):
    write_atomic(here / f"{name}.safetensors", run)
files = {f"{name}.safetensors": sha256(run) for name in ("best", "last")}
results = {"validation_accuracy": 0.5, "history": []}
about = {"kind": "train", "experiment": experiment, "run": run, "key": key, "parameters": {}, "data_sha256": "0"}
Record(**about, results=results, files=files, provenance=provenance("cpu", 1.0)).save(here / "record.json")
"""
EXPERIMENT = {
    "name": "stub",
    "title": "Stub",
    "objectives": [{"name": "sce"}],
    "seeds": [0, 1],
    "training": {"dataset": "digits"},
    "attack": {"suite": "stub", "eps": [0.1], "main_eps": 0.1},
}


def make(root):
    """Make the project; its kernels work until :func:`Stub.let_go`."""
    for name in ("isce", "notebooks", "workflow"):
        shutil.copytree(ROOT / name, root / name, ignore=shutil.ignore_patterns("__pycache__"))
    (root / "notebooks" / "train.ipynb").write_text(json.dumps(notebook(PARAMETERS, WORK, RECORD, "1 + 1")))
    (root / "experiments" / "suites").mkdir(parents=True)
    (root / "book").mkdir()
    (root / "experiments" / "stub.yaml").write_text(yaml.safe_dump(EXPERIMENT))
    suite = {"name": "stub", "rows": [{"attack": "fgsm"}]}
    (root / "experiments" / "suites" / "stub.yaml").write_text(yaml.safe_dump(suite))
    return Stub(root)


def notebook(*sources):
    """A notebook of code cells, the first of which holds its parameters."""
    common = {"cell_type": "code", "execution_count": None, "outputs": []}
    cells = [{**common, "id": f"c{n}", "metadata": {}, "source": source} for n, source in enumerate(sources)]
    cells[0]["metadata"] = {"tags": ["parameters"]}
    spec = {"display_name": "Python 3", "language": "python", "name": "python3"}
    return {"cells": cells, "metadata": {"kernelspec": spec}, "nbformat": 4, "nbformat_minor": 5}


class Stub:
    """The project's folder and what a user does with it."""

    def __init__(self, root):
        self.root, self.runs = root, root / "build" / "runs" / "stub" / "train"

    def start(self, *arguments, **more):
        """Start ``python -m isce`` with these arguments, in a session of its own."""
        environment = os.environ | {"PYTHONPATH": str(self.root), "OMP_NUM_THREADS": "1"} | more
        return subprocess.Popen(
            [sys.executable, "-m", "isce", *arguments],
            cwd=self.root,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def reproduce(self, *arguments, **more):
        """Start `make reproduce` up to the training runs."""
        return self.start("reproduce", "--experiment", "stub", "--until", "train", "--jobs", "2", *arguments, **more)

    def params(self, run="sce-s0"):
        """The ``params.yaml`` of a run, made here if nothing was planned yet."""
        path = self.runs / run / "params.yaml"
        if not path.exists():
            path.parent.mkdir(parents=True)
            path.write_text("key: k\ndataset: digits\n")
        return path

    def let_go(self):
        """Let every kernel that works finish its work, and later ones too."""
        (self.root / "go").touch()

    def owner(self, run="sce-s0"):
        """Process of the kernel that works on a run; None before it does."""
        path = self.runs / run / "owner"
        text = path.read_text() if path.exists() else ""
        return psutil.Process(int(text)) if text and psutil.pid_exists(int(text)) else None

    def workers(self):
        """How many kernels have worked on each run."""
        return {path.parent.name: len(path.read_text().split()) for path in self.runs.glob("*/workers")}

    def overlaps(self):
        """Runs that two kernels worked on at once."""
        return [path.parent.name for path in self.runs.glob("*/overlap")]

    def contents(self):
        """What every record says, less its provenance."""
        return {path.parent.name: records.read(path).content() for path in self.runs.glob("*/record.json")}


def children(process):
    """All processes that a process started, and those that these started."""
    return psutil.Process(process.pid).children(recursive=True)


def until(reached):
    """Wait until something is there (found, true), and return it."""
    deadline = time.monotonic() + 120
    while not (found := reached()):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return found
