"""What a reader of the book meets: the right page first in the search, short captions, few stops, light pages."""

from __future__ import annotations

from pathlib import Path

import pytest
from bs4 import BeautifulSoup
from page_checks import Watch
from reading import reading_pages, words

from isce.files import ROOT

pytestmark = pytest.mark.full
DESKTOP, PHONE = 1280, 390  # pixels
CAPTION, STOPS, WEIGHT = 25, 30, 500_000  # words, stops of the Tab key, bytes of a page: the status has 600 rows
PAGES = [page.relative_to(ROOT / "book").with_suffix("").as_posix() for page in reading_pages()]
#: What readers ask for, and the page that answers.
ASKED = {
    "gradient masking": "attacks/index.html#gradient-masking",
    "what is I-SCE": "faq.html#what-is-i-sce",
    "mixup": "experiments/defences.html#mixup",
    "inference region": "theory/inference_region.html",
    "AutoAttack": "attacks/ensemble.html",
}


@pytest.fixture(scope="module")
def watch(context):
    return Watch(context.new_page())


@pytest.mark.parametrize("query", ASKED)
def test_the_search_finds_the_right_page_first_and_shows_its_beginning(book: Path, watch: Watch, query: str):
    watch.open((book / "search.html").as_uri() + f"?q={query.replace(' ', '+')}", DESKTOP, "light")
    watch.page.locator("#search-results p.search-summary", has_text="found").wait_for()
    first = watch.page.locator("#search-results ul.search li").first
    assert str(first.locator("a").get_attribute("href")).startswith(ASKED[query])
    assert words(first.locator(".isce-excerpt").inner_text()) > 5
    assert watch.faults == []


def test_captions_are_short(book: Path):
    found: dict[str, int] = {}
    for path in sorted(book.glob("**/*.html")):
        soup = BeautifulSoup(path.read_text(encoding="utf-8"), "html.parser")
        for caption in soup.select("article figcaption, article table caption"):
            for part in caption.select(".caption-number, .headerlink"):
                part.decompose()
            found[f"{path.name}: {caption.get_text(' ')}"] = len(caption.get_text().split())
    assert len(found) > 100
    assert {caption: count for caption, count in found.items() if count > CAPTION} == {}


@pytest.mark.parametrize("page", [*PAGES, "experiments/why_full", "experiments/region_seen"])
def test_the_tab_key_stops_at_few_numbers_and_arrows_reach_the_others(book: Path, watch: Watch, page: str):
    watch.open((book / f"{page}.html").as_uri(), DESKTOP, "light")
    numbers = watch.page.locator("article abbr:is(.isce-number, .isce-not-run)")
    stops = numbers.evaluate_all("found => found.filter(number => number.tabIndex === 0).length")
    assert stops <= STOPS
    if numbers.count() > 1:
        assert stops >= 1
        first = watch.page.locator("article section:has(> * abbr + * abbr, > p abbr ~ abbr) abbr[tabindex='0']").first
        if first.count():
            first.focus()
            text = first.inner_text()
            watch.page.keyboard.press("ArrowRight")
            assert watch.page.evaluate("document.activeElement.localName") == "abbr"
            watch.page.keyboard.press("ArrowLeft")
            assert watch.page.evaluate("document.activeElement.innerText") == text


def test_no_page_is_heavy(book: Path):
    heavy = {path.name: path.stat().st_size for path in book.glob("**/*.html") if path.stat().st_size > WEIGHT}
    assert heavy == {}


@pytest.mark.parametrize("page", PAGES)
def test_figures_fit_a_phone(book: Path, watch: Watch, page: str):
    watch.open((book / f"{page}.html").as_uri(), PHONE, "light")
    wide = "pictures => pictures.filter(p => p.getBoundingClientRect().right > innerWidth + 1).map(p => p.src)"
    assert watch.page.locator("article figure img").evaluate_all(wide) == []
    assert watch.page.evaluate("document.documentElement.scrollWidth") == PHONE
