"""An accuracy that was not evaluated is a number nowhere: tables, plots, claims and comparisons say why."""

from __future__ import annotations

import json
import math
import sys
from types import SimpleNamespace

import made_records
import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from isce.attacks.spec import AttackSpec
from isce.evaluation import Evaluation, Examples, Outcome
from isce.files import ROOT
from isce.parameters.attack import AttackParameters, Suite
from isce.report import claims, curves, tables
from isce.report.cells import Cells, NotEvaluatedError, cells, mean
from isce.report.chooser import chooser
from isce.report.compare import compare_cells
from isce.report.differences import SUPPORTED, UNTESTABLE
from isce.report.key import Key
from isce.report.source import Source
from isce.report.verdicts import verdicts as judged_table
from isce.runs import execution
from isce.runs import session as notebook
from isce.runs.experiment import Experiment
from isce.runs.records import MASKS, Record, read

N, SEEDS, EPS = 40, (0, 1), (0.1, 0.3)
WHY = "pgd50-training: ValueError: no (no outcome for 10 of 40 images)"
TEXT = f"not evaluated: seed 1: {WHY}"
LABELS = ("sce", "isce-m2", "center")


def experiment() -> Experiment:
    attack = {"suite": "full", "eps": list(EPS), "main_eps": 0.1}
    attack["curves"] = {"images": N, "convergence_eps": 0.1, "convergence_steps": [1, 2]}
    values = {"name": "made-up", "title": "Made up", "training": {"dataset": "mnist"}, "seeds": list(SEEDS)}
    objectives = [{"name": "sce"}, {"name": "isce", "params": {"inference": 2.0}}, {"name": "center"}]
    return Experiment.model_validate(values | {"objectives": objectives, "attack": attack})


def outcome(broken: int, attacked: int = N, error: str = "") -> Outcome:
    """A row that broke the first images, and was run on the last ones, or on all."""
    place, none = np.arange(N), np.zeros(N, dtype=bool)
    given = (none | True, (place < broken) | (place >= N - attacked), place < broken, none, place < broken, none)
    return Outcome(*given, first_success=np.full(N, -1), error=error)


def evaluation(failed: bool = False) -> Evaluation:
    first = outcome(20, 10, "ValueError: no") if failed else outcome(20)
    rows = {
        "linf@0.1": {"pgd50-training": first, "pgd50-matched": outcome(15)},
        "linf@0.3": {"pgd50-training": outcome(30), "pgd50-matched": outcome(25)},
    }
    return Evaluation(np.ones(N, dtype=bool), rows, N)


def record(run: str, failed: bool = False) -> Record:
    share = {"accuracy": 0.5, "correct": 20, "n": N, "low": 0.4, "high": 0.6}
    lost = dict.fromkeys(("accuracy", "correct", "low", "high")) | {"n": N, "why": WHY} if failed else share
    zero = dict.fromkeys(("accuracy", "correct", "low", "high"), 0.0) | {"n": N}
    curves = {
        "sweep": [{"eps": 0.1, **share}, {"eps": 0.2, **(lost if failed else zero)}, {"eps": 0.3, **zero}][
            : 3 if failed else 2
        ],
        "convergence": [{"steps": 1, **share}, {"steps": 2, **lost}],
    }
    parameters = {"norm": "linf", "suite": {"rows": [], "survivors_only": False}}
    results = evaluation(failed).results() | {"curves": curves}
    return made_records.record("attack", run, parameters=parameters, results=results)


RECORDS = [record(f"{label}-s{seed}", (label, seed) == ("sce", 1)) for label in LABELS for seed in SEEDS]


@pytest.fixture(scope="module")
def found() -> Cells:
    return Cells([cell for one in RECORDS for cell in cells("", one)], LABELS)


def test_cells_hold_none_and_the_reason(found):
    lost = {str(cell.key): cell.why for cell in found.all if cell.accuracy is None}
    assert lost == {f"{kind}@0.1": WHY for kind in ("attack:pgd50-training", "own", "worst")}
    with pytest.raises(NotEvaluatedError, match=r"^not evaluated: seed 1: pgd50-training: ValueError: no"):
        mean(found.get("sce", Key.at("worst", 0.1)))
    assert all(mean(found.get(label, Key.at("worst", 0.3))) == 0.25 for label in ("sce", "center"))


def test_tables_say_why(found):
    made = experiment()
    rows = tables.results(made, found, "").rows
    assert [row[2:] for row in rows if row[0] == "sce"] == [[TEXT, TEXT]]
    assert all(row[3].startswith("50.0 [") for row in rows if row[0] != "sce")
    rows = tables.sweep(made, found, "").rows
    assert [TEXT in row for row in rows] == [True, False, False]
    rows = tables.attacks(made, found, "").rows
    assert {row[0]: row[3] == TEXT for row in rows} == {
        "pgd50-training": True,
        "pgd50-matched": False,
        "worst case": True,
    }
    masks = {run: {"linf@0.1": np.arange(N) >= 20} for run in ("sce-s0", "isce-m2-s0", "center-s0", "center-s1")}
    rows = tables.pairs(made, masks, found, "").rows
    assert rows == [[label, TEXT, "", ""] for label in ("isce-m2", "center")]


def test_figures_have_a_gap_and_say_so(found):
    plot = curves.robust(experiment(), found, "")
    assert f"Gaps: worst case of SCE at eps 0.1 {TEXT}; training loss of SCE at eps 0.1 {TEXT}." in plot.caption
    lines = {line.get_label(): list(line.get_ydata()) for line in plot.figure.axes[0].lines}
    assert [math.isnan(value) for value in lines["SCE"]] == [False, True, False]
    assert lines["center loss"] == [100.0, 50.0, 25.0]
    assert plot.alt.endswith("SCE: not evaluated, not evaluated; I-SCE (text, m = 2): 50%, 50%; center loss: 50%, 50%.")
    plots = curves.curves(experiment(), RECORDS, list(LABELS))
    assert plots["convergence"].caption.endswith(f"Gaps: sce-s1 not evaluated: {WHY}; sce-s1 not evaluated: {WHY}.")
    lines = {line.get_label(): list(line.get_ydata()) for line in plots["sweep"].figure.axes[0].lines}
    assert [math.isnan(value) for value in lines["SCE"]] == [False, True, False], "nor is it filled from its neighbours"
    assert lines["center loss"] == [50.0, 0.0]
    lines = {line.get_label(): list(line.get_ydata()) for line in plots["convergence"].figure.axes[0].lines}
    assert [math.isnan(value) for value in lines["SCE"]] == [False, True]


def test_the_interactive_figure_has_a_text_in_the_numbers_place(found):
    chosen = chooser(experiment(), found, "")
    json.dumps(chosen, allow_nan=False)
    at = {(attack["name"], one["threat"]): one["results"][0] for attack in chosen["attacks"] for one in attack["at"]}
    assert {place for place, results in at.items() if results == TEXT} == {
        (name, "linf, eps 0.1") for name in ("worst case", "training loss", "PGD-50 on the training loss")
    }
    assert all(isinstance(results, list) for results in at.values() if results != TEXT)


def test_claims_about_it_can_t_be_tested(found):
    judge = claims.Judge(experiment(), found, [])
    verdicts = {verdict.claim: verdict for verdict in judge.verdicts()}
    assert {name for name, verdict in verdicts.items() if verdict.ours == TEXT} == {"C4", "C6", "C8"}
    assert all(verdicts[name].verdict == UNTESTABLE for name in ("C4", "C6", "C8"))
    assert verdicts["C2"].verdict == SUPPORTED, "at the larger eps all was evaluated"
    assert judged_table(judge, "")


def test_numbers_of_sentences_are_texts(found, tmp_path, monkeypatch):
    for one in RECORDS:
        one.save(tmp_path / "made-up" / "attack" / one.run / "record.json")
    source = Source(experiment(), tmp_path, {("attack", one.run): "" for one in RECORDS})
    numbers = source.numbers()
    json.dumps(numbers, allow_nan=False)
    number = numbers["sce.worst@0.1"]
    assert (number["value"], number["text"]) == (None, TEXT)
    assert numbers["sce.worst@0.3"]["text"] == "25.0%"
    each = {name: one["value"] for name, one in numbers.items() if name.startswith("sce-s")}
    by_seed = {name: value for name, value in each.items() if name.endswith(".worst@0.3")}
    assert len(by_seed) == len([one for one in RECORDS if one.run.startswith("sce-s")]) > 1
    assert sum(by_seed.values()) / len(by_seed) == pytest.approx(numbers["sce.worst@0.3"]["value"])
    assert None in [value for name, value in each.items() if name.endswith(".worst@0.1")]
    (tmp_path / "report" / "made-up").mkdir(parents=True)
    (tmp_path / "report" / "made-up" / "numbers.json").write_text(json.dumps(numbers))
    monkeypatch.setattr(sys, "path", [str(ROOT / "book" / "_ext"), *sys.path])
    from isce_book import RecordRole

    role = RecordRole()
    config = SimpleNamespace(isce_report=str(tmp_path / "report"))
    env = SimpleNamespace(config=config, note_dependency=lambda _: None)
    inliner = SimpleNamespace(document=SimpleNamespace(settings=SimpleNamespace(env=env)))
    role.inliner = inliner  # pyright: ignore[reportAttributeAccessIssue]
    role.text = role.rawtext = "made-up/sce.worst@main"
    (node,), _ = role.run()
    assert node.astext() == TEXT
    assert "isce-not-run" in node["classes"]


def test_side_files_call_no_image_robust_that_may_not_be(tmp_path):
    parameters = AttackParameters(checkpoint="", suite=Suite(name="s", rows=[AttackSpec(attack="fgsm")]), eps=[0.1])
    none = torch.zeros(0, 1, 2, 2)
    shown = Examples(torch.arange(0), none, none, torch.arange(0), torch.zeros(0, 4))
    context, data = notebook.Context(folder=str(tmp_path), device="cpu"), SimpleNamespace(sha256="")
    notebook.write_attack_record(parameters, context, evaluation(failed=True), data, shown, {}, {})
    assert set(load_file(tmp_path / MASKS)) == {"clean", "linf@0.3"}
    assert read(tmp_path / "record.json").results["threats"]["linf@0.1"]["worst"]["why"] == WHY
    assert not evaluation(failed=True).robust("linf@0.1")[20:30].any()


def test_it_agrees_with_nothing():
    ours, theirs = ([one for one in RECORDS if one.run == run] for run in ("sce-s1", "sce-s1"))
    rows = {row["key"]: row for row in compare_cells(ours, theirs)}
    worst = rows["worst@0.1"]
    assert (worst["ours"], worst["committed"], worst["agrees"]) == (None, None, False)
    assert worst["why"] == f"ours not evaluated: {WHY}; committed not evaluated: {WHY}"
    assert rows["worst@0.3"]["agrees"]
    assert not rows["worst@0.3"]["why"]


def test_a_run_says_it_in_its_line_and_in_its_notebook():
    line = execution._headline(RECORDS[1])
    assert line == f"clean 100.0%, worst case linf@0.1 not evaluated: {WHY}, linf@0.3 25.0%"
    table = notebook.accuracy_table(evaluation(failed=True))
    assert table.loc["worst case", "linf@0.1"] == f"not evaluated: {WHY}"
    assert table.loc["worst case", "linf@0.3"].startswith("25.0 [")
    curve = notebook.curve_table(RECORDS[1].results["curves"])
    assert curve["why"].tolist()[-1] == f"not evaluated: {WHY}"
    assert curve["accuracy"].isna().tolist() == [False, True, False, False, True]
