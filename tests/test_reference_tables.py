"""Reference tables of the book hold every experiment file, with the values that the files resolve to."""

from __future__ import annotations

import sys

import pytest

from isce.config import ROOT
from isce.experiments import load_experiment

sys.path.insert(0, str(ROOT / "book" / "_ext"))
import isce_reference

NAMES = sorted(path.stem for path in (ROOT / "experiments").glob("*.yaml"))


def table(name: str) -> list[dict[str, str]]:
    _, columns, rows = isce_reference.TABLES[name](ROOT, ROOT / "nowhere", lambda path: None)
    assert all(len(row) == len(columns) for row in rows)
    return [dict(zip(columns, row, strict=True)) for row in rows]


@pytest.mark.parametrize("name", ["protocols", "evaluations", "experiments"])
def test_every_experiment_has_its_rows(name):
    assert sorted({row["experiment"] for row in table(name)}) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_a_run_is_trained_as_the_row_that_speaks_of_it_says(name):
    rows = [row for row in table("protocols") if row["experiment"] == name]
    named = {label: row for row in rows for label in row["objectives"].split(", ")}
    for _, run in load_experiment(name).runs():
        row = named.get(run.objective.label) or named.get("all others") or named["all"]
        assert row["network"] == run.model
        assert int(row["epochs"].split(" ")[0]) == run.epochs
        assert row["optimiser"].split(",")[0] == f"{run.optimizer.name} {run.optimizer.lr:g}"
        assert (row["training"] == "ordinary") == (run.adversarial is None)


def test_weights_by_hand():
    """small-cnn on digits: 3x3 convolutions from 1 to 16, 32 and 64 channels, then 64 maps of 4x4 to 128."""
    convolutions = sum(9 * a * b + b for a, b in ((1, 16), (16, 32), (32, 64)))
    found = {(row["network"], row["data"]): row["weights"] for row in table("networks")}
    assert found["small-cnn", "digits"] == f"{convolutions + 64 * 16 * 128 + 128:,}"
