"""What stands under each table and figure of records: files, records, notebook, command; and what captions say."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path
from urllib.parse import unquote

import pytest
from bs4 import BeautifulSoup, Tag

from isce.files import ROOT
from isce.report.names import reader_name
from isce.report.plots import theory as theory_figures

pytestmark = pytest.mark.full
KINDS = ("train", "attack", "minmax")


def boxes(book: Path) -> list[tuple[Path, Tag]]:
    """Every table and figure made from records, with its page."""
    found = []
    for page in sorted(book.rglob("*.html")):
        soup = BeautifulSoup(page.read_text(encoding="utf-8"), "html.parser")
        found += [(page, box) for box in soup.select(".isce-record") if box.select_one(".isce-sources")]
    assert found
    return found


def linked(page: Path, element: Tag) -> dict[str, Path]:
    """The files that an element's download links lead to, by their text."""
    return {link.get_text(): page.parent / unquote(str(link["href"])) for link in element.select("a.download")}


def test_each_can_be_downloaded_as_data_or_vector_graphic(book: Path):
    for page, box in boxes(book):
        files = linked(page, box.select_one(".isce-files"))
        table = box.select_one("table")
        if "as executed" in files:
            assert json.loads(files["as executed"].read_text(encoding="utf-8"))["cells"]
            continue
        if "JSON" in files:
            assert json.loads(files["JSON"].read_text(encoding="utf-8"))["attacks"]
            continue
        if table is None:
            assert files["SVG"].read_bytes().lstrip().startswith(b"<?xml")
            assert files["PDF"].read_bytes().startswith(b"%PDF")
            continue
        with files["CSV"].open(encoding="utf-8", newline="") as opened:
            header, *rows = csv.reader(opened)
        typeset = str.maketrans({"\N{RIGHT SINGLE QUOTATION MARK}": "'", "\N{MINUS SIGN}": "-"})
        shown = [cell.get_text().strip().translate(typeset) for cell in table.select("thead th")]
        assert [reader_name(name) for name in header] == shown
        assert len(rows) == len(table.select("tbody tr"))


def test_what_the_build_makes_itself_can_be_downloaded_beside_the_code_that_made_it(book: Path):
    """Theory plots, tables of the benchmarks and of the project's own files."""
    found: set[str] = set()
    for page in sorted(book.rglob("*.html")):
        soup = BeautifulSoup(page.read_text(encoding="utf-8"), "html.parser")
        for line in soup.select(".isce-evidence"):
            if line.select_one(".isce-sources"):
                continue
            files, shown = linked(page, line), line.find_previous_sibling(lambda element: element.name != "details")
            assert any((ROOT / name).is_file() and name.endswith(".py") for name in files)
            file = files.get("SVG") or files["CSV"]
            found.add(file.name)
            if file.suffix == ".svg":
                assert shown.name == "figure"
                assert Path(shown.img["src"]).name == file.name
                continue
            with file.open(encoding="utf-8", newline="") as opened:
                rows = list(csv.reader(opened))
            assert len(rows) == len(shown.select("tr"))
            # A cell that stands for several rows is written once in the page, and in each row of the file.
            heights = [int(cell.get("rowspan", 1)) for cell in shown.select("th, td")]
            assert sum(heights) == sum(len(row) for row in rows)
    drawn = {f"{draw.__name__}.svg" for draw in theory_figures.FIGURES}
    made = {"effort.csv", "experiments.csv", "packages.csv", "benchmark-steps.csv", "benchmark-autoattack.csv"}
    assert drawn | made <= found


def test_each_names_its_records_notebook_and_command(book: Path):
    for page, box in boxes(book):
        line = box.select_one(".isce-links")
        (notebook,) = (name for name in linked(page, line) if name.endswith(".ipynb"))
        assert (ROOT / notebook).read_bytes() == linked(page, line)[notebook].read_bytes()
        kind = Path(notebook).stem
        sources = linked(page, box.select_one(".isce-sources"))
        assert sources
        assert len(sources) == len(box.select(".isce-sources li"))
        kinds = set()
        for name, file in sources.items():
            experiment, *_ = name.split("/")
            assert (ROOT / "results" / name).read_bytes() == file.read_bytes()
            kinds.add(json.loads(file.read_text(encoding="utf-8"))["kind"])
            assert f"make reproduce EXPERIMENT={experiment}" in line.select_one("code").get_text().split(" && ")
        assert kind in kinds, "the notebook that made some of its records"


NEEDED = {
    "train": (r"\d training seed", r"\d training images", r"\d validation images"),
    "attack": (
        r"\d test images|^Test images",
        r"training seed",
        r"suites? '|our adaptive attack|adversarial example|PGD-50",
        r"eps",
    ),
    "minmax": (r"\d test images", r"training seed", r"\d+ x \d+ steps", r"(linf|l2) ball"),
    "explain": (r"\d test images|test images of \d+ classes", r"[Tt]raining seed", r"eps|threat model"),
}


def test_captions_say_how_many_images_and_seeds_what_attacked_and_how_far(book: Path):
    """Lists of flags and runs name the runs; rules and costs are about none; a notebook's page names its own.

    A chart is data for a chooser, which has the caption; corrupted images and proofs meet no attack.
    """
    captions = {
        path: json.loads(path.read_text(encoding="utf-8"))
        for path in (book.parents[1] / "report").glob("*/*/*.json")
        if path.stem not in ("flags", "rules", "status", "costs", "corruptions", "price")
        and path.parent.name not in ("notebooks", "charts")
    }
    assert captions
    for path, about in captions.items():
        for needed in NEEDED[Path(about["notebook"]).stem]:
            assert re.search(needed, about["caption"]), (path, needed)
