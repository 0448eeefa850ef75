"""The interactive figure's JSON: the same results as the tables, and what is said of them is true."""

import json
from dataclasses import replace

import pytest

from isce.files import ROOT
from isce.report import tables
from isce.report.cells import Cell, Cells, cells
from isce.report.chooser import chooser
from isce.report.key import Key
from isce.report.names import reader_name, row_name
from isce.report.plots.runs import looks
from isce.runs.experiment import Experiment, load_experiment
from isce.runs.records import read_all

COMMITTED = sorted(folder.name for folder in (ROOT / "results").iterdir() if (folder / "attack").is_dir())


def experiment(**attack):
    values = {
        "name": "made-up",
        "title": "Made up",
        "objectives": [{"name": "sce"}, {"name": "center"}],
        "seeds": [0, 1],
        "training": {"dataset": "mnist"},
        "attack": {"suite": "full", "eps": [0.1, 0.2], "main_eps": 0.1} | attack,
    }
    return Experiment.model_validate(values)


def made_up(**changes):
    """Two objectives and two seeds; one attack was run on one network alone, and on fewer images."""
    every = [
        Cell(label, Key.parse(key), seed, accuracy, 1000, "record", left="matched" in key)
        for label in ("sce", "center")
        for seed, shift in (("0", 0.0), ("1", 0.02))
        for key, accuracy in (
            ("clean", 0.97 + shift),
            ("attack:pgd@0.1", 0.5 + shift),
            ("attack:matched@0.1", 0.4 + shift),
            ("hit:pgd@0.1", 0.1),
            ("own@0.1", 0.5 + shift),
            ("worst@0.1", 0.4 + shift),
            ("worst@0.2", 0.0),
        )
    ]
    every.append(Cell("sce", Key.parse("attack:jsma@l0@20"), "0", 0.25, 100, "record"))
    return chooser(experiment(**changes), Cells(every, ["sce", "center"]), "evidence")


def at(chosen, name, threat):
    (attack,) = (row for row in chosen["attacks"] if row["name"] == name)
    (found,) = (row for row in attack["at"] if row["threat"] == threat)
    return found


def test_attacks_come_as_in_the_records_after_those_over_several():
    names = [attack["name"] for attack in made_up()["attacks"]]
    assert names == ["worst case", "training loss", "PGD", "adaptive", "JSMA"], (
        "the share of targets hit is no accuracy"
    )


def test_figures_are_mean_wilson_interval_and_spread_over_seeds():
    (mean, low, high, half), other = at(made_up(), "PGD", "linf, eps 0.1")["results"]
    assert (mean, low, high) == (51.0, 47.9, 54.1)
    assert half == pytest.approx(12.7062 * 1.0, abs=0.05), "t of 1 degree of freedom times the standard error"
    assert other == [mean, low, high, half]


def test_what_was_not_run_is_empty_and_counts_are_its_own():
    found = at(made_up(), "JSMA", "l0, eps 20")
    assert found["results"] == [[25.0, 17.5, 34.3], []]
    assert found["on"] == "100 test images, 1 training seed"
    assert at(made_up(), "worst case", "linf, eps 0.2")["on"] == "1,000 test images, 2 training seeds"


def test_it_says_which_attack_had_only_what_was_left():
    chosen = made_up()
    kinds = {attack["name"]: {one["kind"] for one in attack["at"]} for attack in chosen["attacks"]}
    own = {"PGD": {"attack"}, "JSMA": {"attack"}, "adaptive": {"left"}}
    assert kinds == own | {"worst case": {"worst"}, "training loss": {"own"}}
    assert "had left" in chosen["kinds"]["left"][1]
    assert set(chosen["kinds"]) == set().union(*kinds.values())
    assert [{name: one[name] for name in ("color", "marker")} for one in chosen["objectives"]] == list(
        looks(["sce", "center"]).values()
    )


def test_it_says_of_how_many_images_a_row_was_given_what_was_left():
    one = Cell("sce", Key.at("attack", 0.1, "autoattack"), "0", 0.4, 1000, "record", left=True, part=200)
    every = [Cell("sce", Key("clean"), "0", 0.9, 1000, "record"), one]
    every.append(Cell("sce", Key.at("worst", 0.1), "0", 0.4, 1000, "record"))
    found = Cells(every, ["sce"])
    table = tables.attacks(experiment(), found, "")
    assert [row[2] for row in table.rows] == ["1,000, left of 200", "1,000"]
    assert "left of 200" in table.caption
    chosen = chooser(experiment(), found, "evidence")
    on = at(chosen, "AutoAttack", "linf, eps 0.1")["on"]
    assert on == "1,000 test images, given what was left of 200, 1 training seed"
    assert tables.left_of([replace(one, part=None)]) == tables.left_of([replace(one, part=1000)]) == ""


def test_the_part_is_the_one_of_the_records_own_suite():
    """Not of the suite's file, which may have changed since."""
    records = [record for name in COMMITTED for record in read_all(ROOT / "results" / name).values()]
    for record in (record for record in records if record.kind == "attack"):
        rows = record.parameters["suite"]["rows"]
        stated = {row["images"] for row in rows if row["survivors"] and row["images"]}
        assert {cell.part for cell in cells("", record) if cell.part} == stated
        assert all(cell.left for cell in cells("", record) if cell.part)


@pytest.mark.parametrize(
    ("eps", "words"),
    [(0.1, "linf, eps 0.1"), (8 / 255, "linf, eps 8/255 (0.0314)"), (0.0123456, "linf, eps 0.0123456")],
)
def test_the_first_threat_is_the_main_one(eps, words):
    assert made_up(eps=[eps], main_eps=eps)["start"] == words


@pytest.mark.parametrize("name", COMMITTED)
def test_committed_figures_are_those_of_the_tables(name):
    asked = load_experiment(name)
    every = [cell for path, record in read_all(ROOT / "results" / name).items() for cell in cells(str(path), record)]
    found = Cells(every, [objective.label for objective in asked.objectives])
    chosen = chooser(asked, found, "evidence")
    assert len(json.dumps(chosen, allow_nan=False, separators=(",", ":"))) < 60_000
    assert chosen["start"] in [one["threat"] for one in chosen["attacks"][0]["at"]]
    shown = {
        (attack["name"], as_in_tables(one["threat"])): one["results"]
        for attack in chosen["attacks"]
        for one in attack["at"]
    }
    assert len(shown) == len([key for key in found.keys if key.kind not in ("clean", "rejected", "hit")])
    made = tables.attacks(asked, found, "")
    assert [reader_name(label) for label in made.columns[3:]] == [one["label"] for one in chosen["objectives"]]
    table = {
        (row_name(attack), threat): texts
        for attack, threat, _, *texts in made.rows
        if not attack.endswith("(target hit)")
    }
    assert table
    assert {place: [*map(in_words, shown[place])] for place in table} == table


def as_in_tables(threat):
    """A threat's words in the interactive figure as tables say it: ``linf, eps 8/255 (0.0314)`` is ``linf@8/255``."""
    return threat.replace(", eps ", "@").partition(" (")[0]


def in_words(value):
    if not value:
        return "not run"
    mean, low, high, *half = value
    return f"{mean} [{low}, {high}]" + "".join(f" ±{width}" for width in half)
