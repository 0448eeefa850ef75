"""The book's reading part as one PDF: its pages are bound into one document, which a headless browser prints."""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass
from html import escape
from pathlib import Path
from posixpath import dirname, normpath
from urllib.parse import unquote, urlsplit

from bs4 import BeautifulSoup, Tag
from playwright.sync_api import BrowserContext
from pypdf import PdfReader, PdfWriter
from pypdf.generic import IndirectObject

from isce import __version__
from isce.files import write_atomic
from isce.publish.browser import offline_browser
from isce.strict import ConfigError

PRINTABLE = 680  # CSS pixels: A4 without its margins, which isce-print.css sets
FOOTER = '<p style="font: 8px sans-serif; width: 100%; text-align: center"><span class="pageNumber"></span></p>'
READY = "async () => { await window.MathJax?.startup?.promise; await document.fonts.ready; }"
# What is wider than the paper can't scroll there: it is shrunk to fit.
SHRINK = """(width) => {
    for (const box of document.querySelectorAll('table, pre, mjx-container')) {
        const wide = Math.max(box.scrollWidth, box.getBoundingClientRect().width);
        const room = Math.min(width, box.parentElement.clientWidth || width);
        if (wide > room + 1) box.style.zoom = room / wide;
    }
}"""
APPENDIX, SOURCES = "Appendix", "bibliography.html"  #: the part that stays on the screen, but for the sources
PRINTS = 4  # at most: the page numbers of one stand in the contents of the next


@dataclass(frozen=True)
class Chapter:
    """One page of the book, as its table of contents names it: ``name`` is its path without the suffix."""

    name: str
    title: str
    part: str
    level: int

    @property
    def anchor(self) -> str:
        """Its id in the bound document."""
        return self.name.replace("/", "-")


def chapters(html: Path) -> list[Chapter]:
    """Every page before the appendix, in the order of the side bar, and the sources; the book's first page comes first.

    Raises:
        ConfigError: the folder holds no rendered book.
    """
    index = html / "index.html"
    refresh = _read(index).select_one("meta[http-equiv=Refresh]") if index.is_file() else None
    if refresh is None:
        raise ConfigError(f"no rendered book in {html}: `make book` first")
    root = str(refresh["content"]).partition("url=")[2].removesuffix(".html")
    first = _read(html / f"{root}.html")
    found = [Chapter(root, _text(first.select_one("article h1")), "", 1)]
    part = ""
    for item in first.select("nav.bd-links .caption-text, nav.bd-links li > a.reference.internal"):
        if item.name == "span":
            part = _text(item)
        elif part != APPENDIX or item["href"] == SOURCES:
            name = str(item["href"]).removesuffix(".html")
            found.append(Chapter(name, _text(item), part, len(item.find_parents("li"))))
    return found


def bind(html: Path, every: list[Chapter], numbers: Mapping[str, int] | None = None) -> str:
    """One document of all pages, to lie in the folder of the rendered book: links between pages stay inside it.

    Args:
        html: the rendered book.
        every: its chapters.
        numbers: the page on which each chapter begins, by its anchor, for the table of contents; None: not known yet.
    """
    anchors = {f"{chapter.name}.html": chapter.anchor for chapter in every}
    pages = {chapter.name: _read(html / f"{chapter.name}.html") for chapter in every}
    head = _head(pages)
    body: list[str] = []
    part = ""
    for chapter in every:
        article = pages[chapter.name].select_one("article")
        assert article is not None
        _relink(article, chapter, anchors)
        above = f'<p class="isce-part">{escape(chapter.part)}</p>' if chapter.part != part else ""
        part = chapter.part
        body.append(
            f'<section class="isce-chapter isce-level-{chapter.level}" id="{chapter.anchor}">{above}{article}</section>'
        )
    cover = (
        f'<header class="isce-cover"><p>{escape(_title(pages[every[0].name]))}</p><p>isce {__version__}</p></header>'
    )
    return (
        f'<!doctype html><html lang="en" data-theme="light" data-mode="light">{head}<body class="isce-bound">'
        f"{cover}{_contents(every, numbers or {})}"
        f'<main class="bd-article-container">{"".join(body)}</main></body></html>'
    )


def print_book(html: Path, out: Path) -> int:
    """Print the rendered book in ``html`` to the file ``out``; returns its number of pages.

    Raises:
        ConfigError: there is no rendered book, or no browser.
    """
    every = chapters(html)
    numbers: dict[str, int] = {}
    printed = b""
    with offline_browser() as context:
        for _ in range(PRINTS):
            printed = _print(context, html, bind(html, every, numbers))
            before, numbers = numbers, _page_numbers(printed, every)
            if numbers == before:
                break
    writer = PdfWriter(io.BytesIO(printed), incremental=True)
    _add_outline(writer, every, numbers)
    writer.add_metadata({"/Title": _title(_read(html / f"{every[0].name}.html"))})
    whole = io.BytesIO()
    writer.write(whole)
    write_atomic(out, whole.getvalue())
    return len(writer.pages)


def _print(context: BrowserContext, html: Path, text: str) -> bytes:
    """Print a bound document from a page of its own: Chromium breaks a page that it has printed before elsewhere."""
    bound = html / "_bound.html"
    write_atomic(bound, text)
    try:
        with context.new_page() as page:
            page.set_viewport_size({"width": PRINTABLE, "height": 1000})
            page.emulate_media(media="print", color_scheme="light")
            page.goto(bound.as_uri())
            page.evaluate(READY)
            page.evaluate(SHRINK, PRINTABLE)
            return page.pdf(
                prefer_css_page_size=True,
                print_background=True,
                display_header_footer=True,
                header_template="<span></span>",
                footer_template=FOOTER,
                tagged=True,
            )
    finally:
        bound.unlink()


def _add_outline(writer: PdfWriter, every: list[Chapter], numbers: dict[str, int]) -> None:
    """Bookmarks, nested as in the side bar; Chromium's own say a heading twice that moved to the next page."""
    parts: dict[str, IndirectObject] = {}
    above: IndirectObject | None = None
    for chapter in every:
        at = numbers[chapter.anchor] - 1
        if chapter.part and chapter.part not in parts:
            parts[chapter.part] = writer.add_outline_item(title=chapter.part, page_number=at, bold=True)
        parent = above if chapter.level > 1 else parts.get(chapter.part)
        item = writer.add_outline_item(title=chapter.title, page_number=at, parent=parent)
        above = item if chapter.level == 1 else above


def _page_numbers(printed: bytes, every: list[Chapter]) -> dict[str, int]:
    """The page on which each chapter begins, from 1, by its anchor."""
    reader = PdfReader(io.BytesIO(printed))
    places = {name.removeprefix("/"): place for name, place in reader.named_destinations.items()}
    found: dict[str, int] = {}
    for chapter in every:
        number = reader.get_destination_page_number(places[chapter.anchor])
        assert number is not None
        found[chapter.anchor] = number + 1
    return found


def _contents(every: list[Chapter], numbers: Mapping[str, int]) -> str:
    """The table of contents, with the page numbers that are known."""
    lines = ["<nav class='isce-contents'><h1>Contents</h1>"]
    part = ""
    for chapter in every:
        if chapter.part != part:
            part = chapter.part
            lines.append(f"<p class='isce-contents-part'>{escape(part)}</p>")
        link = f'<a href="#{chapter.anchor}">{escape(chapter.title)}</a>'
        number = f'<span class="isce-page-number">{numbers.get(chapter.anchor, "")}</span>'
        lines.append(f'<p class="isce-level-{chapter.level}">{link}{number}</p>')
    return "".join([*lines, "</nav>"])


def _head(pages: dict[str, BeautifulSoup]) -> str:
    """Style sheets and, of the scripts, MathJax: the head of the first page that has formulas."""
    name, page = next(
        ((name, page) for name, page in pages.items() if page.select_one("head script[src*=mathjax]")),
        next(iter(pages.items())),
    )
    head = page.head
    assert head is not None
    for element in head.select("script"):
        if "mathjax" not in f"{element.get('src', '')}{element.string}".lower():
            element.decompose()
    for element in head.select("link"):
        if "stylesheet" not in (element.get("rel") or ()):
            element.decompose()
    for element in head.select("[src], [href]"):
        for attribute in ("src", "href"):
            if attribute in element.attrs:
                element[attribute] = _inside(name, str(element[attribute]))
    return str(head)


def _relink(article: Tag, chapter: Chapter, anchors: dict[str, str]) -> None:
    """Ids get the chapter's name in front; links lead to them; what has no use on paper goes."""
    for element in article.select("script, a.headerlink, details.isce-sources > :not(summary)"):
        element.decompose()
    for element in article.select("details:not(.isce-sources)"):
        element["open"] = ""
    for element in article.select("[id]"):
        element["id"] = f"{chapter.anchor}--{element['id']}"
    for picture in article.select("img[src]"):
        picture["src"] = _inside(chapter.name, str(picture["src"]))
    for link in article.select("a[href]"):
        target = urlsplit(str(link["href"]))
        if target.scheme:
            continue
        anchor = anchors.get(_inside(chapter.name, target.path)) if target.path else chapter.anchor
        if anchor is None:  # a file to download, an index
            link.unwrap()
        else:
            link["href"] = f"#{anchor}--{target.fragment}" if target.fragment else f"#{anchor}"


def _inside(name: str, target: str) -> str:
    """A page's relative link as seen from the book's folder."""
    return normpath(f"{dirname(name)}/{unquote(target)}").lstrip("/") if target else target


def _read(page: Path) -> BeautifulSoup:
    return BeautifulSoup(page.read_text(encoding="utf-8"), "html.parser")


def _title(page: BeautifulSoup) -> str:
    """The book's title: what stands after the page's own in the head's title."""
    return _text(page.title).rpartition(" — ")[2]


def _text(element: Tag | None) -> str:
    return element.get_text().removesuffix("#").strip() if element is not None else ""
