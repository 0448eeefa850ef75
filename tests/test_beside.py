"""Networks of several experiments in one table: each once, with the numbers of its own record."""

from __future__ import annotations

import math
from typing import Any

import pytest
from made_records import record

from isce.report.beside import Beside
from isce.report.source import Source
from isce.runs.experiment import Experiment

COLUMNS = ["clean", "PGD-50 at 0.1", "AutoAttack at 0.1", "worst case at 0.1", "worst case at 0.2"]


def share(accuracy: float | None) -> dict[str, Any]:
    return {"accuracy": accuracy, "n": 1000} | ({} if accuracy is not None else {"why": "it broke"})


def attacked(folder, name: str, run: str, worst: float | None, rows: dict[str, float], **more: Any) -> None:
    rows_of = {row: share(value) for row, value in rows.items()}
    threats = {f"linf@{eps}": {"attacks": rows_of, "worst": share(worst)} for eps in (0.1, 0.2)}
    parameters = {"norm": "linf", "suite": {"rows": [], "survivors_only": False}}
    results = {"clean": share(0.99), "threats": threats} | more
    made = record("attack", run, parameters=parameters, results=results)
    made.save(folder / name / "attack" / run / "record.json")


def source(folder, name: str, objectives: list[dict[str, Any]], eps: list[float], **more: Any) -> Source:
    attack = {"suite": "full", "eps": eps, "main_eps": 0.1, "objectives": None}
    values: dict[str, Any] = {"name": name, "title": "x", "objectives": objectives, "seeds": [0], "attack": attack}
    experiment = Experiment.model_validate(values | more)
    keys = {(kind, run): "" for run, _ in experiment.runs() for kind in ("train", "attack")}
    return Source(experiment, folder, keys)


@pytest.fixture
def pair(tmp_path) -> Beside:
    attacked(tmp_path, "one", "sce-s0", 0.5, {"pgd50-training": 0.75, "autoattack": 0.6})
    attacked(tmp_path, "one", "mmc-s0", None, {"pgd50-training": 0.7})
    attacked(tmp_path, "two", "sce-s0", 0.1, {"pgd50-training": 0.1})  # the same training: the first counts
    attacked(tmp_path, "two", "center-s0", 0.9, {"pgd50-training": 0.95})
    attacked(tmp_path, "two", "sce-detector-s0", 1.0, {"pgd50-training": 1.0}, rejection={"clean_rejected": share(0.1)})
    attacked(tmp_path, "two", "triplet-s0", 1.0, {"fgsm-training": 1.0})
    record("train", "lgm-s0", flags={"diverged": "at once"}).save(tmp_path / "two" / "train" / "lgm-s0" / "record.json")
    detector = {"name": "sce", "defence": {"name": "detector"}}
    two = [{"name": "sce"}, {"name": "center"}, detector, {"name": "triplet"}, {"name": "lgm"}]
    first = source(tmp_path, "one", [{"name": "sce"}, {"name": "mmc"}], [0.1, 0.2, 0.3])
    return Beside([first, source(tmp_path, "two", two, [0.1, 0.2])])


def test_each_network_has_one_row_with_the_numbers_of_its_record(pair):
    table = pair.table()
    assert table.columns[-5:] == COLUMNS  # the eps that both have
    rows = {(row[0], row[1]): row[-5:] for row in table.rows}
    assert rows == {
        ("sce", "one"): ["99.0", "75.0", "60.0", "50.0", "50.0"],
        ("mmc", "one"): ["99.0", "70.0", "not run", *["not evaluated: it broke"] * 2],
        ("center", "two"): ["99.0", "95.0", "not run", "90.0", "90.0"],
        ("lgm", "two"): ["training diverged"] * 5,
    }
    assert "two/attack/center-s0/record.json" in table.sources
    assert not [name for name in table.sources if "detector" in name or "two/attack/sce-" in name]


@pytest.mark.parametrize("changed", [{"epochs": 9}, {"batch_size": 32}, {"optimizer": {"weight_decay": 0.1}}])
def test_the_same_loss_trained_otherwise_is_another_network(tmp_path, changed):
    for name in ("one", "two"):
        attacked(tmp_path, name, "sce-s0", 0.5, {"pgd50-training": 0.75})
    objectives = [{"name": "sce"}]
    longer = source(tmp_path, "two", objectives, [0.1], training=changed)
    rows = Beside([source(tmp_path, "one", objectives, [0.1]), longer]).table().rows
    assert [row[1] for row in rows] == ["one", "two"]


def test_the_figure_goes_by_falling_worst_case_and_says_every_mean(pair):
    plot = pair.plot()
    assert plot.alt.startswith("A row of dots for each loss. Mean worst case: center loss: 90%; SCE: 50%; MMC: ")
    names = [text.get_text() for text in plot.figure.axes[0].get_yticklabels()]
    assert names == ["center loss", "SCE", "MMC"]
    drawn = [line.get_xdata() for line in plot.figure.axes[0].lines]
    assert any(math.isnan(float(values[0])) for values in drawn if len(values)), "what failed is no dot"


def test_a_stale_record_of_another_experiment_marks_the_table(tmp_path):
    attacked(tmp_path, "one", "sce-s0", 0.5, {"pgd50-training": 0.75})
    attacked(tmp_path, "two", "center-s0", 0.9, {"pgd50-training": 0.95})
    objectives = [{"name": "sce"}]
    one, two = source(tmp_path, "one", objectives, [0.1]), source(tmp_path, "two", [{"name": "center"}], [0.1])
    other = Source(two.experiment, tmp_path, {("attack", "center-s0"): "another key"})
    for company, stale in ((two, False), (other, True)):
        first = Source(one.experiment, tmp_path, one.keys, [company])
        table = Beside([first, *first.beside]).table()
        assert first.origin(table.kinds, table.sources)["stale"] is stale


def test_an_experiment_is_not_beside_itself(tmp_path):
    with pytest.raises(ValueError, match="got 'one' itself"):
        source(tmp_path, "one", [{"name": "sce"}], [0.1], beside=["one"])
