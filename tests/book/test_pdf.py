"""The printed book: every chapter is in it, where its contents say, and no link leads out by accident."""

from __future__ import annotations

import re
import unicodedata
from pathlib import Path

import pytest
from bs4 import BeautifulSoup
from pypdf import PdfReader

from isce.publish.pdf import Chapter, bind, chapters, print_book
from isce.strict import ConfigError

PAGE = """<!doctype html><html><head><title>{title} — Book</title></head><body>
<nav class="bd-links"><p><span class="caption-text">Part</span></p><ul>
<li><a class="reference internal" href="{up}a.html">A</a><ul>
<li><a class="reference internal" href="{up}deep/b.html">B</a></li></ul></li></ul>
<p><span class="caption-text">Appendix</span></p><ul>
<li><a class="reference internal" href="{up}c.html">C</a></li></ul></nav>
<article><section id="s"><h1>{title}<a class="headerlink" href="#s">#</a></h1>{text}</section></article>
</body></html>"""


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """A rendered book of three pages that link to each other."""
    (tmp_path / "deep").mkdir()
    (tmp_path / "index.html").write_text('<meta http-equiv="Refresh" content="0; url=first.html" />')
    pages = {
        "first": '<a href="deep/b.html#s">b</a> <a href="https://example.org/x">out</a>',
        "a": '<a href="#s">here</a> <a href="_downloads/x.csv" class="download">CSV</a>',
        "deep/b": '<img src="../_images/x.svg" alt="x"><a href="../a.html">a</a>',
    }
    for name, text in pages.items():
        content = PAGE.format(title=name.upper(), up="../" * name.count("/"), text=text)
        (tmp_path / f"{name}.html").write_text(content)
    return tmp_path


def test_chapters_come_in_the_order_of_the_side_bar(small: Path):
    assert chapters(small) == [
        Chapter("first", "FIRST", "", 1),
        Chapter("a", "A", "Part", 1),
        Chapter("deep/b", "B", "Part", 2),
    ]


def test_links_between_pages_stay_inside_and_files_lose_theirs(small: Path):
    bound = BeautifulSoup(bind(small, chapters(small)), "html.parser")
    links = {link.get_text(): str(link["href"]) for link in bound.select("article a")}
    assert links == {"b": "#deep-b--s", "out": "https://example.org/x", "here": "#a--s", "a": "#a"}
    assert "CSV" in bound.get_text()
    assert bound.select_one("article img")["src"] == "_images/x.svg"
    ids = [str(element["id"]) for element in bound.select("[id]")]
    assert sorted(ids) == sorted(set(ids))
    assert {target[1:] for target in links.values() if target.startswith("#")} <= set(ids)


def test_without_a_rendered_book_it_says_what_to_do(tmp_path: Path):
    with pytest.raises(ConfigError, match="`make book` first"):
        print_book(tmp_path, tmp_path / "book.pdf")


@pytest.mark.full
def test_every_chapter_is_printed_where_the_contents_say(run, book: Path, chromium: str, tmp_path: Path):
    run("pdf", "--book", book, "--out", tmp_path / "book.pdf")
    assert not (book / "_bound.html").exists()
    printed = PdfReader(tmp_path / "book.pdf")
    every = chapters(book)
    starts = [printed.get_destination_page_number(printed.named_destinations[f"/{c.anchor}"]) for c in every]
    assert starts == sorted(starts)
    contents = flat("".join(page.extract_text() for page in printed.pages[1 : starts[0]]))
    for chapter, start in zip(every, starts, strict=True):
        assert flat(chapter.title) in flat(printed.pages[start].extract_text())
        assert f"{flat(chapter.title)}{start + 1}" in contents
    annotations = [a.get_object() for page in printed.pages for a in page.get("/Annots", [])]
    addresses = [a["/A"]["/URI"] for a in annotations if "/A" in a]
    assert addresses
    assert all(address.startswith("https://") for address in addresses)
    assert list(outline(printed.outline)) == [title for c in every for title in titles(c, every)]


def flat(text: str) -> str:
    """Letters and digits: in what is read back from a PDF lines break anywhere, and fi can be one letter."""
    return re.sub(r"\W+", "", unicodedata.normalize("NFKC", text))


def titles(chapter: Chapter, every: list[Chapter]) -> list[str]:
    """A chapter's bookmarks: its own, and before the first of a part that of the part."""
    first = next(other for other in every if other.part == chapter.part)
    return [chapter.part, chapter.title] if chapter.part and chapter == first else [chapter.title]


def outline(entries):
    for entry in entries:
        if isinstance(entry, list):
            yield from outline(entry)
        else:
            yield entry.title
