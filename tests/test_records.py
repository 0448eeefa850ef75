"""Records are written whole or not at all, and a damaged one is noticed."""

import json
import math
import os
import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from isce.files import RecordError, canonical, sha256, write_atomic
from isce.parameters.semantics import versions
from isce.runs.frame import load
from isce.runs.records import Provenance, Record, provenance, read, read_all


def make(**changes):
    origin = Provenance(
        commit=None,
        modified=None,
        packages={"torch": "2"},
        python="3",
        machine="m",
        device="cpu",
        seconds=1.5,
        created="2026-01-01T00:00:00+00:00",
    )
    values = {
        "kind": "train",
        "experiment": "e",
        "run": "sce-s0",
        "key": "k",
        "parameters": {"epochs": 3, "objective": {"name": "sce"}, "eps": [0.1]},
        "results": {"accuracy": 0.5},
        "data_sha256": "d",
        "provenance": origin,
    }
    return Record(**values | changes)


def test_round_trip(tmp_path):
    record = make(flags={"diverged": "NaN at step 3"})
    record.save(tmp_path / "a" / "record.json")
    assert read(tmp_path / "a" / "record.json") == record


COSTS = {"linf@0.1": {"pgd5-training": {"seconds": 1.25, "gradients": 30, "forwards": 36}}}


def with_costs(costs=COSTS) -> Record:
    record = make(kind="attack")
    return record.model_copy(update={"provenance": Provenance(**record.provenance.model_dump() | {"rows": costs})})


def test_costs_of_rows_come_back_and_are_no_content(tmp_path):
    path = tmp_path / "record.json"
    with_costs().save(path)
    found = read(path)
    assert found.provenance.model_dump()["rows"] == COSTS
    assert found.provenance.rows["linf@0.1"]["pgd5-training"].gradients == 30
    assert found.content() == make(kind="attack").content()


def test_a_record_of_before_costs_keeps_its_checksum(tmp_path):
    """Digest and file as they were when there was no such field."""
    path = tmp_path / "record.json"
    make().save(path)
    values = json.loads(path.read_text())
    assert "rows" not in values["provenance"]
    assert values["checksum"] == sha256(canonical({name: v for name, v in values.items() if name != "checksum"}))
    assert values["checksum"] == "c4ac3693365dbbd8487ffd28cfc386fa0fd2f7189457a575344b70a6b73389f9"
    assert read(path).provenance.rows is None


def test_changed_costs_are_noticed(tmp_path):
    path = tmp_path / "record.json"
    with_costs().save(path)
    values = json.loads(path.read_text())
    values["provenance"]["rows"]["linf@0.1"]["pgd5-training"]["gradients"] = 31
    path.write_text(json.dumps(values))
    with pytest.raises(RecordError, match="checksum differs"):
        read(path)
    del values["provenance"]["rows"]
    path.write_text(json.dumps(values))
    with pytest.raises(RecordError, match="checksum differs"):
        read(path)


@pytest.mark.parametrize("wrong", [{"seconds": -1.0}, {"gradients": -1}, {"forwards": 0.5}, {"queries": 3}])
def test_costs_that_cannot_be_are_refused(wrong):
    (row,) = COSTS["linf@0.1"].values()
    with pytest.raises(ValidationError, match=next(iter(wrong))):
        with_costs({"linf@0.1": {"pgd5-training": row | wrong}})


def test_content_leaves_out_what_may_differ_between_two_executions():
    other = make()
    other.provenance.seconds = 99.0
    other.provenance.commit = "abc"
    assert make().content() == other.content()
    assert make().content() != make(results={"accuracy": 0.6}).content()


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_any_flipped_bit_is_noticed_or_harmless(tmp_path_factory, data):
    path = tmp_path_factory.getbasetemp() / "flip" / "record.json"
    record = make()
    record.save(path)
    blob = bytearray(path.read_bytes())
    position = data.draw(st.integers(0, len(blob) - 1))
    blob[position] ^= 1 << data.draw(st.integers(0, 7))
    path.write_bytes(bytes(blob))
    try:
        survived = read(path)
    except RecordError as noticed:
        survived, message = None, str(noticed)
        assert str(path) in message
    assert survived in (None, record)  # white space between JSON tokens is no content


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"schema_version": 1}, "schema version 1; this package reads 2"),
        ({"results": {"accuracy": 0.9}}, "checksum differs"),
        ({"extra": 1}, "wrong or missing extra"),
        ({"key": 7}, "wrong or missing key"),
        ({"results": {"accuracy": math.inf}}, "is damaged: "),
    ],
)
def test_changed_record_is_refused_with_the_reason(tmp_path, change, words):
    path = tmp_path / "record.json"
    make().save(path)
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(RecordError, match=words):
        read(path)


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"schema_version": 2}'])
def test_half_a_record_is_refused(tmp_path, text):
    (tmp_path / "record.json").write_text(text)
    with pytest.raises(RecordError, match=r"record\.json"):
        read_all(tmp_path)


def test_missing_record_is_named(tmp_path):
    with pytest.raises(RecordError, match="No such file"):
        read(tmp_path / "record.json")


def test_figure_that_is_no_number_is_refused_before_anything_is_written(tmp_path):
    with pytest.raises(ValueError, match="JSON compliant"):
        make(results={"loss": float("nan")}).save(tmp_path / "record.json")
    assert list(tmp_path.iterdir()) == []


def test_failed_write_keeps_the_old_file_and_leaves_no_part(tmp_path, monkeypatch):
    path = tmp_path / "file"
    write_atomic(path, "old")

    def no_space(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", no_space)
    with pytest.raises(OSError, match="No space left"):
        write_atomic(path, "new")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_killed_writer_leaves_old_or_new_never_a_part(tmp_path):
    path = tmp_path / "file"
    code = """
import sys, pathlib, itertools
from isce.files import write_atomic
for n in itertools.count():
    write_atomic(pathlib.Path(sys.argv[1]), str(n % 10) * 200_000)
    print(n, flush=True)
"""
    for writes in (1, 2, 5):
        with subprocess.Popen([sys.executable, "-c", code, str(path)], stdout=subprocess.PIPE, text=True) as process:
            for _ in range(writes):
                process.stdout.readline()
            process.kill()
        text = path.read_text()
        assert len(text) == 200_000
        assert len(set(text)) == 1


def test_files_are_readable_like_any_other(tmp_path):
    (tmp_path / "plain").write_text("x")
    write_atomic(tmp_path / "atomic", "x")
    assert (tmp_path / "plain").stat().st_mode == (tmp_path / "atomic").stat().st_mode


def test_data_frame_has_a_row_for_each_record_and_a_column_for_each_plain_value(tmp_path):
    make().save(tmp_path / "a" / "record.json")
    make(kind="attack", results={"clean": {"accuracy": 0.7}}).save(tmp_path / "b" / "record.json")
    frame = load(tmp_path)
    assert list(frame["kind"]) == ["train", "attack"]
    assert frame["results.accuracy"][0] == 0.5
    assert frame["results.clean.accuracy"][1] == 0.7
    assert frame["parameters.objective.name"][0] == "sce"
    assert "parameters.eps" not in frame
    assert len(load(tmp_path, kind="attack")) == 1
    assert load(tmp_path / "nothing").empty


def test_hashes(tmp_path):
    (tmp_path / "file").write_bytes(b"abc")
    known = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert sha256(b"abc") == sha256("abc") == sha256(tmp_path / "file") == known
    assert canonical({"b": [1], "a": 0.1}) == '{"a":0.1,"b":[1]}'


def test_versions_are_public_ones():
    import torch

    assert versions(["torch", "no-such-package"]) == {"torch": torch.__version__.split("+")[0]}


def test_provenance_outside_a_repository_has_no_commit(tmp_path):
    origin = provenance("cpu", 1.23456, tmp_path)
    assert (origin.commit, origin.modified, origin.seconds) == (None, None, 1.235)


def test_provenance_names_commit_and_changes(tmp_path):
    def git(*arguments):
        identity = ["-c", "user.name=n", "-c", "user.email=e@example.org"]
        subprocess.run(["git", *identity, *arguments], cwd=tmp_path, check=True, capture_output=True)

    git("init")
    (tmp_path / "file").write_text("one")
    git("add", "file")
    git("commit", "-m", "one")
    clean = provenance("cpu", 1, tmp_path)
    assert len(clean.commit) == 40
    assert clean.modified is False
    (tmp_path / "file").write_text("two")
    assert provenance("cpu", 1, tmp_path).modified is True
