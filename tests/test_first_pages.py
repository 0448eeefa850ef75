"""The pages that everybody opens, the book's first and the README: short, and their code runs as it says."""

import re

import book_code
import pytest
import torch
from test_book_numbers import prose

from isce.files import ROOT
from isce.report import worked
from isce.report.names import is_text_version, reader_name
from isce.report.reference import Files

INTRO, README = ROOT / "book" / "intro.md", ROOT / "README.md"
FILES = Files(ROOT, ROOT / "nowhere", lambda path: None)


def test_the_first_page_is_read_in_ten_minutes():
    assert len(INTRO.read_text(encoding="utf-8").split()) <= 1500


def test_the_readme_is_a_page():
    assert len(README.read_text(encoding="utf-8").splitlines()) <= 60


def test_code_of_both_prints_what_they_show():
    found = book_code.run(ROOT, INTRO, README)
    assert list(found) == ["intro", "README"]
    for name, blocks in found.items():
        assert len(blocks) == 1, name
        assert all(shown == printed for shown, printed in blocks), name


def test_code_of_both_is_five_lines():
    for page in (INTRO, README):
        (block,) = [block for block in book_code.blocks(page) if block.language == "python"]
        assert len([line for line in block.text.splitlines() if line]) == 5


def test_the_readme_says_of_every_experiment_whether_it_was_run():
    text = README.read_text(encoding="utf-8")
    names = {path.stem for path in (ROOT / "experiments").glob("*.yaml")}
    assert {name for name in names if f"`{name}`" not in text} == set()
    unrun = text.partition("Not run: ")[2].partition(". ")[0]
    assert {name for name in re.findall(r"`([\w-]+)`", unrun) if (ROOT / "results" / name).exists()} == set()


def test_the_worked_example_is_cross_entropy_of_the_logits_that_it_shows():
    for m in (0.0, 2.0, -1.0):
        made = worked.work(m)
        seen = torch.tensor([made.seen], dtype=torch.float64, requires_grad=True)
        loss = torch.nn.functional.cross_entropy(seen, torch.tensor([0]))
        (gradient,) = torch.autograd.grad(loss, seen)
        assert made.seen == [4.0 - m, 2.5, 1.0]
        assert made.loss == pytest.approx(loss.item())
        assert made.gradient == pytest.approx(gradient[0].tolist())
        assert sum(made.probabilities) == pytest.approx(1)


def test_the_worst_point_of_the_box_has_the_loss_of_twice_its_radius():
    corner, loss = worked.worst()
    assert corner == (3.0, 3.5, 2.0)
    assert loss == pytest.approx(worked.work(2 * worked.RADIUS).loss)
    inside = (worked.RADIUS * (2 * torch.rand(1000, 3, dtype=torch.float64) - 1) + torch.tensor(worked.LOGITS)).detach()
    assert (torch.nn.functional.cross_entropy(inside, torch.zeros(1000).long(), reduction="none") <= loss).all()


def test_every_number_of_the_first_page_is_known_and_in_the_table():
    text, known = INTRO.read_text(encoding="utf-8"), worked.numbers()
    named = set(re.findall(r"\{worked\}`([^`]+)`", text))
    assert named
    assert named <= set(known)
    table = worked.example(FILES)
    losses = table.rows[2]
    assert losses == ["loss", known["sce.loss"], known["isce.loss"], known["worst.loss"]]
    assert all(len(row) == len(table.columns) for row in table.rows)


def test_the_slider_works_on_the_logits_of_the_table():
    script = (ROOT / "book" / "_static" / "isce-worked.js").read_text(encoding="utf-8")
    (logits,) = re.findall(r"const LOGITS = \[(.*)\];", script)
    assert tuple(float(value) for value in logits.split(",")) == worked.LOGITS
    (names,) = re.findall(r"const NAMES = \[(.*)\];", script)
    assert tuple(re.findall(r'"(\w+)"', names)) == worked.CLASSES
    assert f'value="{worked.INFERENCE:g}"' in script


@pytest.mark.parametrize(
    ("label", "name", "text"),
    [
        ("sce", "SCE", False),
        ("isce", "I-SCE (text)", True),
        ("isce-m2", "I-SCE (text, m = 2)", True),
        ("isce-m-0.5", "I-SCE (text, m = -0.5)", True),
        ("isce-released", "I-SCE (code)", False),
        ("isce-matrix", "isce-matrix", False),
        ("focal", "focal", False),
    ],
)
def test_names_for_readers(label: str, name: str, text: bool):
    assert (reader_name(label), is_text_version(label)) == (name, text)


#: Pages of the reading part: what they call a loss in prose is its name for readers, once the name in tables was told.
PAGES = [
    *(ROOT / "book" / name for name in ("intro.md", "summary.md", "verdict.md", "discussion.md")),
    *sorted((ROOT / "book" / "experiments").glob("*.md")),
]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_pages_name_losses_for_readers(page):
    text = page.read_text(encoding="utf-8")
    keys = re.findall(r"`isce-(?:m\d|released)`", prose(text))
    assert len(keys) == len(set(keys)), "the name in tables is told once"


def test_no_text_of_the_book_says_at_hand():
    made = {"_build", "api", "attacks", "losses"}  # of templates, when the book is built
    pages = [
        path for path in (ROOT / "book").rglob("*.md") if not made.intersection(path.relative_to(ROOT).parts[1:-1])
    ]
    pages += [*(ROOT / "book" / "attacks").glob("*.md"), *(ROOT / "book" / "_templates").iterdir()]
    sources = [*pages, *(ROOT / "isce" / "report").rglob("*.py"), README]
    assert len(sources) > 60
    assert [path.name for path in sources if re.search(r"\bat\s+hand\b", path.read_text(encoding="utf-8"))] == []
