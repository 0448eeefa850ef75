"""How the book's reading part is written: its length, its sentences, its words and the form of its chapters."""

from __future__ import annotations

import re
import sys
from statistics import median

import pytest
from reading import BOOK, paragraphs, plain, reading_pages, sentences, words

from isce.files import ROOT
from isce.report.names import core, panels, reader_name, row_name
from isce.report.plots.runs import LOOKS, looks
from isce.runs.experiment import load_experiment

sys.path.insert(0, str(BOOK / "_ext"))
from isce_search import reading_part
from isce_tables import CAPTION, split_caption, table_nodes

PAGES = reading_pages()
#: Pages that explain something, with a question, a figure and exercises.
CHAPTERS = [page for page in PAGES if page.stem not in ("intro", "summary", "run", "faq", "glossary")]
#: Phrases that readers stumbled over, each with what to say.
BANNED = {
    r"\bat hand\b": "we could not obtain, no number known",
    r"\bown loss\b": "training loss",
    r"\bfigures? of (?:the|its|their) (?:table|record|run)": "number",
    r"\b(?:text|released) reading\b": "I-SCE (text), I-SCE (code)",
    r"\b(?:left|leaves?|is|are) standing\b": "stay right, are not broken",
    r"\bnothing stands\b|\bstill stands?\b|\bimages? stands?\b": "stay right, are not broken",
    r"\b(?:SCE|I-SCE(?: \([^)]*\))?|MMC|L-GM) keeps (?!pulling)": "has, N of the images stay right with",
    r"\bof (?:it|them)\b[^.;:]*\bof (?:it|them)\b": "name the things",
    r"\bsays? where and why\b": "a sentence of its own",
    r"\bRED FLAGS?\b": "a check to answer",
    r"\bdearer\b": "raises the loss",
    r"\bwas not to be had\b": "we could not obtain",
    r"`(?:isce-m\d|sce|mmc|lgm|pgd\d+-\w+|matched\d[\w-]*)`": "the reader's name",
}


@pytest.fixture(params=PAGES, ids=lambda page: page.stem)
def text(request: pytest.FixtureRequest) -> str:
    return request.param.read_text(encoding="utf-8")


def test_the_reading_part_is_25_pages_of_25000_words_at_most():
    assert 10 < len(PAGES) <= 25
    assert sum(len(page.read_text(encoding="utf-8").split()) for page in PAGES) <= 25_000


def test_the_search_knows_the_reading_part():
    assert reading_part(BOOK) == [page.relative_to(BOOK).with_suffix("").as_posix() for page in PAGES]


def test_sentences_are_short(text: str):
    counts = {sentence: words(sentence) for sentence in sentences(text)}
    assert {sentence: count for sentence, count in counts.items() if count > 35} == {}
    assert median(counts.values()) <= 20


def faults(text: str) -> list[tuple[str, str]]:
    """Banned phrases of a page's prose, each with what to say."""
    found = [(match[0], say) for phrase, say in BANNED.items() for match in re.finditer(phrase, text)]
    return [fault for fault in found if fault[0]]


def readable(text: str) -> str:
    """The prose of a page with its code words left in."""
    kept = re.sub(r"(?<!\})`([^`\n]+)`", r"\1", text)
    return "\n\n".join(paragraphs(kept))


def test_phrases_that_readers_stumble_over_are_not_used(text: str):
    assert faults(readable(text)) == []


@pytest.mark.parametrize("page", sorted(BOOK.glob("*/*.md")), ids=lambda page: f"{page.parent.name}-{page.stem}")
def test_nor_on_any_other_page(page):
    found = faults("\n\n".join(paragraphs(page.read_text(encoding="utf-8"))))
    assert [phrase for phrase, say in found if "reader's name" not in say] == []


def test_nor_in_captions_and_headings_of_reports():
    for path in (ROOT / "isce" / "report").glob("*.py"):
        code = re.sub(r'""".*?"""', "", path.read_text(encoding="utf-8"), flags=re.DOTALL)
        strings = re.findall(r'"([^"\n]*)"', code)
        assert [(path.name, fault) for text in strings for fault in faults(text)] == []


@pytest.mark.parametrize(
    "sentence",
    ["The table was not at hand.", "An attack on the own loss.", "Half is left standing.", "MMC keeps a fifth."],
)
def test_a_banned_phrase_is_found(sentence: str):
    assert faults(sentence)
    assert faults(readable(f"# Title\n\n{sentence}\n"))


def test_a_long_sentence_is_found_and_roles_links_and_formulas_are_a_word_each():
    text = "# T\n\nOf {record}`a/b` images [many words](x.md) $x + y$ fall. " + "Word " * 36 + "end.\n"
    assert [words(sentence) for sentence in sentences(text)] == [7, 37]
    assert plain("```{figure} a\nwords of a caption\n```\n| a | b |\n").strip() == ""


@pytest.mark.parametrize("page", CHAPTERS, ids=lambda page: page.stem)
def test_a_chapter_begins_with_a_question_and_a_figure_and_ends_with_two_exercises(page):
    text = page.read_text(encoding="utf-8")
    begin = text.partition("\n\n")[2]
    assert re.match(r"\*[^*]+\?\*", begin), "a question"
    if page.stem != "discussion":
        first = text.partition("\n## ")[0]
        assert re.search(r"^```\{(?:records-|benchmark-)?figure\}", first, flags=re.MULTILINE), "a figure"
    exercises = text.partition("\n## Exercises\n")[2]
    assert re.findall(r"^\*\*(\d)\.\*\*", exercises, flags=re.MULTILINE) == ["1", "2"]
    assert exercises.count(":::{dropdown} Solution") == 2
    assert "\n## " not in exercises


def test_captions_of_the_pages_are_short():
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        for figure in re.findall(r"^```\{figure\}[^\n]*\n(.*?)^```", text, flags=re.DOTALL | re.MULTILINE):
            caption = re.sub(r"^:.*$", "", figure, flags=re.MULTILINE)
            assert words(" ".join(paragraphs(caption))) <= CAPTION, page.name


def test_a_caption_is_cut_after_a_sentence_and_loses_nothing():
    shown, rest = split_caption("Accuracy by eps. One two three. " + "Word " * 24 + "end. Last.")
    assert shown == "Accuracy by eps. One two three."
    assert rest.endswith("end. Last.")
    assert split_caption("Only one.") == ("Only one.", "")
    inside = "Time: a ratio (of medians; " + "word " * 24 + "end)."
    assert split_caption(inside) == ("Time.", inside.removeprefix("Time: ")), "not within parentheses"
    long = "Accuracy: " + "word " * 24 + "end. Last."
    assert split_caption(long) == ("Accuracy.", long.removeprefix("Accuracy: "))


@pytest.mark.parametrize(
    ("cell", "shown"),
    [
        ("69.8 [66.9, 72.6] ±7.2", "69.8 ±7.2"),
        ("91.3 [88.3, 93.6] ±0.0", "91.3 [88.3, 93.6]"),
        ("99.2 [98.4, 99.6]", "99.2 [98.4, 99.6]"),
        ("+1.0 points [-1.0, +3.0] ±9.0", "+1.0 points [-1.0, +3.0] ±9.0"),
    ],
)
def test_of_two_intervals_a_table_prints_the_wider(cell: str, shown: str):
    table = table_nodes("Caption.", ["loss", "accuracy"], [["SCE", cell]])
    assert table.astext().replace("\N{MINUS SIGN}", "-").endswith(shown)


def labels() -> list[str]:
    every = (load_experiment(path.stem) for path in (ROOT / "experiments").glob("*.yaml"))
    return sorted({objective.label for experiment in every for objective in experiment.objectives})


@pytest.mark.parametrize("experiment", sorted(path.stem for path in (ROOT / "experiments").glob("*.yaml")))
def test_every_loss_of_an_experiment_has_a_name_for_readers_and_no_two_the_same(experiment):
    names = [reader_name(objective.label) for objective in load_experiment(experiment).objectives]
    assert len(set(names)) == len(names)
    assert [name for name in names if re.search(r"isce|lgm|mmc-", name)] == []


def test_every_row_of_the_suites_has_a_name_of_its_own():
    from isce.parameters.attack import load_suite

    suites = (load_suite(path.stem) for path in (ROOT / "experiments" / "suites").glob("*.yaml"))
    rows = {row.label for suite in suites for row in suite.rows}
    named = {row: row_name(row) for row in rows}
    assert len(set(named.values())) == len(rows)
    assert {row for row, name in named.items() if row == name or re.search(r"-(?:training|margin|s\d)", name)} == set()
    assert row_name("pgd50-training") == "PGD-50 on the training loss"
    assert row_name("bim10-training-targeted") == "BIM-10 on the training loss, targeted"
    assert row_name("matched100x9-targeted") == "adaptive-100 x 9, class by class"
    assert row_name("jsma-targeted") == "JSMA, targeted"
    assert row_name("nonsense") == "nonsense"


def test_a_loss_looks_the_same_in_every_figure_and_no_two_alike():
    assert len(set(LOOKS.values())) == len(LOOKS) - 1, "isce and isce-m2 are one loss"
    whole = looks(labels())
    for experiment in ("digits", "mnist", "cifar10-small"):
        for label in (o.label for o in load_experiment(experiment).objectives):
            assert looks([label])[label] == whole[label]
    many = looks([f"m{number}" for number in range(70)])
    assert len({tuple(look.values()) for look in many.values()}) == 70


def test_panels_hold_every_loss_and_eight_lines_at_most():
    every = labels()
    for some in (every, [o.label for o in load_experiment("mnist").objectives], ["sce", "isce-m2"]):
        parts = panels(some)
        assert set().union(*parts) == set(some)
        assert max(map(len, parts)) <= 8
    assert core(["mmc", "lgm", "isce-m2", "center", "sce"]) == ["sce", "isce-m2", "mmc", "lgm"]
    assert core(["b", "a"]) == ["b", "a"]
