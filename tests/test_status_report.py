"""The status table says of every run that is asked for whether it is there and current."""

from made_records import record

from isce.files import ROOT
from isce.report.tables import STATUS, status


def made(kind, run, **changes):
    values = {"commit": "0123456789", "modified": False, "packages": {"torch": "9.9"}, "device": "cpu"}
    values |= {"seconds": 12.4, "created": "2026-11-25T07:05:09+00:00"}
    flags = {"diverged": "at once"} if run == "b-s0" else {}
    return record(kind, run, provenance=values | changes, flags=flags)


def test_each_run_is_current_stale_or_not_run_yet():
    wanted = [("attack", "a-s0"), ("train", "a-s0"), ("train", "b-s0")]
    records = [made("train", "a-s0"), made("train", "b-s0", modified=True), made("train", "gone-s0")]
    table = status("made-up", wanted, records, {("train", "b-s0")})
    assert table.columns == STATUS
    assert table.rows == [
        ["a-s0", "train", "current", "2026-11-25 07:05", "0123456", "cpu", "12", "9.9", ""],
        ["a-s0", "attack", "not run yet", *[""] * 6],
        ["b-s0", "train", "stale", "2026-11-25 07:05", "0123456 (modified)", "cpu", "12", "9.9", "diverged"],
    ]
    assert table.caption.startswith("1 of the 3 runs of 'made-up' are current.")


def test_the_page_shows_every_experiment():
    page = (ROOT / "book" / "status.md").read_text(encoding="utf-8")
    files = {path.stem for path in (ROOT / "experiments").glob("*.yaml")} - {"quick"}  # of which no records are kept
    assert {name for name in files if f"{{records-table}} {name}/status" in page} == files


def test_a_record_made_outside_a_repository():
    (row,) = status("made-up", [("train", "a-s0")], [made("train", "a-s0", commit=None, modified=None)], set()).rows
    assert row[4] == "none"
