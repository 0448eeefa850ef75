"""Reference tables of the book hold every experiment file, with the values that the files resolve to."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from isce.files import ROOT
from isce.report import overview, reference
from isce.runs.experiment import load_experiment

NAMES = sorted(path.stem for path in (ROOT / "experiments").glob("*.yaml"))


def table(name: str, report: Path = ROOT / "nowhere") -> list[dict[str, str]]:
    made = getattr(reference, name)(reference.Files(ROOT, report, lambda path: None))
    return [dict(zip(made.columns, row, strict=True)) for row in made.rows]


@pytest.mark.parametrize("name", ["protocols", "evaluations", "experiments", "effort"])
def test_every_experiment_has_its_rows(name):
    assert sorted({row["experiment"] for row in table(name)}) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_a_run_is_trained_as_the_row_that_speaks_of_it_says(name):
    rows = [row for row in table("protocols") if row["experiment"] == name]
    named = {label: row for row in rows for label in row["objectives"].split(", ")}
    for _, run in load_experiment(name).runs():
        row = named.get(run.label) or named.get("all others") or named["all"]
        assert row["network"] == run.model
        assert int(row["epochs"].split(" ")[0]) == run.epochs
        assert row["optimiser"].split(",")[0] == f"{run.optimizer.name} {run.optimizer.lr:g}"
        assert (row["training"] == "ordinary") == (run.adversarial is None)


def test_weights_by_hand():
    """small-cnn on digits: 3x3 convolutions from 1 to 16, 32 and 64 channels, then 64 maps of 4x4 to 128."""
    convolutions = sum(9 * a * b + b for a, b in ((1, 16), (16, 32), (32, 64)))
    found = {(row["network"], row["data"]): row["weights"] for row in table("networks")}
    assert found["small-cnn", "digits"] == f"{convolutions + 64 * 16 * 128 + 128:,}"


def test_effort_is_what_the_reports_say_and_else_nothing(tmp_path: Path):
    numbers = {"runs": {"text": "7 of 9"}, "hours": {"text": "1.5"}, "machines": {"text": "x86_64"}}
    (tmp_path / "digits").mkdir()
    (tmp_path / "digits" / "numbers.json").write_text(json.dumps(numbers))
    found = {row["experiment"]: (row["runs done"], row["hours"], row["on"]) for row in table("effort", tmp_path)}
    assert found["digits"] == ("7 of 9", "1.5", "x86_64")
    others = {name: cells for name, cells in found.items() if name != "digits"}
    assert all(cells[0].startswith("0 of ") and cells[1:] == ("not run yet", "") for cells in others.values())
    wanted = {row["experiment"]: int(row["runs"]) for row in table("experiments")}
    assert {name: int(cells[0].removeprefix("0 of ")) for name, cells in others.items()} == {
        name: count for name, count in wanted.items() if name != "digits"
    }


def test_what_is_meant_for_a_gpu_is_on_one_page_with_its_cost_and_not_among_what_was_not_run(tmp_path: Path):
    files = reference.Files(ROOT, tmp_path, lambda path: None)
    rows, unrun = overview.gpu(files).rows, overview.unrun(files).rows
    meant = [experiment for experiment in map(load_experiment, NAMES) if experiment.tier == "B"]
    assert {row[0] for row in rows} == {experiment.title for experiment in meant}
    assert {row[0] for row in unrun} == {
        load_experiment(name).title for name in NAMES if name != "quick" and load_experiment(name).tier == "A"
    }
    # 3 objectives, 30 epochs of 45,000 images, 10 steps of the inner attack and the update.
    assert {row[3]: row[2] for row in rows}[
        "make reproduce EXPERIMENT=cifar10-at DEVICE=cuda"
    ] == f"{3 * 30 * 45_000 * 11 / 1e6:.0f}"


def judged(folder: Path, experiment: str, *rows: tuple[str, str, str]) -> None:
    """Write a table of verdicts of a report: claim, what it is about, verdict."""
    path = folder / experiment / "tables" / "verdicts.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps({"columns": ["claim", "of", "verdict"], "rows": [list(row) for row in rows]}))


def test_the_claims_show_the_defences_and_say_not_reproduced_of_the_one_whose_setting_is_not_known(tmp_path: Path):
    one, two = "I-SCE (text, m = 2)", "I-SCE (code)"
    judged(
        tmp_path, "mnist", ("C4 a", one, "contradicted"), ("C8 b", one, "contradicted"), ("C8 b", two, "inconclusive")
    )
    judged(tmp_path, "digits", ("C6 c", one, "not testable"), ("C6 c", two, "not testable"))
    judged(tmp_path, "digits-defences", ("C6 c", one, "contradicted"), ("C6 c", two, "supported"))
    made = overview.claims(reference.Files(ROOT, tmp_path, lambda path: None))
    found = {row[0][:2]: dict(zip(made.columns, row, strict=True)) for row in made.rows}
    assert found["C4"]["MNIST"] == "contradicted"
    assert found["C8"]["MNIST"] == "text, m = 2: not reproduced; code: inconclusive"
    expected = "not testable; against the defences: text, m = 2: contradicted; code: supported"
    assert found["C6"]["digits"] == expected
    assert found["C6"]["MNIST"] == "not asked"
