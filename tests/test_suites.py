"""Suites as data: includes, whom a row attacks, and rows with a threat model of their own."""

from __future__ import annotations

import pytest
import yaml

from isce.evaluation import evaluate
from isce.files import ROOT
from isce.losses import build
from isce.parameters.attack import AttackParameters, Suite, load_suite
from isce.strict import ConfigError


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "experiments" / "suites").mkdir(parents=True)

    def write(name, rows, **more):
        path = tmp_path / "experiments" / "suites" / f"{name}.yaml"
        path.write_text(yaml.safe_dump({"name": name, "rows": rows, **more}))
        return tmp_path

    return write


def test_an_included_suite_keeps_whom_it_attacks(folder):
    folder("all", [{"attack": "fgsm"}, {"attack": "pgd", "steps": 2, "survivors": True}])
    folder("left", [{"include": "all"}, {"attack": "bim", "steps": 2}], survivors_only=True)
    root = folder("top", [{"include": "left"}, {"attack": "mim", "steps": 2}])
    rows = load_suite("top", root).rows
    assert [row.attack for row in rows] == ["fgsm", "pgd", "bim", "mim"]
    assert [row.survivors for row in rows] == [False, True, True, False]


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ([{"include": "nonesuch"}], "unknown suite 'nonesuch'; known: other, top"),
        ([{"include": "top"}], "includes itself: top -> top"),
        ([{"include": "other"}], "includes itself: top -> other -> top"),
        ([{"include": "other", "steps": 3}], "include has no place for steps"),
    ],
)
def test_an_include_that_cannot_be_followed(folder, rows, words):
    folder("other", [{"include": "top"}])
    root = folder("top", rows)
    with pytest.raises(ConfigError, match=words):
        load_suite("top", root)


@pytest.mark.parametrize("path", sorted((ROOT / "experiments" / "suites").glob("*.yaml")), ids=lambda path: path.stem)
def test_suites_of_the_project_load(path):
    assert load_suite(path.stem).rows


def parameters(*rows, **more):
    return AttackParameters(checkpoint="none", suite=Suite(name="s", rows=list(rows)), **({"eps": [0.1]} | more))


def test_a_row_must_fit_the_norm_or_have_its_own():
    cw = {"attack": "cw", "steps": 5}
    assert parameters(cw, norm="l2", eps=[1.0]).suite.rows[0].threat is None
    assert parameters(cw | {"norm": "l2", "eps": 1.0}).suite.rows[0].threat is not None
    with pytest.raises(ValueError, match="cw5 doesn't work in linf: give the row norm and eps"):
        parameters(cw)
    with pytest.raises(ValueError, match="l2 is the evaluation's own norm: give its eps in the grid"):
        parameters(cw | {"norm": "l2", "eps": 1.0}, norm="l2", eps=[1.0])


def test_rows_of_their_own_threat_models_stand_apart(digits_target):
    x, y, classifier = digits_target
    rows = [
        {"attack": "bim", "steps": 3},
        {"attack": "jsma", "targeted": True, "norm": "l0", "eps": 20.0},
        {"attack": "jsma", "targeted": True, "norm": "l0", "eps": 2.0},
        {"attack": "released", "steps": 3, "step_size": 0.1},
    ]
    found = evaluate(classifier, build("sce"), x, y, parameters(*rows, eps=[0.01]), progress=False)
    assert list(found.outcomes) == ["linf@0.01", "l0@2", "l0@20", "released"]
    worst = {threat: outcome["worst"]["correct"] for threat, outcome in found.results()["threats"].items()}
    assert worst["l0@20"] < worst["l0@2"] <= int(found.clean.sum())
    alone = evaluate(classifier, build("sce"), x, y, parameters(rows[0], eps=[0.01]), progress=False)
    assert (alone.robust("linf@0.01") == found.robust("linf@0.01")).all()


def test_a_row_on_some_images_counts_over_those(digits_target):
    x, y, classifier = digits_target
    rows = [{"attack": "bim", "steps": 3, "images": 20}, {"attack": "pgd", "steps": 3, "targeted": True}]
    found = evaluate(classifier, build("sce"), x, y, parameters(*rows, eps=[0.2]), progress=False)
    cells = found.results()["threats"]["linf@0.2"]["attacks"]
    assert cells["bim3-training"]["n"] == 20
    assert cells["bim3-training"]["attacked"] <= 20
    asked = found.outcomes["linf@0.2"]["bim3-training"].asked
    assert found.results()["threats"]["linf@0.2"]["worst"]["n"] == 100
    few = evaluate(classifier, build("sce"), x, y, parameters(rows[0], eps=[0.2]), progress=False).results()
    alone = few["threats"]["linf@0.2"]
    assert alone["worst"] == {key: alone["attacks"]["bim3-training"][key] for key in few["clean"]}
    assert alone["worst"]["n"] == 20, "nobody looked at the others"
    assert [int((y[asked] == k).sum()) for k in range(10)] == [2] * 10
    hit = cells["pgd3-training-targeted"]
    assert 0 < hit["target_success"] <= 1 - hit["accuracy"]
