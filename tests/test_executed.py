"""Executed notebooks as the book shows them: portable, described in words, and nothing of their outputs lost."""

import copy
import json
import re
import shutil

import pytest

from isce.files import ROOT, RecordError, sha256
from isce.report.source import Source
from isce.report.write import Report
from isce.runs import executed
from isce.runs.experiment import load_experiment

COMMITTED = sorted((ROOT / "results").glob("*/*/*/notebook.ipynb"))
SOURCES = sorted(path for path in (ROOT / "notebooks").glob("*.ipynb") if path.stem != "certify")  # that has no record
PLACE = "/home/somebody/project/"
DRAWING = next(
    "".join(cell["source"])
    for cell in json.loads((ROOT / "notebooks" / "train.ipynb").read_text())["cells"]
    if "show(" in "".join(cell["source"])
)
TIMES = {"iopub.execute_input": "2026", "shell.execute_reply": "2026"}


def code(source, *outputs, **metadata):
    cell = {"cell_type": "code", "id": "a", "metadata": {"execution": dict(TIMES), **metadata}}
    return cell | {"execution_count": 1, "source": source, "outputs": list(outputs)}


def result(**data):
    named = {name.replace("_", "/", 1): value for name, value in data.items()}
    return {"output_type": "execute_result", "metadata": {}, "execution_count": 1, "data": named}


def stream(name, text):
    return {"output_type": "stream", "name": name, "text": text}


BAR = {
    "output_type": "display_data",
    "metadata": {},
    "data": {"application/vnd.jupyter.widget-view+json": {"model_id": "1"}, "text/plain": "0%"},
}
EXECUTED = {
    "cells": [
        {"cell_type": "markdown", "id": "t", "metadata": {"papermill": {}}, "source": ["# Title\n", "words"]},
        code([f'folder = "{PLACE}build/runs/digits/train/a"\n', "x = 1"], tags=["injected-parameters"]),
        code("run()", BAR, stream("stdout", ["one\n"]), stream("stderr", "warned"), stream("stdout", "two\n")),
        code("path", result(text_plain=f"PosixPath('{PLACE}build/runs/a/record.json')")),
        code("long", result(text_plain="x" * (executed.LONG + 1))),
        code(DRAWING, result(image_png="iVBOR/build/runs/w0KGgo=\n", text_plain="<Image>")),
    ],
    "metadata": {"papermill": {"input_path": PLACE}, "widgets": {"state": {}}, "kernelspec": {"name": "python3"}},
    "nbformat": 4,
    "nbformat_minor": 5,
}


@pytest.fixture
def cleaned(tmp_path):
    path = tmp_path / "notebook.ipynb"
    path.write_text(json.dumps(EXECUTED))
    return json.loads(executed.clean(path, "train"))


def test_nothing_of_the_machine_is_left(cleaned):
    text = json.dumps(cleaned)
    for word in ("somebody", "papermill", "widget", "iopub", "warned"):
        assert word not in text
    assert cleaned["metadata"] == {"kernelspec": {"name": "python3"}}


def test_paths_start_at_the_projects_folder(cleaned):
    assert "".join(cleaned["cells"][1]["source"]) == 'folder = "build/runs/digits/train/a"\nx = 1'
    shown = cleaned["cells"][3]["outputs"][0]["data"]["text/plain"]
    assert "".join(shown) == "PosixPath('build/runs/a/record.json')"


def test_what_was_printed_is_one_output(cleaned):
    (printed,) = cleaned["cells"][2]["outputs"]
    assert "".join(printed["text"]) == "one\ntwo\n"


def test_pictures_stay_as_they_were_and_are_described(cleaned):
    cell = cleaned["cells"][5]
    assert cell["outputs"][0]["data"]["image/png"] == "iVBOR/build/runs/w0KGgo=\n"
    assert cell["metadata"]["mystnb"]["image"]["alt"].startswith("Two line plots")


def test_long_parts_are_folded_away_and_no_other(cleaned):
    tags = [cell["metadata"].get("tags", []) for cell in cleaned["cells"]]
    assert tags == [[], ["injected-parameters", "hide-input"], [], [], ["hide-output"], []]


def test_cleaning_twice_changes_nothing_more(tmp_path, cleaned):
    path = tmp_path / "again.ipynb"
    path.write_text(json.dumps(cleaned))
    assert json.loads(executed.clean(path, "train")) == cleaned


@pytest.mark.parametrize("damage", ["", "{", "[]", '{"cells": 3, "metadata": {}}', '{"cells": [{}], "metadata": {}}'])
def test_what_is_no_notebook_is_named(tmp_path, damage):
    path = tmp_path / "broken.ipynb"
    path.write_text(damage)
    with pytest.raises(RecordError, match=r"broken\.ipynb is no executed notebook"):
        executed.clean(path, "train")


def test_cleaning_leaves_its_input_alone(tmp_path):
    path = tmp_path / "notebook.ipynb"
    before = copy.deepcopy(EXECUTED)
    path.write_text(json.dumps(EXECUTED))
    executed.clean(path, "train")
    assert json.loads(path.read_text()) == before


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.stem)
def test_each_cell_that_draws_says_what_its_picture_shows(path):
    for cell in json.loads(path.read_text())["cells"]:
        draws = re.search(r"^show\(", "".join(cell["source"]), flags=re.MULTILINE)
        alt = cell["metadata"].get("mystnb", {}).get("image", {}).get("alt", "")
        assert bool(draws) == (len(alt) > 20), "".join(cell["source"])


@pytest.mark.parametrize("path", COMMITTED, ids=lambda path: "-".join(path.parts[-4:-1]))
def test_each_committed_one_is_clean_and_belongs_to_its_record(path):
    kind = path.parts[-3]
    assert path.read_text(encoding="utf-8") == executed.clean(path, kind)
    assert json.loads((path.parent / "record.json").read_text())["key"] in path.read_text(encoding="utf-8")


def test_a_page_for_each_notebook_and_a_committed_run_behind_each():
    pages = sorted((ROOT / "book" / "notebooks").glob("*.ipynb"))
    assert [page.stem for page in pages] == [path.stem for path in SOURCES]
    assert {path.parts[-3] for path in COMMITTED if path.parts[-4] == "digits"} == {path.stem for path in SOURCES}
    for page in pages:
        stub = json.loads(page.read_text())
        assert f"{{executed-notebook}} digits/{page.stem}\n" in "".join(stub["cells"][1]["source"])


def test_a_flipped_byte_in_a_committed_notebook_is_named(tmp_path):
    run = "digits/train/isce-m2-s0"
    shutil.copytree(ROOT / "results" / "digits", tmp_path / "digits")
    notebook = tmp_path / run / "notebook.ipynb"
    notebook.with_suffix(".sha256").write_text(sha256(notebook))
    source = Source(load_experiment("digits"), tmp_path, {("train", "isce-m2-s0"): ""})
    report = Report(source, tmp_path / "out")
    report.write_notebooks()
    blob = bytearray(notebook.read_bytes())
    blob[len(blob) // 2] ^= 0x10
    notebook.write_bytes(bytes(blob))
    with pytest.raises(RecordError, match=r"notebook\.ipynb is damaged"):
        report.write_notebooks()
