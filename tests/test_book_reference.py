"""The page on records names what records hold."""

from __future__ import annotations

import json
import re

import pytest

from isce.files import ROOT
from isce.runs.records import Record

REFERENCE = ROOT / "book" / "reference"


def record_tables() -> dict[str, set[str]]:
    """By kind, the names in code font in the first column of the record page's tables."""
    text = (REFERENCE / "record.md").read_text(encoding="utf-8")
    parts = re.split(r"^#{2,3} (.+)$", text, flags=re.MULTILINE)
    named = {heading.strip("`"): body for heading, body in zip(parts[1::2], parts[2::2], strict=True)}
    return {
        heading: {
            name
            for row in re.findall(r"^\| (`[^|]*) \|", body, flags=re.MULTILINE)
            for name in re.findall(r"`([^`]+)`", row)
        }
        for heading, body in named.items()
    }


@pytest.mark.parametrize("kind", ["train", "attack", "minmax", "explain"])
def test_record_page_names_every_figure_of_each_kind_and_no_other(kind):
    found = set()
    for path in (ROOT / "results").glob(f"*/{kind}/*/record.json"):
        found |= set(json.loads(path.read_text(encoding="utf-8"))["results"])
    assert record_tables()[kind] == found


def test_record_page_names_every_field_of_a_record():
    assert record_tables()["One file for each run"] == set(Record.model_fields)


def test_record_page_names_every_side_file_that_is_committed():
    beside = {path.name for path in (ROOT / "results").glob("*/*/*/*")} - {"record.json"}
    assert beside <= record_tables()["Side files"]
