"""Benchmarks of learning rates and of processors: parameters, tables by hand, rows that are not made again."""

import json
import math
import subprocess
import sys

import pytest

from isce.files import ROOT
from isce.report.plots import tables
from isce.runs.experiment import load_experiment
from isce.training.loop import TrainResult

sys.path.insert(0, str(ROOT / "benchmarks"))
import networks
import processors
import rates


def network(name, rate, seed, left, *, failed=None):
    row = {"network": name, "rate": rate, "seed": seed, "failed": failed, "loss": 0.1}
    if failed:
        return row
    worst = {"0.05": left + 1, "0.1": left, "0.15": left - 1}
    return row | {"sha256": "0", "clean": 9, "worst": worst, "margin": 2.0 + seed, "slope": 10.0}


RATES = {
    "where": {"machine": "hand"},
    "images": 10,
    "eps": rates.EPS,
    "rows": [
        network("sce", 0.01, 0, 7),
        network("sce", 0.01, 1, 8),
        network("isce-m2", 0.01, 0, 5),
        network("isce-m5", 0.01, 0, None, failed="collapsed"),
    ],
}


def test_all_but_loss_and_rate_is_as_in_the_experiment():
    of_experiment = dict(load_experiment("mnist").runs())
    for name, loss in (("sce-s1", rates.LOSSES[0]), ("isce-m2-s1", rates.LOSSES[1]), ("isce-m5-s1", rates.LOSSES[2])):
        assert rates.parameters(loss, of_experiment[name].optimizer.lr, 1) == of_experiment[name]


def test_a_cell_has_all_seeds_and_a_network_that_did_not_train_has_no_accuracy():
    table = networks.rates(RATES)
    sce, isce, failed = (dict(zip(table["columns"], row, strict=True)) for row in table["rows"])
    assert sce["worst case at 0.1"] == "70.0, 80.0"
    assert sce["margin"] == "2, 3"
    assert isce["worst case at 0.15"] == "40.0"
    assert (failed["clean"], failed["worst case at 0.1"], failed["not trained"]) == ("none trained", "", "1")
    assert networks.learnt(RATES) == {
        "images": "10",
        "sce-0.01": "75.0%",
        "sce-0.01-at-0.15": "65.0%",
        "isce-m2-0.01": "50.0%",
        "isce-m2-0.01-at-0.15": "40.0%",
    }


def test_the_figure_has_a_dot_for_each_network_that_trained():
    table = networks.rates(RATES)
    figure = tables.rates(table["columns"], table["rows"])
    for ax in figure.axes:
        dots = [line.get_ydata() for line in ax.lines if line.get_linestyle() == "None"]
        assert sorted(float(y) for ys in dots for y in ys) == [50.0, 70.0, 80.0]


def test_rows_are_not_made_again_and_are_kept_one_by_one(tmp_path, monkeypatch):
    out, asked = tmp_path / "rates.json", []

    def row(run, folder, images):
        asked.append((run.objective.label, run.optimizer.lr, run.seed))
        if len(asked) == 2:
            raise KeyboardInterrupt
        return network(run.objective.label, run.optimizer.lr, run.seed, 6)

    monkeypatch.setattr(rates, "row", row)
    arguments = ["--out", str(out), "--seeds", "0", "--rates", "0.01", "--images", "10"]
    with pytest.raises(KeyboardInterrupt):
        rates.main(arguments)
    assert [r["network"] for r in json.loads(out.read_text())["rows"]] == ["sce"]
    rates.main(arguments)
    assert [name for name, *_ in asked] == ["sce", "isce-m2", "isce-m2", "isce-m5"]
    with pytest.raises(SystemExit):
        rates.main([*arguments, "--images", "20"])


def test_a_network_that_diverges_at_once_has_a_row_without_accuracy(tmp_path, monkeypatch):
    ended = TrainResult(history=[], best_epoch=None, seconds=1.0, diverged="loss is nan", collapsed=None, resumed=0)
    monkeypatch.setattr(rates, "train", lambda run, folder: folder.mkdir() or ended)
    run = rates.parameters(rates.LOSSES[0], 100.0, 0)
    about = {"network": "sce", "rate": 100.0, "seed": 0, "failed": "loss is nan", "loss": None}
    assert rates.row(run, tmp_path / "net", 10) == about
    assert rates.row(run, tmp_path / "net", 10) == about  # from its file


def place(processor, threads, seed, left, bits="a"):
    return {"processor": processor, "threads": threads, "seed": seed, "sha256": bits, "images": 200, "left": left}


def test_scatter_by_hand():
    rows = [place("A", 1, 0, 100), place("B", 1, 0, 104, "b"), place("A", 1, 1, 120), place("B", 1, 1, 120)]
    found = {"where": {"machine": "hand"}, "eps": 0.1, "rows": rows}
    # Over seeds: variances of (50, 60) and (52, 60) per cent, 50 and 32; over processors: of (50, 52), 2, and 0.
    texts = networks.scatter(found)
    assert texts["seeds"] == f"{math.sqrt(41):.1f}"
    assert texts["processors"] == f"{math.sqrt(1):.1f}"
    assert (texts["networks"], texts["places"], texts["largest"]) == ("2", "2", "2.0")
    first, other = networks.processors(found)["rows"]
    assert first == ["A", "1", "55.0", f"{math.sqrt(50):.1f}", "50.0 to 60.0", "2 of 2", "0.0"]
    assert other[5:] == ["1 of 2", "2.0"]


def test_each_network_is_made_in_a_process_that_looks_like_its_processor(tmp_path, monkeypatch):
    calls = []

    def run(command, *, env, **_):
        seed = int(command[-2])
        calls.append((env.get("DNNL_MAX_CPU_ISA"), env["OMP_NUM_THREADS"], seed))
        made = {"seed": seed, "sha256": "0", "images": 10, "clean": 10, "left": 5}
        return subprocess.CompletedProcess(command, 0, stdout=json.dumps(made))

    monkeypatch.delenv("DNNL_MAX_CPU_ISA", raising=False)
    monkeypatch.setattr(processors.subprocess, "run", run)
    arguments = ["--out", str(tmp_path / "processors.json"), "--seeds", "2"]
    processors.main(arguments)
    assert len(calls) == len(set(calls)) == 2 * len(processors.PROCESSORS) * len(processors.THREADS)
    assert {isa for isa, *_ in calls} == {None, "SSE41", "AVX2", "AVX512_CORE"}
    processors.main(arguments)
    assert len(calls) == 2 * len(processors.PROCESSORS) * len(processors.THREADS)


def test_a_network_of_digits_is_trained_and_attacked(monkeypatch):
    experiment = load_experiment("digits")
    short = {name: run.model_copy(update={"epochs": 1, "train_images": 100}) for name, run in experiment.runs()}
    monkeypatch.setattr(type(experiment), "runs", lambda self: iter(short.items()))
    found = processors.outcome(3, 1)
    assert 0 <= found["left"] <= found["clean"] <= found["images"]
    assert found["seed"] == 3
