"""Every page of the book in a browser without a network: desktop and phone, light and dark."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml
from page_checks import Watch, violations

from isce import attacks, losses
from isce.files import ROOT

BOOK = ROOT / "book"
MADE = {
    "attacks": attacks.names(),
    "losses": losses.names(),
    "api": yaml.safe_load((BOOK / "_templates" / "api.yml").read_text()),
}
PAGES = [
    *re.findall(r"(?:file|root): (\S+)", (BOOK / "_toc.yml").read_text(encoding="utf-8")),
    *(f"reference/{kind}/{name}" for kind, names in MADE.items() for name in names),
]
MADE_BY_SPHINX = ["genindex", "prf-prf", "py-modindex", "search"]
DESKTOP, PHONE = 1280, 390  # pixels
SCHEMES = ("light", "dark")


@pytest.fixture(scope="module")
def watch(context):
    return Watch(context.new_page())


@pytest.mark.full
def test_no_page_is_left_out(book: Path):
    built = {path.relative_to(book).with_suffix("").as_posix() for path in book.rglob("*.html")}
    assert {page for page in built if not page.startswith("_")} == {"index", *PAGES, *MADE_BY_SPHINX}


@pytest.mark.full
def test_index_leads_to_the_first_page(book: Path, watch: Watch):
    watch.page.goto((book / "index.html").as_uri())
    watch.page.wait_for_url(f"**/{PAGES[0]}.html")


@pytest.mark.full
def test_search_works_from_the_disk(book: Path, watch: Watch):
    watch.open((book / "search.html").as_uri() + "?q=margin", DESKTOP, "light")
    watch.page.locator("#search-results ul.search a[href*='theory/']").first.wait_for()
    watch.page.locator("#search-results p.search-summary", has_text="found").wait_for()
    assert watch.faults == []


@pytest.mark.full
@pytest.mark.parametrize("page", [*PAGES, *MADE_BY_SPHINX])
def test_page_is_whole_on_a_desktop(book: Path, watch: Watch, page: str):
    file = book / f"{page}.html"
    watch.open(file.as_uri(), DESKTOP, "light")
    assert file in watch.files
    assert watch.weight() < 1_000_000
    found = {scheme: watch.look(scheme) + violations(watch.page) for scheme in SCHEMES}
    assert found == {scheme: [] for scheme in SCHEMES}


@pytest.mark.full
@pytest.mark.parametrize("page", [*PAGES, *MADE_BY_SPHINX])
def test_page_is_whole_on_a_phone(book: Path, watch: Watch, page: str):
    """Colours are those of the desktop; what is too wide, and so must scroll within reach of the keyboard, differs."""
    watch.open((book / f"{page}.html").as_uri(), PHONE, "light")
    found = {scheme: watch.look(scheme) for scheme in SCHEMES} | {"axe": violations(watch.page, contrast=False)}
    assert found == {"light": [], "dark": [], "axe": []}


@pytest.mark.full
@pytest.mark.parametrize(("width", "cards"), [(DESKTOP, False), (PHONE, True)])
def test_tables_of_sentences_are_read_without_scrolling_sideways(book: Path, watch: Watch, width: int, cards: bool):
    watch.open((book / "verdict.html").as_uri(), width, "light")
    boxes = watch.page.locator(".pst-scrollable-table-container:has(table.isce-wrap)")
    assert boxes.count() > 1
    assert boxes.evaluate_all("boxes => boxes.filter(b => b.scrollWidth > b.clientWidth + 1).length") == 0
    label = watch.page.locator("table.isce-wrap .isce-label").first
    assert label.is_visible() == cards


GOOD = '<!doctype html><html lang="en"><title>t</title><main><h1>t</h1><article><p>text</p>{}</article></main></html>'
FAULTS = {
    '<img src="none.png" alt="x">': "image does not load",
    '<img src="{picture}">': "image without alternative text",
    '<img src="{blank}" alt="x">': "blank figure",
    '<canvas width="20" height="20"></canvas>': "blank figure",
    '<p style="width: 60rem">wide</p>': "page scrolls sideways",
    '<div style="overflow: hidden"><p style="width: 60rem">cut</p></div>': "beyond the edge",
    "<p>a norm $x$ that</p>": "raw TeX",
    r"<p>a norm \(x\) that</p>": "raw TeX",
    '<span class="math">x</span>': "maths not rendered",
    '<mjx-merror title="Undefined">x</mjx-merror>': "maths with an error",
    "<script>console.error('no')</script>": "console error",
    "<script>throw Error('no')</script>": "script error",
    '<script src="https://example.org/x.js"></script>': "asks for what is not on the disk",
    '<link rel="stylesheet" href="none.css">': "request failed",
    '<p style="color: #ccc">pale</p>': "color-contrast",
}


@pytest.mark.full
@pytest.mark.parametrize("fault", FAULTS)
def test_faults_are_found(watch: Watch, tmp_path: Path, fault: str):
    """The checks can fail: each of these faults is told, and a page without them has none."""
    svg = '<svg xmlns="http://www.w3.org/2000/svg" width="20" height="20">{}</svg>'
    pictures = {"picture": '<rect width="9" height="9"/>', "blank": ""}
    for name, content in pictures.items():
        (tmp_path / f"{name}.svg").write_text(svg.format(content))
    good, bad = tmp_path / "good.html", tmp_path / "bad.html"
    good.write_text(GOOD.format('<img src="picture.svg" alt="x">'))
    bad.write_text(GOOD.format(fault.format(**{name: f"{name}.svg" for name in pictures}) if "{" in fault else fault))
    watch.open(good.as_uri(), PHONE, "light")
    assert watch.look("light") + violations(watch.page) == []
    watch.open(bad.as_uri(), PHONE, "light")
    assert any(FAULTS[fault] in found for found in watch.look("light") + violations(watch.page))
