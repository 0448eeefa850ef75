"""A copy of the project with a tiny experiment that was run once; each test works on a copy of that copy.

Its notebooks train and attack in that one run only. Then stubs take their place, which write the same records again
without a network: what the tests here are about is files and processes. Tests that need the notebooks take ``real``.
"""

import atexit
import functools
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import nbformat
import pytest
import yaml

from isce.files import ROOT
from isce.runs import locks, records
from isce.runs import plan as workflow
from isce.runs.experiment import load_experiment
from isce.runs.run import planned_runs

TINY = {
    "name": "tiny",
    "title": "Tiny",
    "tier": "A",
    "minutes": 1,
    "measured_on": "no machine",
    "objectives": [{"name": "sce"}, {"name": "isce-released"}],
    "seeds": [0],
    "training": {"dataset": "digits", "epochs": 2, "train_images": 200, "batch_size": 50},
    "attack": {"suite": "tiny", "eps": [0.1, 0.2], "main_eps": 0.1, "images": 30},
    "minmax": {"eps": [0.05], "inference": [0.0, 2.0], "images": 10},
}
SUITE = {"name": "tiny", "rows": [{"attack": "fgsm"}, {"attack": "pgd", "objective": "matched", "steps": 3}]}


@functools.cache
def _server():
    """The process of which commands are forks; see commands.py."""
    command = [sys.executable, str(Path(__file__).with_name("commands.py"))]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    atexit.register(process.communicate)  # which closes its input, and waits
    return process


class Project:
    """A project folder and what a user can do with it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.runs = root / "build" / "runs" / "tiny"

    @property
    def environment(self):
        return os.environ | {"PYTHONPATH": str(self.root), "OMP_NUM_THREADS": "1", "COLUMNS": "200"}

    def command(self, *arguments, before=(), **options):
        """Start ``python -m isce`` with these arguments, behind the words of ``before`` (a program that starts it)."""
        return subprocess.Popen(
            [*before, sys.executable, "-m", "isce", *arguments],
            cwd=self.root,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            **options,
        )

    def isce(self, *arguments, timeout=600, **options):
        """Run a command to its end: exit code, output, errors."""
        if options:
            process = self.command(*arguments, **options)
            out, err = process.communicate(timeout=timeout)
            return process.returncode, out, err
        with tempfile.NamedTemporaryFile("r") as out, tempfile.NamedTemporaryFile("r") as err:
            request = {"root": str(self.root), "arguments": arguments, "environment": self.environment}
            server = _server()
            server.stdin.write(json.dumps(request | {"out": out.name, "err": err.name}) + "\n")
            server.stdin.flush()
            return int(server.stdout.readline()), out.read(), err.read()

    def reproduce(self, *arguments, **options):
        return self.isce("reproduce", "--experiment", "tiny", "--no-book", "--jobs", "2", *arguments, **options)

    def due(self):
        """What a dry run says would run."""
        code, out, err = self.reproduce("--dry-run")
        assert code == 0, out + err
        return [line.removeprefix("would run: ") for line in out.splitlines() if line.startswith("would run")]

    def planned(self):
        """Runs that are due, found in this process."""
        runs = planned_runs(load_experiment("tiny", self.root), self.root)
        found = workflow.due(runs, self.root / "build")
        return {f"{run.kind} {run.name}" for run in runs if run.folder in found}

    def change(self, name, old, new):
        """Replace ``old`` once in a file, or append ``new`` if ``old`` is empty."""
        path = self.root / name
        text = path.read_text()
        assert old in text
        path.write_text(text.replace(old, new, 1) if old else text + new)

    def contents(self, of=None):
        """What every record says, or those of some runs, by kind and run, less its provenance; one must not miss."""
        of = of or [(run.kind, run.name) for run in planned_runs(load_experiment("tiny", self.root), self.root)]
        return {run: records.read(self.record(*run)).content() for run in of}

    def record(self, kind, run):
        return self.runs / kind / run / "record.json"


STUB = """
import shutil, time
from pathlib import Path
from isce.files import write_atomic
from isce.runs import records

while Path("hold").exists():  # a test wants to find it at work
    time.sleep(0.02)
out, kept = Path(folder), Path("kept") / Path(folder).parent.name
kept = kept / run if (kept / run).is_dir() else min(kept.iterdir())
record = records.read(kept / "record.json")
for name in record.files:
    write_atomic(out / name, (kept / name).read_bytes())
values = globals()
record.parameters = {name: values[name] for name in record.parameters}
record.experiment, record.run, record.key = experiment, run, key
record.save(out / "record.json")
"""


@pytest.fixture(scope="session")
def whole(tmp_path_factory):
    """The project after a run of its notebooks, and what that run printed; made once for all processes of pytest."""
    base = tmp_path_factory.getbasetemp()
    shared = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "whole"
    root, printed = shared / "project", shared / "printed.txt"
    with locks.hold(shared / ".lock", lambda owners: None):
        if not printed.exists():
            printed.write_text(_make_whole(root))
    return Project(root), printed.read_text()


def _make_whole(root):
    for name in ("isce", "notebooks", "workflow"):
        shutil.copytree(ROOT / name, root / name, ignore=shutil.ignore_patterns("__pycache__"))
    (root / "experiments" / "suites").mkdir(parents=True)
    (root / "book").mkdir()
    (root / "experiments" / "tiny.yaml").write_text(yaml.safe_dump(TINY, sort_keys=False))
    (root / "experiments" / "suites" / "tiny.yaml").write_text(yaml.safe_dump(SUITE, sort_keys=False))
    project = Project(root)
    code, out, err = project.reproduce()
    assert code == 0, out + err
    return out


@pytest.fixture(scope="session")
def built(whole, tmp_path_factory):
    """The same with stubs as notebooks."""
    root = tmp_path_factory.mktemp("built") / "project"
    shutil.copytree(whole[0].root, root)
    shutil.copytree(root / "build" / "runs" / "tiny", root / "kept")
    for path in (root / "notebooks").iterdir():
        notebook = nbformat.read(path, as_version=4)
        (parameters,) = [cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", [])]
        notebook.cells = [parameters, nbformat.v4.new_code_cell(STUB)]
        nbformat.write(notebook, path)
    return Project(root), whole[1]


@pytest.fixture
def project(built, tmp_path):
    shutil.copytree(built[0].root, tmp_path / "project")
    return Project(tmp_path / "project")


@pytest.fixture
def real(whole, tmp_path):
    shutil.copytree(whole[0].root, tmp_path / "project")
    return Project(tmp_path / "project")
