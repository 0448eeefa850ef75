"""What a link to a theorem leads to is copied into the page, once, without ids, and only from inside the book."""

import re
import sys
from types import SimpleNamespace

import pytest

from isce.files import ROOT

sys.path.insert(0, str(ROOT / "book" / "_ext"))
from isce_previews import LINK, add_previews

THEOREM = '<div class="proof" id="thm-one"><p>It <a href="other.html">holds</a>.<a class="headerlink">#</a></p></div>'


@pytest.fixture
def book(tmp_path):
    pages = {
        "a.html": f"<html><body>{THEOREM}</body></html>",
        "b/c.html": '<html><body><a href="../a.html#thm-one">Theorem 1</a> <a href="#thm-none">x</a></body></html>',
        "d.html": '<html><body><a href="a.html#section">no theorem</a></body></html>',
    }
    for name, text in pages.items():
        path = tmp_path / "html" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tmp_path / "html"


def build(book, error=None, builder="html"):
    add_previews(SimpleNamespace(outdir=str(book), builder=SimpleNamespace(name=builder)), error)
    return (book / "b" / "c.html").read_text()


def test_a_page_gets_a_copy_of_what_its_links_lead_to(book):
    page = build(book)
    wanted = '<template class="isce-preview-of" data-href="../a.html#thm-one"><div class="proof"><p>It holds.</p></div>'
    assert wanted in page
    assert page.count("<template") == 1
    assert "<template" not in (book / "d.html").read_text()
    assert (book / "a.html").read_text() == f"<html><body>{THEOREM}</body></html>"


def test_a_link_to_a_word_of_the_glossary_gets_its_meaning(book):
    words = '<dl><dt id="term-SCE">SCE</dt><dt id="term-loss">loss</dt><dd>A <a href="x.html">sum</a>.</dd></dl>'
    (book / "glossary.html").write_text(f"<body>{words}<dl><dt id='term-last'>last</dt></dl></body>")
    (book / "d.html").write_text(
        '<body><a href="glossary.html#term-SCE">it</a><a href="glossary.html#term-last">x</a></body>'
    )
    build(book)
    page = (book / "d.html").read_text()
    assert 'data-href="glossary.html#term-SCE"><dt>SCE</dt><dd>A sum.</dd></template>' in page
    assert 'data-href="glossary.html#term-last"><dt>last</dt></template>' in page


def test_a_second_build_changes_nothing_and_follows_a_theorem_that_changed(book):
    first = build(book)
    assert build(book) == first
    (book / "a.html").write_text(f"<html><body>{THEOREM.replace('holds', 'fails')}</body></html>")
    second = build(book)
    assert "It fails." in second
    assert second.count("<template") == 1


def test_nothing_outside_the_book_is_read(book):
    (book.parent / "secret.html").write_text(THEOREM)
    (book / "d.html").write_text('<body><a href="../secret.html#thm-one">out</a></body>')
    build(book)
    assert "<template" not in (book / "d.html").read_text()


def test_a_failed_build_and_another_format_are_left_alone(book):
    assert "<template" not in build(book, error=RuntimeError())
    assert "<template" not in build(book, builder="singlehtml")


def test_every_numbered_statement_of_the_book_has_a_preview():
    pages = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "book" / "theory").glob("*.md"))
    labels = re.findall(r"\{prf:[a-z]+\}[^\n]*\n:label: (\S+)", pages)
    assert len(labels) > 20
    assert [label for label in labels if not LINK.search(f'href="page.html#{label}"')] == []
