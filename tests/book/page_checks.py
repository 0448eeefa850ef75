"""What a page of the book must not show, as lists of faults: empty lists are good pages."""

from __future__ import annotations

import gzip
import io
from functools import cache
from pathlib import Path
from urllib.parse import unquote, urlsplit

from axe_playwright_python.sync_playwright import Axe
from PIL import Image
from playwright.sync_api import ConsoleMessage, Page, Request

LOCAL = {"file", "data", "blob", "about"}
PICTURES = "article img, article canvas"

# Each function gives a list of faults; they run in the page.
SCRIPTS = {
    "images": """() => [...document.images].flatMap(i => [
        ...(i.complete && i.naturalWidth ? [] : [`image does not load: ${i.getAttribute('src')}`]),
        ...(i.alt.trim() ? [] : [`image without alternative text: ${i.getAttribute('src')}`])])""",
    "maths": r"""() => {
        const found = [...document.querySelectorAll('mjx-merror, merror, [data-mjx-error]')].map(
            e => `maths with an error: ${e.getAttribute('title') || e.textContent}`);
        for (const e of document.querySelectorAll('.math'))
            if (!e.querySelector('mjx-container')) found.push(`maths not rendered: ${e.textContent.slice(0, 60)}`);
        const article = document.querySelector('article') || document.body;
        const walker = document.createTreeWalker(article, NodeFilter.SHOW_TEXT);
        while (walker.nextNode()) {
            const node = walker.currentNode;
            if (node.parentElement.closest('code, pre, script, style, textarea, mjx-container')) continue;
            if (/[$]|\\[(\[a-zA-Z]/.test(node.data)) found.push(`raw TeX: ${node.data.trim().slice(0, 60)}`);
        }
        return found;
    }""",
    "width": """() => {
        const wide = document.documentElement.clientWidth, found = [];
        if (document.documentElement.scrollWidth > wide)
            found.push(`page scrolls sideways: ${document.documentElement.scrollWidth} > ${wide}`);
        const scrolls = e => /auto|scroll/.test(getComputedStyle(e).overflowX);
        for (const e of (document.querySelector('article') || document.body).querySelectorAll('*')) {
            const box = e.getBoundingClientRect();
            if (!box.width || !box.height || box.right <= wide + 1 || e.closest('mjx-assistive-mml')) continue;
            let above = e.parentElement;
            while (above && !scrolls(above)) above = above.parentElement;
            if (!above) found.push(`beyond the edge: <${e.localName} class="${e.className}"> to ${box.right}`);
        }
        return found.slice(0, 5);
    }""",
}
READY = "async () => { await window.MathJax?.startup?.promise; await document.fonts.ready; }"


class Watch:
    """Opens pages in one tab and keeps what they complained about and asked for."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.faults: list[str] = []
        self.files: set[Path] = set()  # all that the page loaded, but pictures
        page.on("console", self._console)
        page.on("pageerror", lambda error: self.faults.append(f"script error: {error}"))
        page.on("request", self._request)
        page.on("requestfailed", lambda request: self.faults.append(f"request failed: {request.url} {request.failure}"))

    def _console(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning", "assert"):
            self.faults.append(f"console {message.type}: {message.text}")

    def _request(self, request: Request) -> None:
        if urlsplit(request.url).scheme not in LOCAL:
            self.faults.append(f"asks for what is not on the disk: {request.url}")
        elif request.resource_type != "image":
            self.files.add(Path(unquote(urlsplit(request.url).path)))

    def open(self, url: str, width: int, scheme: str) -> None:
        """Load a page and wait for its maths."""
        self.faults.clear()
        self.files.clear()
        self.page.set_viewport_size({"width": width, "height": 900})
        self.page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
        self.page.goto(url)
        self.page.evaluate(READY)

    def weight(self) -> int:
        """Bytes that a server would send for the page, without its pictures."""
        return sum(compressed(file) for file in self.files)

    def look(self, scheme: str) -> list[str]:
        """Every fault of the page as it stands, in light or dark."""
        self.page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
        if self.page.locator("html[data-theme]").count():
            self.page.wait_for_function("scheme => document.documentElement.dataset.theme === scheme", arg=scheme)
        found = [fault for script in SCRIPTS.values() for fault in self.page.evaluate(script)]
        return [*self.faults, *found, *blank_pictures(self.page)]


@cache
def compressed(file: Path) -> int:
    """Bytes of a file as it is sent."""
    return len(gzip.compress(file.read_bytes(), 6))


def blank_pictures(page: Page) -> list[str]:
    """Figures that are shown and hold one colour only."""
    found = []
    for picture in page.locator(PICTURES).all():
        if picture.is_visible():
            shown = Image.open(io.BytesIO(picture.screenshot())).convert("RGB")
            if shown.getcolors(maxcolors=1):
                found.append(f"blank figure: {picture.get_attribute('src') or 'canvas'}")
    return found


def violations(page: Page, contrast: bool = True) -> list[str]:
    """What axe-core calls serious or critical; contrast is what takes it long."""
    rules = {"color-contrast": {"enabled": contrast}}
    answer = Axe().run(page, options={"preload": False, "resultTypes": ["violations"], "rules": rules}).response
    return [
        f"axe, {found['impact']}: {found['id']} at {node['target']}: {node['failureSummary']}"
        for found in answer["violations"]
        if found["impact"] in ("serious", "critical")
        for node in found["nodes"][:3]
    ]
