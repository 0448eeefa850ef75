"""Severities of red flags: which reach a caption, and that every flag has an answer."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

from docutils import nodes
from made_records import record
from sphinx.addnodes import pending_xref

from isce.files import ROOT
from isce.parameters.attack import load_suite
from isce.report import flags
from isce.report.reference import Files
from isce.report.source import Source
from isce.runs.experiment import Experiment, load_experiment

NOTES = {"own-loss-misleads", "last-worse-than-best", "rejected-points", "no bound"}


def test_every_flag_of_the_page_has_a_severity_and_an_answer():
    page = (ROOT / "book" / "attacks" / "flags.md").read_text(encoding="utf-8")
    assert set(re.findall(r"^### `(.+)`$", page, flags=re.MULTILINE)) == set(flags.FLAGS)
    assert {name for name, flag in flags.FLAGS.items() if flag.severity == flags.NOTE} == NOTES
    assert all(
        flag.severity in (flags.SERIOUS, flags.NOTE) and flag.says and flag.answer for flag in flags.FLAGS.values()
    )
    assert "don't use" not in page.partition("## Flags of an attack run")[0]


def test_captions_count_the_serious_flags_alone():
    noted = record("attack", "sce-s0", flags=dict.fromkeys(sorted(NOTES), "x"))
    failed = record("attack", "sce-s1", flags={"not-converged": "a", "own-loss-misleads": "b"})
    unknown = record("train", "sce-s1", flags={"of-tomorrow": "c"})
    assert flags.attention([noted]) == ""
    assert flags.attention([noted, failed]) == " 1 check needs attention."
    assert flags.attention([unknown, noted, failed]) == " 2 checks need attention."
    assert flags.serious([noted, failed]) == ["attack sce-s1: not-converged (a)"]


def test_the_caption_of_an_experiment_has_them(tmp_path: Path):
    clean = {"clean": {"accuracy": 0.5, "n": 10}, "threats": {}}
    parameters = {"norm": "linf", "suite": {"rows": [], "survivors_only": False}}
    for run, raised in (("sce-s0", {"own-loss-misleads": "x"}), ("sce-s1", {"not-converged": "x"})):
        made = record("attack", run, results=clean, parameters=parameters, flags=raised)
        made.save(tmp_path / "made-up" / "attack" / run / "record.json")
    attack = {"suite": "full", "eps": [0.1], "main_eps": 0.1}
    values = {"name": "made-up", "title": "x", "objectives": [{"name": "sce"}], "seeds": [0, 1], "attack": attack}
    experiment = Experiment.model_validate(values)
    source = Source(experiment, tmp_path, {("attack", "sce-s0"): "", ("attack", "sce-s1"): ""})
    assert source.evidence().endswith("(the book prints the wider). 1 check needs attention.")
    alone = Source(experiment, tmp_path, {("attack", "sce-s0"): ""})
    assert "attention" not in alone.evidence()


def test_the_table_of_an_experiment_has_the_serious_ones_first():
    records = [record("attack", "a-s0", flags={"own-loss-misleads": "x linf@0.0313725", "zero-gradient": "y"})]
    assert flags.found("made-up", records).rows == [
        ["attack a-s0", "zero-gradient", "serious", "y"],
        ["attack a-s0", "own-loss-misleads", "note", "x linf@8/255"],
    ]


def test_the_page_counts_the_records_of_a_flag(tmp_path: Path):
    for name, rows in (("a", [["attack a-s0", "diverged", "serious", "x"]] * 2), ("b", [["b-s0", "diverged", "", ""]])):
        (tmp_path / name / "tables").mkdir(parents=True)
        about = {"columns": ["run", "flag", "severity", "detail"], "rows": rows}
        (tmp_path / name / "tables" / "flags.json").write_text(json.dumps(about))
    read: list[Path] = []
    table = flags.answers(Files(ROOT, tmp_path, read.append))
    assert {row[0]: row[2] for row in table.rows} == dict.fromkeys(flags.FLAGS, "0") | {"diverged": "3"}
    assert len(read) == 2


def test_suites_attack_the_margin_and_search_without_gradients_as_an_answer_says():
    assert "margin of the raw logits and search without gradients" in flags.FLAGS["zero-gradient"].answer
    for path in (ROOT / "experiments").glob("*.yaml"):
        plans = load_experiment(path.stem).plans if path.stem != "quick" else []
        for plan in (plan for plan in plans if not plan.draws):  # over draws the margin is ascended beside the suite
            rows = load_suite(plan.suite).rows
            assert {"matched", "margin"} & {row.objective for row in rows}, plan.suite
            assert {"search", "spsa"} & {row.attack for row in rows}, plan.suite


def test_checks_of_a_caption_lead_to_the_page_of_flags(monkeypatch):
    monkeypatch.setattr(sys, "path", [str(ROOT / "book" / "_ext"), *sys.path])
    from isce_tables import captioned

    for sentence in ("1 check needs attention", "12 checks need attention"):
        before, link, after = captioned(f"At eps -1. {sentence}.")
        assert (before.astext(), link.astext(), after.astext()) == ("At eps \N{MINUS SIGN}1. ", sentence, ".")
        assert isinstance(link, nodes.inline)
        assert [to["reftarget"] for to in link.findall(pending_xref)] == ["/attacks/flags"]
    assert [node.astext() for node in captioned("Nothing.")] == ["Nothing."]
