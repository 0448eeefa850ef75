"""Tables of texts as the book prints them; what comes from a file is text, never markup."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from docutils import nodes
from sphinx.addnodes import pending_xref

from isce.report.names import reader_name, row_name

FIGURE = re.compile(r"(?P<value>\S+) (?P<images>\[(?P<low>[^],]*), (?P<high>[^]]*)\])(?: (?P<seeds>±(?P<half>\S+)))?")
LONG, LONG_NAME, SHORT = 48, 26, 14  #: letters of a cell that may wrap, of a name that may, of a cell that never does
VERDICTS = {
    "supported": "isce-supported",
    "contradicted": "isce-contradicted",
    "inconclusive": "isce-inconclusive",
    "not testable": "isce-untestable",
    "not reproduced": "isce-untestable",
}
CHECKS = re.compile(r"(\d+ checks? needs? attention)")
TIMES = "\N{MULTIPLICATION SIGN}"
RAISED = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
PRINTED = {
    r"(?<![\w.)\]-])-(?=\d)": "\N{MINUS SIGN}",
    r"\blinf\b(?!@)": "\N{SCRIPT SMALL L}\N{INFINITY}",
    r"(?<=\d) x (?=\d)": f" {TIMES} ",
    r"\bl_(inf|1)\b": lambda norm: "\N{SCRIPT SMALL L}" + {"inf": "\N{INFINITY}", "1": "\N{SUBSCRIPT ONE}"}[norm[1]],
    r"(?<=[a-z])/(?=[a-z])": "/\N{ZERO WIDTH SPACE}",
}


def typeset(text: str) -> str:
    """A text as a book prints it: minus signs, powers of ten, norms, and products of numbers.

    A path may break after its slashes.
    """
    for pattern, printed in PRINTED.items():
        text = re.sub(pattern, printed, text)
    return re.sub(r"(?<=\d)e([+-]\d+)\b", lambda power: f"{TIMES}10{str(int(power[1])).translate(RAISED)}", text)


def captioned(text: str) -> list[nodes.Node]:
    """A caption as a book prints it: the checks that need attention lead to the page of red flags."""
    parts: list[nodes.Node] = []
    for number, piece in enumerate(CHECKS.split(text)):
        if number % 2:
            about = {"refdomain": "std", "reftype": "doc", "refexplicit": True, "refwarn": False}
            link = pending_xref("", nodes.inline(piece, piece), reftarget="/attacks/flags", **about)
            parts.append(nodes.inline("", "", link, classes=["isce-checks"]))
        elif piece:
            parts.append(nodes.Text(typeset(piece)))
    return parts


#: Words of a caption; what it says beyond them is folded away.
CAPTION = 25


def split_caption(text: str) -> tuple[str, str]:
    """The sentences that fit into a caption, of a first one that is too long the beginning, and the rest."""
    for pattern in (r"(?<=[.:]) (?=[A-Z])", r"(?<=[.:;,]) "):
        parts = re.split(pattern, text)
        texts = [" ".join(parts[:count]) for count in range(1, len(parts) + 1)]
        fit = [one for one in texts if len(one.split()) <= CAPTION and one.count("(") == one.count(")")]
        if fit:
            return re.sub(r"[:;,]$", ".", fit[-1]), text[len(fit[-1]) :].lstrip()
    return text, ""


def folded(summary: str, *content: nodes.Node, kind: str = "isce-more") -> list[nodes.Node]:
    """Content that opens below a line when that is chosen."""
    begin = nodes.raw("", f'<details class="{kind}"><summary>{summary}</summary>', format="html")
    return [begin, *content, nodes.raw("", "</details>", format="html")]


def caption_details(text: str) -> list[nodes.Node]:
    """What a caption leaves out, folded away; nothing where it leaves nothing out."""
    _, rest = split_caption(text)
    return folded("How to read it", nodes.paragraph(rest, "", *captioned(rest))) if rest else []


def readable(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> tuple[list[str], list[list[str]]]:
    """Headings and rows with the names of losses and attacks as readers see them."""
    attack = [column == "attack" for column in columns]
    named = [
        [row_name(cell) if by else reader_name(cell) for by, cell in zip(attack, row, strict=True)] for row in rows
    ]
    return [reader_name(column) for column in columns], named


def table_nodes(
    caption: str,
    columns: Sequence[str],
    rows: Sequence[Sequence[str]],
    *,
    kind: str = "",
    joined: int = 0,
    wrap: bool = False,
) -> nodes.table:
    """Return a table whose first column names the rows.

    Args:
        caption: above it.
        columns: their headings.
        rows: their cells.
        kind: further class of the table; ``isce-prose``: cells may wrap, but for short ones.
        joined: in so many leading columns an empty cell goes on with the one above it.
        wrap: cells are sentences: they wrap, and a cell that repeats while the first of its row does stands once, but
            for verdicts. On a small screen each row is a card then, whose cells say their column.
    """

    def goes_on(first: int, number: int, column: int) -> bool:
        if not wrap:
            return column < joined and not rows[number][column]
        same = (rows[number][0], rows[number][column]) == (rows[first][0], rows[first][column])
        return same and rows[number][column] not in VERDICTS

    heights = _heights(len(rows), len(columns), goes_on)
    stub = not wrap and not joined  # the first cell of a row below a spanning one is no heading
    names = stub and any(len(row[0]) > LONG_NAME for row in rows)
    classes = ["isce-table", kind, "isce-wrap" if wrap else "", "isce-names" if names else ""]
    shown, _ = split_caption(caption)
    table = nodes.table("", nodes.title(shown, "", *captioned(shown)), classes=list(filter(None, classes)))
    group = nodes.tgroup(cols=len(columns))
    group += [nodes.colspec(colwidth=1, stub=stub and column == 0) for column in range(len(columns))]
    group += nodes.thead("", nodes.row("", *(_entry(text, column) for column, text in enumerate(columns))))
    body = nodes.tbody()
    for number, row in enumerate(rows):
        present = [(column, text) for column, text in enumerate(row) if heights[number, column]]
        labels = columns if wrap else [""] * len(columns)
        cells = (_entry(text, column, heights[number, column], labels[column]) for column, text in present)
        body += nodes.row("", *cells)
    group += body
    table += group
    return table


def _heights(rows: int, columns: int, goes_on: Callable[[int, int, int], bool]) -> dict[tuple[int, int], int]:
    """Number of rows that each cell spans; 0: a cell above spans the place."""
    heights: dict[tuple[int, int], int] = {}
    for column in range(columns):
        first = 0
        for number in range(rows):
            if number and goes_on(first, number, column):
                heights[first, column] += 1
                heights[number, column] = 0
            else:
                first, heights[number, column] = number, 1
    return heights


def _entry(text: str, column: int, height: int = 1, label: str = "") -> nodes.entry:
    """One cell: a sentence may wrap, a figure may not."""
    text = str(text)
    classes = {"isce-head": column == 0, "isce-short": len(text) <= SHORT, "isce-long": len(text) > LONG}
    shown = _content(text)
    if column and label:
        shown.insert(0, nodes.inline(label, label, classes=["isce-label"]))
    entry = nodes.entry("", shown, classes=[name for name, holds in classes.items() if holds])
    entry.attributes |= {"morerows": height - 1} if height > 1 else {}
    return entry


def _content(text: str) -> nodes.paragraph:
    """Text of a cell; the interval of a figure is set apart, so that it can stand below it, of two the wider one."""
    match = FIGURE.fullmatch(text)
    if text in VERDICTS:
        return nodes.paragraph("", "", nodes.inline(text, text, classes=["isce-verdict", VERDICTS[text]]))
    if match is None:
        return nodes.paragraph(text, typeset(text))
    by_seeds = match["seeds"] and 2 * float(match["half"]) > float(match["high"]) - float(match["low"])
    interval = match["seeds"] if by_seeds else match["images"]
    shown = nodes.inline(interval, typeset(interval), classes=["isce-interval"])
    return nodes.paragraph("", "", nodes.Text(typeset(match["value"])), nodes.Text(" "), shown)
