"""Edits of the code, each on a copy: one that changes no result is free, one that changes a result is seen."""

from __future__ import annotations

import functools
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
KEYS = """
import json
from isce.runs.experiment import load_experiment
from isce.runs.run import planned_runs
print(json.dumps({f"{run.kind}/{run.name}": run.key for run in planned_runs(load_experiment("quick"))}))
"""

#: Edits that change no result: name, the part that runs the code, file, old text, new text.
HARMLESS = [
    ("inline comment", "network.small-cnn", "isce/models/base.py", "# of images in [-1, 1] and their mean", "# other"),
    ("attribute docstring", "objective.sce", "isce/losses/base.py", '"""Name in the registry."""', '"""Its name."""'),
    ("docstring", "train", "isce/training/loop.py", '"""Learn from one batch ', '"""Take one batch '),
    ("comment in a notebook", "train", "notebooks/train.ipynb", "# Parameters:", "# The parameters:"),
    ("module renamed", "train", "isce/data/batches.py", None, "isce/data/feeding.py"),
    ("local variable renamed", "train", "isce/training/loop.py", "carried", "kept"),
    (
        "order of imports",
        "train",
        "isce/data/sets.py",
        "import gzip\nimport hashlib\n",
        "import hashlib\nimport gzip\n",
    ),
    ("log message", "train", "isce/training/state.py", "starting from the beginning", "starting anew"),
    ("error message", "attack.fgsm", "isce/attacks/checks.py", "images must have shape", "images need the shape"),
    ("download timeout", "train", "isce/data/download.py", "TIMEOUT = 30", "TIMEOUT = 60"),
    (
        "new optional field",
        "train",
        "isce/parameters/training.py",
        "    batch_statistics: bool = Field(\n",
        '    warmup: int = Field(default=0, json_schema_extra={"neutral": 0})\n    batch_statistics: bool = Field(\n',
    ),
    (
        "function moved to another module",
        "attack.pgd",
        "isce/attacks/ascent.py",
        "REACH = 2.5\n",
        "from isce.attacks.steps import REACH\n",
    ),
]

#: Edits that change results: name, the part whose golden numbers fail, the kinds of run that its number makes due.
REAL = [
    ("minimum attacks no longer minimal", "attack.lbfgs", {}, "isce/attacks/spec.py", "minimal=True", "minimal=False"),
    (
        "another class behind a name",
        "objective.contrastive",
        {},
        "isce/losses/__init__.py",
        '": ContrastiveLoss',
        '": CenterLoss',
    ),
    (
        "another network behind a name",
        "network.small-cnn",
        {"train", "attack", "minmax", "explain"},
        "isce/models/registry.py",
        '"small-cnn": SmallCNN',
        '"small-cnn": ResNet18',
    ),
    (
        "a row's own eps doubled",
        "attack",
        {"attack"},
        "isce/attacks/spec.py",
        "else Threat(self.norm, self.eps)",
        "else Threat(self.norm, 2 * self.eps)",
    ),
    (
        "another meaning of white box",
        "attack",
        {"attack"},
        "isce/attacks/spec.py",
        '"own" not in attack.objectives',
        "attack.foreign",
    ),
    (
        "a violated bound not flagged",
        "minmax",
        {"minmax"},
        "isce/runs/session.py",
        'flags["bound violated"] = ',
        "_ = ",
    ),
    (
        "accuracy of the first epoch recorded",
        "train",
        {"train", "attack", "minmax", "explain"},
        "isce/runs/session.py",
        "result.history[-1]",
        "result.history[0]",
    ),
    (
        "another row shown as examples",
        "attack",
        {"attack"},
        "isce/runs/session.py",
        "in reversed(suite.rows) if row.white_box",
        "in suite.rows if row.white_box",
    ),
    (
        "another function under the same name",
        "attack",
        {"attack"},
        "isce/evaluation/flags.py",
        "from isce.attacks.base import Problem, training_loss, untouched",
        (
            "from isce.attacks.base import Problem, untouched\n"
            "from isce.losses.functional import negative_margin\n\n"
            "training_loss = lambda objective: lambda s, y, e: negative_margin(s, y)\n"
        ),
    ),
    (
        "a swapped sign",
        "attack.matched",
        {"attack", "explain"},
        "isce/attacks/ascent.py",
        "scatter_(1, rival, 1.0)",
        "scatter_(1, rival, -1.0)",
    ),
    (
        "eps off by a little",
        "attack.pgd",
        {"attack", "explain"},
        "isce/attacks/foreign/gradient.py",
        "eps=float(problem.threat.eps),\n        eps_iter",
        "eps=0.95 * float(problem.threat.eps),\n        eps_iter",
    ),
    (
        "a dropped restart",
        "attack.search",
        {"attack"},
        "isce/attacks/driver.py",
        "range(spec.restarts)",
        "range(max(1, spec.restarts - 1))",
    ),
    (
        "another purpose of a draw",
        "train",
        {"train", "attack", "minmax", "explain"},
        "isce/training/loop.py",
        '"order"',
        '"starts"',
    ),
    (
        "another normalisation",
        "network.lenet",
        set(),
        "isce/models/base.py",
        "(x - self.mean) / self.std",
        "x - self.mean",
    ),
]


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    for name in ("isce", "experiments", "notebooks", "tests/golden"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("tests/trained.py", "tests/digits.safetensors", "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path / name)
    return tmp_path


def python(copy: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONPATH": f"{copy}:{copy / 'tests'}", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, *arguments]
    return subprocess.run(command, cwd=copy, env=environment, capture_output=True, text=True, check=False)


def golden(copy: Path, part: str) -> subprocess.CompletedProcess[str]:
    test = f"tests/golden/test_golden.py::test_results_are_those_of_the_declared_semantics[{part}]"
    return python(copy, "-m", "pytest", "-q", "-p", "no:cacheprovider", test)


@functools.cache
def before() -> dict[str, str]:
    """The keys of the runs of experiment quick, by the code as it stands."""
    return keys(ROOT)


def keys(copy: Path) -> dict[str, str]:
    done = python(copy, "-c", KEYS)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def edit(copy: Path, file: str, old: str | None, new: str) -> None:
    if old is None:  # rename a module, and its name wherever it stands
        before, after = (Path(name).with_suffix("").as_posix().replace("/", ".") for name in (file, new))
        (copy / file).rename(copy / new)
        for path in (copy / "isce").rglob("*.py"):
            path.write_text(path.read_text().replace(before, after))
        return
    text = (copy / file).read_text()
    assert old in text, f"{old!r} is no longer in {file}: write the edit anew"
    (copy / file).write_text(text.replace(old, new))


@pytest.mark.full
@pytest.mark.parametrize(
    ("part", "file", "old", "new"), [row[1:] for row in HARMLESS], ids=[row[0] for row in HARMLESS]
)
def test_an_edit_that_changes_no_result_is_free(copy, part, file, old, new):
    if "attacks.steps" in new:
        (copy / "isce" / "attacks" / "steps.py").write_text("REACH = 2.5\n")
    edit(copy, file, old, new)
    assert keys(copy) == before()
    done = golden(copy, part)
    assert done.returncode == 0, done.stdout


@pytest.mark.full
@pytest.mark.parametrize(("part", "due", "file", "old", "new"), [row[1:] for row in REAL], ids=[row[0] for row in REAL])
def test_an_edit_that_changes_results_is_seen_and_its_number_makes_the_right_runs_due(copy, part, due, file, old, new):
    edit(copy, file, old, new)
    done = golden(copy, part)
    assert done.returncode == 1, done.stdout
    assert f"results of {part} changed" in done.stdout, done.stdout
    semantics = copy / "isce" / "parameters" / "semantics.py"
    semantics.write_text(semantics.read_text() + f'\nCHANGES.setdefault("{part}", []).append("edited")\n')
    changed = {run for run, key in keys(copy).items() if key != before()[run]}
    assert changed == {run for run in before() if run.split("/")[0] in due}
