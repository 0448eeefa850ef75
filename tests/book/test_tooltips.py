"""What opens where one points, taps or tabs: the records behind a number, and the statement that a link leads to."""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from page_checks import Watch, violations
from playwright.sync_api import Locator

from isce.files import ROOT

pytestmark = pytest.mark.full
DESKTOP, PHONE = 1280, 390  # pixels


@pytest.fixture(scope="module")
def watch(context):
    return Watch(context.new_page())


def opened(watch: Watch) -> Locator:
    """The box, once it is there."""
    box = watch.page.locator("#isce-preview")
    box.wait_for(state="visible")
    return box


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_number_with_the_focus_says_its_records(book: Path, watch: Watch, scheme: str):
    watch.open((book / "experiments" / "digits.html").as_uri(), DESKTOP, scheme)
    number = watch.page.locator("article section section abbr.isce-number").first
    assert number.evaluate("e => e.tabIndex") == 0, "the Tab key reaches the first of a section"
    number.focus()
    box = opened(watch)
    assert number.get_attribute("aria-describedby") == box.get_attribute("id")
    links = box.locator("a", has_text="record.json").all()
    assert links
    for link in links:
        source = ROOT / "results" / link.inner_text()
        copy = Path(unquote(urlsplit(str(link.evaluate("e => e.href"))).path))
        assert copy.read_bytes() == source.read_bytes()
    assert watch.look(scheme) + violations(watch.page) == []
    watch.page.keyboard.press("Escape")
    box.wait_for(state="detached")


def test_the_keyboard_reaches_the_records_of_a_number_and_comes_back(book: Path, watch: Watch):
    watch.open((book / "experiments" / "mnist.html").as_uri(), DESKTOP, "light")
    number = watch.page.locator("article abbr.isce-number[tabindex='0']", has_text="%").first
    active = "document.activeElement.textContent"
    number.focus()
    box = opened(watch)
    links = box.locator("a").all_inner_texts()
    assert len(links) > 2
    for last in (links[-1], links[0]):
        number.press("Enter")
        assert watch.page.evaluate(active) == links[0]
        while watch.page.evaluate(active) != last:
            watch.page.keyboard.press("Tab")
        watch.page.keyboard.press("Tab" if last == links[-1] else "Shift+Tab")
        assert watch.page.evaluate("document.activeElement.matches('abbr.isce-number')"), "round to the number"
        assert box.is_visible()
    number.press("Space")
    assert watch.page.evaluate(active) == links[0]
    watch.page.keyboard.press("Escape")
    box.wait_for(state="detached")
    assert watch.page.evaluate("document.activeElement.matches('abbr.isce-number')")
    watch.page.keyboard.press("Tab")
    assert not watch.page.evaluate("document.activeElement.closest('#isce-preview')"), "no stop of its own"
    assert watch.faults == []


def test_the_records_beyond_the_first_are_listed_at_the_end_of_the_page(book: Path, watch: Watch):
    watch.open((book / "experiments" / "mnist.html").as_uri(), DESKTOP, "light")
    listed = watch.page.locator(".isce-page-records li")
    assert not listed.first.is_visible()
    number = watch.page.locator("article abbr.isce-number", has_text=re.compile(r"^3$")).first
    number.focus()
    opened(watch).get_by_role("link", name="more").click()
    listed.first.wait_for(state="visible")
    assert listed.count() == len(set(listed.all_inner_texts())) > 20


def test_a_link_to_a_word_shows_its_meaning(book: Path, watch: Watch):
    watch.open((book / "intro.html").as_uri(), DESKTOP, "light")
    watch.page.locator("article a.reference[href$='#term-worst-case']").first.focus()
    assert "counts as robust only if" in opened(watch).inner_text()
    assert watch.faults == []


def test_a_number_that_is_tapped_says_its_records_within_the_screen(book: Path, watch: Watch):
    watch.open((book / "experiments" / "digits.html").as_uri(), PHONE, "light")
    numbers = watch.page.locator("article section > p > abbr.isce-number", has_text="%").all()[:3]
    for number in numbers:
        number.click()
        box = opened(watch)
        assert "record.json" in box.inner_text()
        place = box.bounding_box()
        assert place is not None
        assert place["x"] >= 0
        assert place["x"] + place["width"] <= PHONE
        watch.page.get_by_role("heading", level=1).click()
        box.wait_for(state="detached")
    numbers[0].click()
    opened(watch).locator("a").first.click()
    watch.page.wait_for_url("**/record.json")


@pytest.mark.parametrize("kind", ["thm", "def", "conj"])
def test_a_link_with_the_focus_shows_the_statement_that_it_leads_to(book: Path, watch: Watch, kind: str):
    watch.open((book / "glossary.html").as_uri(), DESKTOP, "light")
    link = watch.page.locator(f"article a.reference[href*='#{kind}-']").first
    where, name = str(link.get_attribute("href")).split("#")
    link.focus()
    box = opened(watch)
    box.locator("mjx-container").first.wait_for()
    shown = box.locator("p.admonition-title").inner_text()
    assert watch.faults == []
    watch.open((book / where).as_uri(), DESKTOP, "light")
    assert watch.page.locator(f"#{name} p.admonition-title").first.inner_text() == shown
