"""What C&W leaves by its learning rate: the committed values fit the committed records."""

import json
import sys

from isce.files import ROOT

sys.path.insert(0, str(ROOT / "benchmarks"))
import cw
import networks

FOUND = json.loads((ROOT / "benchmarks" / "results" / "cw.json").read_text(encoding="utf-8"))


def test_committed_numbers_are_made_of_the_committed_values():
    assert FOUND["shown"] == {"numbers": networks.cw(FOUND)}
    assert [(each["run"], each["rate"]) for each in FOUND["cases"]] == [(r, rate) for r in cw.RUNS for rate in cw.RATES]


def test_at_the_rate_of_the_rows_it_is_the_row_of_the_record():
    for each in FOUND["cases"]:
        if each["rate"] == 0.01:
            path = ROOT / "results" / "mnist" / "attack" / each["run"] / "record.json"
            row = json.loads(path.read_text(encoding="utf-8"))["results"]["threats"]["l2@2"]["attacks"]["cw100"]
            assert row["n"] == FOUND["images"]
            assert abs(each["left"] - row["correct"]) <= 2  # another processor made the record


def test_a_higher_rate_leaves_fewer():
    for run in cw.RUNS:
        left = [each["left"] for each in FOUND["cases"] if each["run"] == run]
        assert left == sorted(left, reverse=True)
        assert left[-1] < left[0]


def test_numbers_go_by_loss_and_rate():
    cases = [{"run": "isce-m2-s3", "rate": 0.05, "left": 7}]
    assert networks.cw({"cases": cases, "images": 9}) == {"isce-m2-0.05": "7", "images": "9"}
