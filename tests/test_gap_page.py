"""The page on the gap and the roles of benchmarks that it is made of."""

import json
import re
import subprocess
import sys

import numpy as np
import pytest
import yaml

from isce.files import ROOT
from isce.report.plots import tables
from isce.report.plots.runs import as_bytes

PAGE, FULL = ((ROOT / "book" / "experiments" / name).read_text(encoding="utf-8") for name in ("gap.md", "gap_full.md"))
SHOWN = json.loads((ROOT / "benchmarks" / "results" / "gap.json").read_text(encoding="utf-8"))["shown"]
ROW = ["I-SCE (code)", "training", "predicted", "0.2, 0.01", "40.0", "10.0", "+30.0", "not run", "1.0", "2.0", "-1.0"]


def test_page_stands_after_adversarial_training():
    toc = yaml.safe_load((ROOT / "book" / "_toc.yml").read_text(encoding="utf-8"))
    files = [chapter["file"] for part in toc["parts"] for chapter in part["chapters"]]
    assert files[files.index("experiments/adversarial_training") + 1] == "experiments/gap"


def test_page_asks_for_what_the_results_hold():
    asked = re.findall(r"\{benchmark\}`gap/([^`]+)`", PAGE)
    assert len(asked) > 5
    assert set(asked) <= set(SHOWN["numbers"])
    tables = re.findall(r"\{benchmark-(?:table|figure)\} gap(?:/(\S+))?", PAGE + FULL)
    assert sorted(tables) == ["", "mechanisms", "mechanisms", "precision"]
    assert {"gap", "mechanisms", "precision"} <= set(SHOWN)


def test_figure_draws_what_the_table_says():
    columns = SHOWN["mechanisms"]["columns"]
    figure = tables.mechanisms(columns, [ROW, [*ROW[:4], "50.0", "60.0", *ROW[6:]]])
    shown, worst = figure.axes
    assert [np.asarray(line.get_xdata()).tolist() for line in shown.lines] == [[40, 50], [10, 60]]
    assert [np.asarray(line.get_xdata()).tolist() for line in worst.lines] == [[1, 1], [2, 2]]
    assert shown.get_yticklabels()[0].get_text() == "I-SCE (code), training\npredicted (0.2, 0.01)"
    assert as_bytes(figure, "svg").startswith(b"<?xml")


RESULTS = {
    "numbers": {"tried": "-7.0"},
    "mechanisms": {"caption": "A caption.", "columns": SHOWN["mechanisms"]["columns"], "rows": [ROW], "joined": 0},
}
TEXT = """Title
=====

Of :benchmark:`made/tried`.

.. benchmark-table:: made/mechanisms

.. benchmark-figure:: made/mechanisms
   :alt: what it shows

   The words
   below it.
"""


def rendered(folder, text):
    """One page, rendered with the extension alone; what the build says, and the page."""
    (folder / "book").mkdir()
    (folder / "benchmarks" / "results").mkdir(parents=True)
    (folder / "benchmarks" / "made.py").touch()
    (folder / "benchmarks" / "results" / "made.json").write_text(json.dumps({"shown": RESULTS}))
    config = f"import sys\nsys.path.insert(0, {str(ROOT / 'book' / '_ext')!r})\nextensions = ['isce_benchmarks']\n"
    (folder / "book" / "conf.py").write_text(config)
    (folder / "book" / "index.rst").write_text(text)
    command = [sys.executable, "-m", "sphinx", "-q", str(folder / "book"), str(folder / "html")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stderr, (folder / "html" / "index.html").read_text(encoding="utf-8")


def test_page_shows_number_table_and_figure(tmp_path):
    said, page = rendered(tmp_path, TEXT)
    assert said == ""
    assert "Of <span>\N{MINUS SIGN}7.0</span>." in page
    assert "A caption." in page
    assert 'alt="what it shows"' in page
    assert "The words below it." in page
    assert (tmp_path / "html" / "_images" / "benchmark-mechanisms.svg").read_bytes().startswith(b"<?xml")
    plain = re.sub("<[^>]+>", "", page)
    assert plain.count("python benchmarks/made.py --out benchmarks/results/made.json") == 2


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (":benchmark:`made/other`", "benchmark: made.json lacks 'other'"),
        (":benchmark:`none/tried`", "benchmark: none.json lacks"),
        (".. benchmark-figure:: made/other\n   :alt: x\n\n   Words.", "benchmark-figure: made.json lacks 'other'"),
    ],
)
def test_what_the_results_lack_is_a_warning(text, words, tmp_path):
    said, _ = rendered(tmp_path, f"Title\n=====\n\n{text}\n")
    assert words in said
