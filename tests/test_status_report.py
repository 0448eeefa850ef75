"""The status table says of every run that is asked for whether it is there and current."""

from isce.files import ROOT
from isce.report.status import COLUMNS, status
from isce.runs.records import Provenance, Record


def record(kind, run, **changes):
    values = {"commit": "0123456789", "modified": False, "packages": {"torch": "9.9"}, "python": "3.11", "machine": ""}
    values |= {"device": "cpu", "seconds": 12.4, "created": "2026-11-25T07:05:09+00:00"} | changes
    return Record(
        kind=kind,
        experiment="made-up",
        run=run,
        key="",
        parameters={},
        figures={},
        flags={"diverged": "at once"} if run == "b-s0" else {},
        data_sha256="",
        provenance=Provenance(**values),
    )


def test_each_run_is_current_stale_or_not_run_yet():
    wanted = [("attack", "a-s0"), ("train", "a-s0"), ("train", "b-s0")]
    records = [record("train", "a-s0"), record("train", "b-s0", modified=True), record("train", "gone-s0")]
    table = status("made-up", wanted, records, {("train", "b-s0")})
    assert table.columns == COLUMNS
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
    (row,) = status("made-up", [("train", "a-s0")], [record("train", "a-s0", commit=None, modified=None)], set()).rows
    assert row[4] == "none"
