"""What the reliability benchmark keeps of its tests."""

import json
import sys

import pytest

from isce.files import ROOT

sys.path.insert(0, str(ROOT / "benchmarks"))
import reliability

REPORT = """<testsuites><testsuite>
<testcase classname="tests.test_a" name="test_a_thing_holds[2-x]" time="1.5"/>
<testcase classname="tests.test_a" name="test_it_fails" time="2.0"><failure message="no"/></testcase>
</testsuite></testsuites>"""
WHOLE = {
    "where": {"commit": "abc"},
    "tests": [
        {"file": "test_a", "test": "it fails", "outcome": "failure", "seconds": 2.0},
        {"file": "test_b", "test": "it fails", "outcome": "passed", "seconds": 1.0},
    ],
}


def test_a_test_is_a_sentence_with_its_outcome(tmp_path):
    (tmp_path / "junit.xml").write_text(REPORT)
    assert reliability.outcomes(tmp_path / "junit.xml") == [
        {"file": "test_a", "test": "a thing holds (2-x)", "outcome": "passed", "seconds": 1.5},
        {"file": "test_a", "test": "it fails", "outcome": "failure", "seconds": 2.0},
    ]


def test_outcome_of_a_test_that_was_run_again_takes_its_place_and_says_so():
    rows = [{"file": "test_a", "test": "it fails", "outcome": "passed", "seconds": 3.0}]
    found = reliability.renewed(WHOLE, rows, "def")
    assert found["tests"] == [rows[0] | {"again": "def"}, WHOLE["tests"][1]]
    assert found["where"] == WHOLE["where"]


def test_nothing_is_run_again_without_a_whole_run(tmp_path, capsys):
    with pytest.raises(SystemExit):
        reliability.main(["--again", "--out", str(tmp_path / "none.json")])
    assert "--again needs --out with the file of a whole run, not " in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_committed_outcomes_are_all_passed():
    found = json.loads((reliability.ROOT / "benchmarks" / "results" / "reliability.json").read_text())
    assert {row["outcome"] for row in found["tests"]} == {"passed"}
