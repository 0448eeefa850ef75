"""Pages of attacks and objectives, made of templates: their examples run, and a new one needs no page by hand."""

from __future__ import annotations

import contextlib
import io
import json
import re
import shutil
import sys
import warnings
from dataclasses import replace
from pathlib import Path

import book_code
import pytest
import torch
import yaml

import isce.losses
from isce.attacks import about, names
from isce.attacks.base import AttackResult
from isce.attacks.spec import AttackSpec
from isce.files import ROOT
from isce.losses.base import LossOptions, Objective
from isce.parameters.attack import Suite, load_suite
from isce.report import attacks as attack_tables
from isce.report import tables
from isce.report.reference import Files
from isce.report.source import Source
from isce.report.write import Report
from isce.runs.experiment import load_experiment

sys.path.insert(0, str(ROOT / "book" / "_ext"))
import isce_pages

ATTACKS, LOSSES = names(), isce.losses.names()
SUITES = sorted(path.stem for path in (ROOT / "experiments" / "suites").glob("*.yaml"))


FILES = Files(ROOT, ROOT / "nowhere", lambda path: None)


@pytest.fixture(scope="module")
def book(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A book of made pages alone; below ``bare`` the same without words, but for rows that only words can give."""
    folder = tmp_path_factory.mktemp("book")
    for place in (folder, folder / "bare"):
        shutil.copytree(ROOT / "book" / "_templates", place / "_templates")
        (place / "reference").mkdir()
    bare = folder / "bare" / "_templates"
    words = yaml.safe_load((bare / "attacks.yml").read_text(encoding="utf-8"))
    (bare / "attacks.yml").write_text(yaml.safe_dump({name: words[name] for name in ("released", "transfer")}))
    (bare / "losses.yml").write_text("{}\n")
    isce_pages.write_pages(folder)
    isce_pages.write_pages(folder / "bare")
    return folder


@pytest.fixture(scope="module")
def source() -> Source:
    """The committed records of MNIST, none of them stale."""
    found = (ROOT / "results" / "mnist").glob("*/*/record.json")
    every = [json.loads(path.read_text(encoding="utf-8")) for path in found]
    keys = {(one["kind"], one["run"]): one["key"] for one in every}
    return Source(load_experiment("mnist"), ROOT / "results", keys)


def run(code: str) -> tuple[dict[str, object], str]:
    """Namespace and output of a page's example."""
    scope: dict[str, object] = {}
    printed = io.StringIO()
    with torch.random.fork_rng(devices=[]), contextlib.redirect_stdout(printed), warnings.catch_warnings():
        torch.manual_seed(0)
        exec(code, scope)
    return scope, printed.getvalue()


@pytest.mark.parametrize("place", ["", "bare"])
@pytest.mark.parametrize("name", ATTACKS)
def test_the_example_of_an_attack_runs_and_is_the_row_that_the_page_shows(book: Path, name: str, place: str):
    row, code = book_code.blocks(book / place / "reference" / "attacks" / f"{name}.md")[-2:]
    (listed,) = Suite(name="mine", rows=yaml.safe_load(row.text)).rows
    scope, printed = run(code.text)
    spec, found = scope["row"], scope["found"]
    assert isinstance(spec, AttackSpec)
    assert isinstance(found, AttackResult)
    assert spec.attack == name
    assert listed.model_dump(exclude={"survivors"}) == spec.model_dump(exclude={"survivors"})
    assert printed == code.output
    assert found.adversarial.shape == (4, 1, 8, 8)


@pytest.mark.parametrize("place", ["", "bare"])
@pytest.mark.parametrize("name", LOSSES)
def test_the_example_of_an_objective_runs_and_its_parameters_build_it(book: Path, name: str, place: str):
    page = book / place / "reference" / "losses" / f"{name}.md"
    text = page.read_text(encoding="utf-8")
    scope, _ = run(book_code.blocks(page)[-1].text)
    objective, loss = scope["objective"], scope["loss"]
    assert isinstance(objective, Objective)
    assert objective.name == name
    assert isinstance(loss, torch.Tensor)
    assert loss.shape == ()
    assert loss.isfinite()
    stated = re.findall(r"^\* `(\w+) = ([^`]+)`", text, flags=re.MULTILINE)
    built = isce.losses.build(name, **{key: eval(value) for key, value in stated})
    assert repr(built) == repr(isce.losses.build(name))
    assert all(f"* `{what}`: {reason}\n" in text for what, reason in objective.exempt.items())
    assert type(objective).matched is Objective.matched, "the margin, as every page says"


def test_every_attack_and_objective_has_words_and_a_place_in_the_table(book: Path):
    for kind, known in (("attacks", ATTACKS), ("losses", LOSSES)):
        words = yaml.safe_load((book / "_templates" / f"{kind}.yml").read_text(encoding="utf-8"))
        assert sorted(words) == known
        assert sorted(path.stem for path in (book / "reference" / kind).glob("*.md")) == known
        table = (book / "reference" / kind / "table.txt").read_text(encoding="utf-8")
        assert sorted(re.findall(r"^\| \[`([\w-]+)`\]", table, flags=re.MULTILINE)) == known


def test_words_of_nothing_are_refused_and_a_page_of_nothing_goes(book: Path, tmp_path: Path):
    shutil.copytree(book / "_templates", tmp_path / "_templates")
    stray = tmp_path / "reference" / "attacks" / "gone.md"
    stray.parent.mkdir(parents=True)
    stray.write_text("# `gone`\n")
    isce_pages.write_pages(tmp_path)
    assert not stray.exists()
    (tmp_path / "_templates" / "attacks.yml").write_text("no-attack: {text: x}\n")
    with pytest.raises(ValueError, match=r"attacks\.yml: no attacks of the name no-attack"):
        isce_pages.write_pages(tmp_path)
    with pytest.raises(ValueError, match="objective 'sce' has no parameter margin"):
        isce_pages.loss_page("sce", {"parameters": {"margin": "x"}})


def test_common_parameters_have_their_defaults():
    text, base = (ROOT / "book" / "reference" / "losses.md").read_text(encoding="utf-8"), Objective()
    stated = dict(re.findall(r"`(\w+) = ([^`\n]+)`", text))
    assert {key: eval(value) for key, value in stated.items()} == {
        key: getattr(base, key) for key in LossOptions.__annotations__
    }
    explained = re.findall(r"^\* `(\w+)`: ", text.partition("## Exemptions")[2], flags=re.MULTILINE)
    assert set(explained) == {key for name in LOSSES for key in isce.losses.build(name).exempt}


def test_what_the_facts_say_of_eps_and_targets_is_what_a_row_may_leave_out():
    for name in ATTACKS:
        stated = dict(attack_tables.facts(FILES, name).rows)
        budget = {"targeted": about(name).targeted == "must"} | ({"step_size": 0.1} if name == "released" else {})
        budget |= {"source": "sce-s1"} if name == "transfer" else {}
        if "row's own" in stated["eps"] and "experiment" not in stated["eps"]:
            with pytest.raises(ValueError, match="give the row norm and eps"):
                AttackSpec(attack=name, **budget)
        else:
            assert AttackSpec(attack=name, **budget).attack == name


def test_every_row_of_every_suite_stands_on_its_attacks_page_and_its_label_tells_the_attack():
    stated = {
        (holder, name, row, threat)
        for name in ATTACKS
        for rows, threat, holders in attack_tables.suites(FILES, name).rows
        for row in rows.split(", ")
        for holder in holders.split(", ")
    }
    rows = [(suite, row) for suite in SUITES for row in load_suite(suite).rows]
    assert stated == {
        (suite, row.attack, row.label, row.threat.label if row.threat else attack_tables.OWN) for suite, row in rows
    }
    for label, attack in {(row.label, row.attack) for _, row in rows}:
        assert [name for name in ATTACKS if tables.is_row_of(name, label)] == [attack]


def test_tables_of_attacks_are_the_table_of_all_taken_apart(source: Source):
    common = (source.experiment, source.cells, "evidence")
    whole = tables.attacks(*common)
    by_row = {(row[0], row[1]): dict(zip(whole.columns[2:], row[2:], strict=True)) for row in whole.rows[:-1]}
    seen = []
    for table in tables.by_attack(*common).values():
        assert "mnist" in table.caption
        for row in table.rows:
            seen.append((row[0], row[1]))
            shown = dict(zip(table.columns[2:], row[2:], strict=True))
            assert shown == {key: by_row[seen[-1]][key] for key in shown}
            assert all(by_row[seen[-1]][key] == "not run" for key in set(by_row[seen[-1]]) - set(shown))
    assert sorted(seen) == sorted(by_row)


def test_records_are_found_where_the_report_has_a_table(source: Source, tmp_path: Path):
    report = Report(source, tmp_path / "mnist")
    for name, table in tables.by_attack(source.experiment, source.cells, "3 training seeds.").items():
        report._write_table(f"attack-{name}", table)
    files = replace(FILES, report=tmp_path)
    every = attack_tables.records(files)
    assert list(every) == ATTACKS
    assert every["jsma"] == (["mnist"], [])
    have, lack = every["pgd"]
    assert have == ["mnist"]
    assert {"digits", "cifar10"} <= set(lack)
    assert {row[0]: row[-1] for row in attack_tables.attacks(files).rows}["jsma"] == "mnist"
    assert {row[-1] for row in attack_tables.attacks(FILES).rows} == {"none"}
