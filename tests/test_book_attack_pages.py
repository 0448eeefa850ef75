"""The reference pages of the attacks: one for each, facts of the registry, figures of the records, code that runs."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import re
import sys
import warnings
from pathlib import Path

import book_code
import pytest
import torch
import yaml

from isce.attacks import about, names
from isce.attacks.base import AttackResult
from isce.attacks.spec import AttackSpec
from isce.files import ROOT
from isce.parameters.attack import Suite, load_suite
from isce.report import rows as attack_rows
from isce.report import write as report
from isce.runs.experiment import load_experiment

sys.path.insert(0, str(ROOT / "book" / "_ext"))
import isce_attacks

BOOK = ROOT / "book"
PAGES = BOOK / "reference" / "attacks"
NAMES = names()
SUITES = sorted(path.stem for path in (ROOT / "experiments" / "suites").glob("*.yaml"))
TEXT = {name: (PAGES / f"{name}.md").read_text(encoding="utf-8") for name in NAMES}


def ignore(path: Path) -> None:
    """Notes no dependency."""


@pytest.fixture(scope="module")
def mnist(tmp_path_factory) -> Path:
    """The report of the committed records of MNIST, tables alone."""
    out = tmp_path_factory.mktemp("report")
    known = report.Report(load_experiment("mnist"), ROOT / "results", keys("mnist"))
    common = (known.experiment, known.cells, "1,000 test images, 3 training seeds.")
    for name, table in attack_rows.by_attack(*common).items():
        known._table(out / "mnist", f"attack-{name}", *table)
    return out


def keys(experiment: str) -> dict[tuple[str, str], str]:
    """Those of the committed records, so that none counts as stale."""
    found = (ROOT / "results" / experiment).glob("*/*/record.json")
    every = [json.loads(path.read_text(encoding="utf-8")) for path in found]
    return {(one["kind"], one["run"]): one["key"] for one in every}


def test_a_page_for_each_attack_in_the_table_of_contents_and_no_other():
    toc = (BOOK / "_toc.yml").read_text(encoding="utf-8")
    assert sorted(path.stem for path in PAGES.glob("*.md")) == NAMES
    assert sorted(re.findall(r"file: reference/attacks/(\S+)", toc)) == NAMES
    assert "file: reference/attacks\n" in toc


@pytest.mark.parametrize("name", NAMES)
def test_a_page_names_its_attack_and_shows_its_tables(name: str):
    assert re.match(rf"# `{name}`: \S", TEXT[name])
    for directive in ("facts", "suites", "left"):
        assert re.findall(rf"{{attack-{directive}}} (\S+)", TEXT[name]) == [name]


@pytest.mark.parametrize("name", NAMES)
def test_page_and_section_of_the_family_lead_to_each_other(name: str):
    """The section's label stands above its heading, and the page cites what the section cites."""
    (family,) = (path for path in (BOOK / "attacks").glob("*.md") if f"(attack-{name})=" in path.read_text("utf-8"))
    text = family.read_text(encoding="utf-8")
    section = re.split(rf"^\(attack-{name}\)=\n", text, flags=re.MULTILINE)[1]
    assert re.match(rf"## .*`{name}`\n", section)
    assert f"(../reference/attacks/{name}.md)" in section.partition("\n## ")[0]
    assert f"<attack-{name}>`" in TEXT[name]
    assert f"(fails-{family.stem})=\n## When" in text
    assert f"<fails-{family.stem}>`" in TEXT[name]
    cited = {key for keys in re.findall(r"{cite(?::t)?}`([^`]+)`", TEXT[name]) for key in keys.split(",")}
    assert cited
    other = {"song2021isce"}  # the released script's authors
    assert cited <= other | {key for keys in re.findall(r"{cite(?::t)?}`([^`]+)`", text) for key in keys.split(",")}


@pytest.mark.parametrize("name", NAMES)
def test_facts_are_those_of_the_registry(name: str):
    _, columns, rows = isce_attacks.facts(name)
    stated, known = dict(rows), about(name)
    assert columns == ["fact", name]
    assert stated["module"] == known.module
    assert (stated["its loop is run by"] != "isce") == known.foreign
    assert stated["threat models"].split(", ") == list(known.norms)
    assert (stated["restarts"] != "no") == known.random
    assert (stated["steps"] == "yes") == known.steps
    parameters = (
        {}
        if stated["further parameters"] == "none"
        else dict(re.findall(r"(\w+) = (\S+?)(?:,|$)", stated["further parameters"]))
    )
    assert {key: float(value) for key, value in parameters.items()} == dict(known.params)
    if known.objectives != ("own",):
        assert stated["ascends"].replace(" (default)", "").split(", ") == list(known.objectives)


def test_what_the_facts_say_of_eps_and_targets_is_what_a_row_may_leave_out():
    for name in NAMES:
        stated = dict(isce_attacks.facts(name)[2])
        budget = {"targeted": about(name).targeted == "must"} | ({"step_size": 0.1} if name == "released" else {})
        budget |= {"source": "sce-s1"} if name == "transfer" else {}
        if "row's own" in stated["eps"] and "experiment" not in stated["eps"]:
            with pytest.raises(ValueError, match="give the row norm and eps"):
                AttackSpec(attack=name, **budget)
        else:
            assert AttackSpec(attack=name, **budget).attack == name


def test_scores_alone_are_what_the_flags_call_black_box_and_gradients_the_rest():
    found = {name: isce_attacks.needs(name) for name in NAMES}
    assert {name for name, text in found.items() if text == "scores alone"} == {
        name for name in NAMES if about(name).black_box
    }
    assert [name for name, text in found.items() if text == isce_attacks.SOURCE] == ["transfer"]


def test_every_row_of_every_suite_stands_on_its_attacks_page_and_no_other():
    stated = {
        (holder, name, row, threat)
        for name in NAMES
        for rows, threat, holders in isce_attacks.suites(name, ROOT, ignore)[2]
        for row in rows.split(", ")
        for holder in holders.split(", ")
    }
    assert stated == {
        (suite, row.attack, row.label, row.threat.label if row.threat else isce_attacks.OWN)
        for suite in SUITES
        for row in load_suite(suite).rows
    }


def test_a_rows_label_tells_its_attack_and_no_other():
    for row in {row.label: row for suite in SUITES for row in load_suite(suite).rows}.values():
        assert [name for name in NAMES if attack_rows.is_row_of(name, row.label)] == [row.attack]


def test_tables_of_attacks_are_the_table_of_all_taken_apart():
    known = report.Report(load_experiment("mnist"), ROOT / "results", keys("mnist"))
    common = (known.experiment, known.cells, "evidence")
    columns, whole, _ = attack_rows.attacks(*common)
    parts = attack_rows.by_attack(*common)
    by_row = {(row[0], row[1]): dict(zip(columns[2:], row[2:], strict=True)) for row in whole[:-1]}
    seen = []
    for header, rows, caption in parts.values():
        assert "mnist" in caption
        for row in rows:
            seen.append((row[0], row[1]))
            shown = dict(zip(header[2:], row[2:], strict=True))
            assert shown == {key: by_row[seen[-1]][key] for key in shown}
            missing = set(by_row[seen[-1]]) - set(shown)
            assert all(by_row[seen[-1]][key] == "not run" for key in missing)
    assert sorted(seen) == sorted(by_row)


def test_records_are_found_where_the_report_has_a_table(mnist: Path):
    every = isce_attacks.records(ROOT, mnist, ignore)
    assert list(every) == NAMES
    assert every["jsma"] == (["mnist"], [])
    have, lack = every["pgd"]
    assert have == ["mnist"]
    assert {"digits", "cifar10"} <= set(lack)
    rows = {row[0]: row for row in isce_attacks.attacks(ROOT, mnist, ignore)[2]}
    assert list(rows) == NAMES
    assert rows["jsma"][-1] == "mnist"
    none = {row[0]: row[-1] for row in isce_attacks.attacks(ROOT, ROOT / "nowhere", ignore)[2]}
    assert set(none.values()) == {"none"}
    with (mnist / "mnist" / "tables" / "attack-jsma.csv").open(encoding="utf-8", newline="") as opened:
        header, *lines = csv.reader(opened)
    assert header[:3] == ["row", "threat", "images"]
    assert {line[0] for line in lines} == {"jsma-targeted", "jsma-targeted (target hit)"}


@pytest.mark.parametrize("name", NAMES)
def test_example_runs_and_is_the_row_that_the_page_shows(name: str):
    row, code = book_code.blocks(PAGES / f"{name}.md")[-2:]
    assert (row.language, code.language) == ("yaml", "python")
    (listed,) = Suite(name="mine", rows=yaml.safe_load(row.text)).rows
    scope: dict[str, object] = {}
    printed = io.StringIO()
    with torch.random.fork_rng(devices=[]), contextlib.redirect_stdout(printed), warnings.catch_warnings():
        torch.manual_seed(0)
        exec(code.text, scope)
    spec, found = scope["row"], scope["found"]
    assert isinstance(spec, AttackSpec)
    assert isinstance(found, AttackResult)
    assert spec.attack == name
    assert listed.model_dump(exclude={"survivors"}) == spec.model_dump(exclude={"survivors"})
    assert spec.threat is None or f'Threat("{spec.threat.norm}", {spec.threat.eps:g}' in code.text
    assert printed.getvalue() == code.output
    assert found.adversarial.shape == (4, 1, 8, 8)
