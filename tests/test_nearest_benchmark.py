"""What `nearest` breaks of what the records left: the committed table fits the committed records."""

import json
import sys

from isce.files import ROOT

sys.path.insert(0, str(ROOT / "benchmarks"))
import nearest
import networks

FOUND = json.loads((ROOT / "benchmarks" / "results" / "nearest.json").read_text(encoding="utf-8"))


def test_committed_table_is_made_of_the_committed_values():
    assert FOUND["shown"] == {"nearest": networks.nearest(FOUND), "numbers": networks.nearest_numbers(FOUND)}


def test_images_left_are_those_of_the_committed_records():
    assert {row["run"] for row in FOUND["table"]} == {f"{o}-s{s}" for o in nearest.OBJECTIVES for s in nearest.SEEDS}
    for row in FOUND["table"]:
        path = ROOT / "results" / "mnist" / "attack" / row["run"] / "record.json"
        worst = json.loads(path.read_text(encoding="utf-8"))["results"]["threats"][f"linf@{row['eps']:g}"]["worst"]
        assert (row["left"], row["n"]) == (worst["correct"], worst["n"])
        assert 0 <= row["broken"] <= row["left"]


def test_sentences_name_the_most_of_all_seeds():
    rows = [{"run": f"mmc-s{seed}", "broken": broken} for seed, broken in enumerate((1, 11, 2))]
    assert networks.nearest_numbers({"table": rows, "steps": 7}) == {"mmc": "11", "steps": "7"}
