"""The plots that a reader can move: by mouse or by keyboard, and away without scripts."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from page_checks import violations
from playwright.sync_api import Locator, Page

from isce.report import worked

pytestmark = pytest.mark.full
ATTACK, THREAT = "PGD-50 on the training loss", "linf, eps 0.1"


@pytest.fixture
def page(context):
    opened = context.new_page()
    yield opened
    opened.close()


def chooser(page: Page, book: Path, name: str = "mnist_full") -> Locator:
    page.goto((book / "experiments" / f"{name}.html").as_uri())
    return page.locator(".isce-chooser")


def accuracies(box: Locator) -> dict[str, str]:
    """What stands in words beside the marks, by objective."""
    rows = [
        item.locator("span").all_inner_texts()
        for item in box.locator(".isce-chooser-rows > li:not([aria-hidden])").all()
    ]
    return dict(rows)


def table_row(page: Page, attack: str, threat: str) -> dict[str, str]:
    """A row of the page's table of all attacks: texts by column."""
    table = page.locator("table", has=page.locator("thead th", has_text="threat")).first
    columns = table.locator("thead th").all_inner_texts()
    rows = [row.locator("th, td").all_text_contents() for row in table.locator("tbody tr").all()]
    (found,) = (row for row in rows if [cell.strip() for cell in row[:2]] == [attack, threat])
    return {column.strip(): " ".join(cell.split()) for column, cell in zip(columns, found, strict=True)}


def test_a_chosen_attack_shows_the_figures_of_the_table(book: Path, page: Page):
    box = chooser(page, book)
    before, said = accuracies(box), box.locator("[aria-live]").inner_text()
    assert said.startswith(f"worst case, {THREAT}: ")
    box.get_by_label("Attack").select_option(ATTACK)
    after = accuracies(box)
    assert box.locator("[aria-live]").inner_text().startswith(f"{ATTACK}, {THREAT}: ")
    assert after != before
    row = table_row(page, ATTACK, THREAT.replace(", eps ", "@"))
    assert after == {label: row[label] for label in after}
    assert len(after) == len(row) - 3


def test_what_was_not_evaluated_says_why_and_stands_last(book: Path, page: Page):
    html = (book / "experiments" / "mnist_full.html").read_text(encoding="utf-8")
    start = html.index('<script type="application/json">{"start"') + len('<script type="application/json">')
    data, _ = json.JSONDecoder().raw_decode(html[start:])
    text = "not evaluated: seed 0: autoattack: ValueError: no"
    found = next(one for one in data["attacks"][0]["at"] if one["threat"] == THREAT)
    first = max(range(len(data["objectives"])), key=lambda number: found["results"][number][0])
    found["results"][first] = text
    end = html.index("</script>", start)
    changed = book / "experiments" / "mnist-changed.html"
    changed.write_text(html[:start] + json.dumps(data) + html[end:], encoding="utf-8")
    try:
        box = chooser(page, book, "mnist-changed")
        box.get_by_label("highest first").check()
        said = accuracies(box)
    finally:
        changed.unlink()
    label = data["objectives"][first]["label"]
    assert said[label] == text
    assert list(said)[-1] == label
    assert sum(value == text for value in said.values()) == 1


def test_eps_and_what_was_left_are_said(book: Path, page: Page):
    box = chooser(page, book)
    at_first = accuracies(box)
    box.get_by_label("Threat model and eps").select_option("linf, eps 0.3")
    assert accuracies(box) != at_first
    assert "had left" not in box.locator("[aria-live]").inner_text()
    box.get_by_label("Attack").select_option("AutoAttack")
    assert box.get_by_label("Threat model and eps").input_value() == "linf, eps 0.3", "kept where it was run"
    assert "had left" in box.locator("[aria-live]").inner_text()
    box.get_by_label("Attack").select_option("C&W-100")
    assert box.get_by_label("Threat model and eps").input_value() == "l2, eps 2"
    assert violations(page) == []


def test_objectives_are_chosen_and_sorted(book: Path, page: Page):
    box = chooser(page, book)
    every = accuracies(box)
    box.get_by_label("center loss").uncheck()
    assert accuracies(box) == {label: text for label, text in every.items() if label != "center loss"}
    box.get_by_label("highest first").check()
    heights = [float(text.split()[0]) for text in accuracies(box).values()]
    assert heights == sorted(heights, reverse=True)
    assert list(accuracies(box)) != [label for label in every if label != "center loss"]


def test_a_mark_stands_where_its_figure_says(book: Path, page: Page):
    box = chooser(page, book)
    for item in box.locator(".isce-chooser-rows > li:not([aria-hidden])").all():
        track, mark = (item.locator(part).bounding_box() for part in (".isce-chooser-track", ".isce-chooser-mark"))
        middle = (mark["x"] + mark["width"] / 2 - track["x"]) / track["width"]
        assert 100 * middle == pytest.approx(float(item.locator("b").inner_text()), abs=1)


@pytest.mark.parametrize("name", ["digits_full", "mnist_full", "cifar10_full"])
def test_the_keyboard_suffices(book: Path, page: Page, name: str):
    box = chooser(page, book, name)
    said = box.locator("[aria-live]").inner_text()
    box.get_by_label("Attack").focus()
    page.keyboard.press("ArrowDown")
    assert box.locator("[aria-live]").inner_text() != said
    page.keyboard.press("Tab")
    page.keyboard.press("Tab")
    before = accuracies(box)
    page.keyboard.press("Space")
    assert len(accuracies(box)) == len(before) - 1


def test_without_scripts_tables_and_pictures_stay(book: Path, context):
    plain = context.browser.new_context(java_script_enabled=False, offline=True)
    page = plain.new_page()
    assert not chooser(page, book).is_visible()
    assert page.locator("table", has_text=ATTACK).first.is_visible()
    page.goto((book / "theory" / "explorer.html").as_uri())
    assert page.locator(".isce-explorer img").is_visible()
    page.goto((book / "intro.html").as_uri())
    assert page.locator(".isce-worked img").is_visible()
    page.goto((book / "experiments" / "gallery.html").as_uri())
    assert page.locator(".isce-gallery table:visible").count() == page.locator(".isce-gallery").count() == 4
    plain.close()


def test_the_slider_of_the_first_page_shows_the_worked_example_and_sce_at_zero(book: Path, page: Page):
    page.goto((book / "intro.html").as_uri())
    box = page.locator(".isce-worked")
    assert not box.locator("img").is_visible()
    known, said = worked.numbers(), box.locator("[aria-live]")
    for number in (known["isce.loss"], known["isce.p-cat"], known["sce.loss"], known["weight"]):
        assert number in said.inner_text()
    box.locator("input").fill("0")
    assert said.inner_text().count(known["sce.loss"]) == 2
    assert "pull 1.00 times" in said.inner_text()
    assert violations(page) == []


def test_a_figure_fits_a_phone_and_is_large_once_tapped(book: Path, page: Page):
    page.set_viewport_size({"width": 390, "height": 900})
    page.goto((book / "intro.html").as_uri())
    picture = page.locator(".isce-record figure img").first
    fitting = picture.bounding_box()
    picture.click()
    large = picture.bounding_box()
    assert fitting["x"] + fitting["width"] <= 390
    assert large["width"] > 2 * fitting["width"]
    assert page.locator("figure.isce-large").evaluate("figure => figure.tabIndex") == 0, "the keyboard scrolls it"
    assert page.evaluate("document.documentElement.scrollWidth") == 390
    picture.click()
    assert picture.bounding_box()["width"] == fitting["width"]


def taken(page: Page) -> list[list[str]]:
    """What stands under the images of the gallery that is shown, row by row."""
    parts = page.locator(".isce-gallery:visible tbody").all()
    return [part.locator("td p").all_inner_texts() for part in parts]


def test_the_gallery_shows_one_attack_or_one_loss_by_the_keyboard_alone(book: Path, page: Page):
    page.goto((book / "experiments" / "gallery.html").as_uri())
    assert page.locator(".isce-gallery:visible").count() == 1
    sets = [json.loads(text) for text in page.locator(".isce-gallery script").all_text_contents()]
    said = page.locator(".isce-gallery:visible caption b")
    mnist = [
        [[f"{name} ({share}%){'' if right else ' ≠'}" for name, share, right in row] for row in loss]
        for loss in sets[0]["found"]
    ]
    assert taken(page) == [loss[1] for loss in mnist]
    page.get_by_label("Show").focus()
    page.keyboard.press("ArrowDown")
    assert taken(page) == [loss[2] for loss in mnist]
    assert said.inner_text() == f"MNIST, {', '.join(sets[0]['attacks'][1])}."
    place = "t => [getComputedStyle(t).getPropertyValue('--isce-row'), getComputedStyle(t).backgroundPositionY]"
    tile = page.locator(".isce-gallery:visible tbody").nth(1).locator(".isce-tile").first
    row = 2 + len(sets[0]["attacks"])
    assert tile.evaluate(place) == [str(row), f"{-56 * row}px"]
    page.get_by_label("Show").select_option(sets[0]["losses"][1])
    assert taken(page) == mnist[1]
    heads = page.locator(".isce-gallery:visible tbody th").all_inner_texts()
    assert [head.split(" change")[0].removesuffix(" no change") for head in heads[1:]] == [
        ", ".join(attack) for attack in sets[0]["attacks"]
    ]
    page.get_by_label("Data set").select_option("CIFAR-10")
    assert "airplane" in page.locator(".isce-gallery:visible thead").inner_text()
    assert page.locator(".isce-gallery:visible .isce-evidence").inner_text().count("cifar10-small")
    assert violations(page) == []


def test_m_moves_the_explorer(book: Path, page: Page):
    page.goto((book / "theory" / "explorer.html").as_uri())
    box = page.locator(".isce-explorer")
    assert not box.locator("img").is_visible()

    def looks() -> tuple[str, str, bytes]:
        page.wait_for_timeout(200)  # it draws with the next frame
        picture = box.locator("canvas")
        said = picture.get_attribute("aria-label")
        assert said is not None
        return box.locator("[aria-live]").inner_text(), said, picture.screenshot()

    seen = [looks()]
    for key in ("ArrowRight", "End"):
        box.locator("input[name=isce-m]").press(key)
        seen.append(looks())
    assert all(len({look[part] for look in seen}) == len(seen) for part in range(3))
    assert ["m = 2.0." in seen[0][1], "m = 2.1." in seen[1][1], "m = 5.0." in seen[2][1]] == [True] * 3
