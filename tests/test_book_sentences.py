"""Sentences of the book are whole: no word twice, no wrong article, no stop missing, every bracket closed."""

import re

import pytest

from isce.files import ROOT

PAGES = sorted(page for page in (ROOT / "book").rglob("*.md") if "_build" not in page.parts)
DIRECTIVE = r"^(?P<fence>`{3,}|:{3,})\{(?P<name>[a-z:-]+)\}.*?^(?P=fence)[ \t]*$"
#: Directives whose content is prose.
PROSE = ("prf:", "figure", "container")
#: What stands for a formula, a role or a code, as a word of its own.
WORD = "Xy"
VOWEL = r"(?:[aeio]\w*|8\w*|1[18](?:,\d|\b)|u(?!n[ai]|s[eiu]|ti)\w*)"
FAULTS = {
    "a word twice": r"\b(?!(?:that|had|Xy)\b)([A-Za-z]+)(?: +| *\n *)\1\b(?!-)",
    "two spaces": r"(?<=\S)(?<!\|)  +(?=[^\s|])",
    "a before a vowel": rf"\ba\s+(?!one|once|eu|Xy){VOWEL}",
    "an before a consonant": r"\ban\s+(?!hour|honest|SCE|L|MNIST|FGSM|RG|Xy)[bcdfgjklmnpqrstvwyzBCDGJKPQTUVWYZ2-79]\w*",
    "a space before a mark": r"(?<=\w) [,.;:!?](?=\s|$)",
    "a mark twice": r"(?<![.,])([,;:])\1|,\.|\.,(?!\.)|;\.",
}


def plain(text: str) -> str:
    """The page with code, formulas, roles and link targets replaced; comments and directives without prose go."""
    text = re.sub(r"\A---\n.*?\n---\n|<!--.*?-->", "", text, flags=re.DOTALL)

    def content(found: re.Match[str]) -> str:
        if not found["name"].startswith(PROSE):
            return ""
        inner = "\n".join(found[0].split("\n")[1:-1])
        return re.sub(r"^:\w+:.*\n", "", inner, flags=re.MULTILINE)

    for _ in range(2):  # a container holds a figure
        text = re.sub(DIRECTIVE, content, text, flags=re.DOTALL | re.MULTILINE)
    text = re.sub(r"^ *(`{3,}).*?^ *\1[ \t]*$", "", text, flags=re.DOTALL | re.MULTILINE)
    text = re.sub(r"\$\$.*?\$\$(?: \([\w-]+\))?", "", text, flags=re.DOTALL)
    text = re.sub(r"(?:\{[a-z:]+\})?`[^`]*`|\$[^$]+\$", WORD, text)
    text = re.sub(r"\]\([^()]*\)", "]", text)
    return re.sub(r"^\||^\(attack-.*\)=$|^\(fails-.*\)=$", "", text, flags=re.MULTILINE)


def paragraphs(text: str) -> list[str]:
    """Paragraphs, items of lists and definitions, without headings and rows of tables."""
    parts = re.split(r"\n\s*\n|\n(?=\s*(?:[*-]|\d\.) )|\n(?=: )", text)
    return [part.strip() for part in parts if part.strip() and not part.lstrip().startswith("#") and " | " not in part]


def faults(source: str) -> list[str]:
    """What is broken on a page, each with its words."""
    text = plain(source)
    found = [f"{what}: {m[0]!r}" for what, fault in FAULTS.items() for m in re.finditer(fault, text)]
    for part in paragraphs(text):
        without = re.sub(r"[\[(][-\d., ]+[\])]|\[[^\[\]]*\]", "", re.sub(r"^\d\.|^\(\d\)|\(\d\)", "", part))
        if without.count("(") != without.count(")"):
            found.append(f"brackets: {part[:60]!r}")
    before = re.compile(rf"([^\n]+)\n\n(?={DIRECTIVE})", flags=re.DOTALL | re.MULTILINE)
    for line in before.finditer(source):
        last = line[1].strip()
        shows = re.match(r"records-|benchmark-|reference-|attack-|loss-", line["name"])
        if shows and not re.search(r"[.:?!)`=]\Z|\A(#|\||```|:)", last):
            found.append(f"no stop: {last[-60:]!r}")
    return found


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT / "book").as_posix())
def test_every_sentence_is_whole(page):
    assert faults(page.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    "broken",
    [
        "It keeps the\nthe most.",
        "It keeps  the most.",
        "This is a image.",
        "It took a 8-bit image.",
        "This is an network.",
        "Few stand (under every attack.",
        "Few stand , most fall.",
        "Few stand,, most fall.",
        "Here is what stands\n\n```{records-table} mnist/results\n```",
        "```{prf:theorem} Name\n:label: thm-x\n\nThis is is it.\n```",
    ],
)
def test_a_broken_sentence_is_found(broken):
    assert faults(f"# Title\n\n{broken}\n")


def test_formulas_code_and_tables_are_no_sentences():
    text = (
        "A term $m  m$ and `a  a` in $[0, 1)$ of {record}`a/b  b`, for a unit, a one, an SCE, a user:\n\n"
        "```{records-table} mnist/results\n:optional:\n```\n\n| a  | b |\n| --- | --- |\n| (1 | 2 |\n"
    )
    assert faults(text) == []
