"""Time to build the book from the committed records, and what each page weighs without its pictures.

Seconds are those of a fresh build into an empty folder, by the clock and of the processors; the goal is 30 on two
cores. A page weighs its own file and all that it loads but pictures (style sheets, scripts, fonts, MathJax), as it lies
on the disk and as a server sends it, with gzip; the goal is 1 MB sent. Needs Chromium or Chrome.
"""

from __future__ import annotations

import gzip
import os
import resource
import subprocess
import sys
import tempfile
import time
from functools import cache
from pathlib import Path
from urllib.parse import unquote, urlsplit

from isce.files import ROOT
from isce.publish.browser import offline_browser

GOAL_SECONDS, GOAL_BYTES = 30, 1_000_000


@cache
def sizes(file: Path) -> tuple[int, int]:
    """Bytes of a file on the disk, and compressed; fonts are compressed already."""
    content = file.read_bytes()
    return len(content), len(content) if file.suffix.startswith(".woff") else len(gzip.compress(content, 6, mtime=0))


def build(folder: Path) -> None:
    """Report and book, as `make book` does it, and what each took."""
    arguments = ["book", "--write-report", "--records", str(ROOT / "results")]
    arguments += ["--report", str(folder / "report"), "--out", str(folder)]
    clock = time.perf_counter()
    subprocess.run([sys.executable, "-m", "isce", *arguments], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)  # noqa: S603
    seconds, used = time.perf_counter() - clock, resource.getrusage(resource.RUSAGE_CHILDREN)
    load = ", ".join(f"{value:.1f}" for value in os.getloadavg())
    print(f"make book {seconds:.1f} s (goal {GOAL_SECONDS}), {used.ru_utime + used.ru_stime:.1f} s of CPU, ", end="")
    print(f"{used.ru_maxrss / 1e6:.2f} GB; {os.cpu_count()} cores, load {load}\n")


def weights(html: Path) -> list[tuple[int, int, int, str]]:
    """For each page: bytes sent, bytes on the disk, bytes of its own file, name; the heaviest first."""
    found: list[tuple[int, int, int, str]] = []
    with offline_browser() as context:
        page = context.new_page()
        asked: set[Path] = set()
        page.on(
            "request",
            lambda r: asked.add(Path(unquote(urlsplit(r.url).path))) if r.resource_type != "image" else None,
        )
        for file in sorted(html.rglob("*.html")):
            name = file.relative_to(html).as_posix()
            if name.startswith("_") or name == "index.html":  # the index leads to the first page
                continue
            asked.clear()
            page.goto(file.as_uri())
            page.evaluate("async () => { await window.MathJax?.startup?.promise; await document.fonts.ready; }")
            disk, sent = (sum(column) for column in zip(*map(sizes, asked), strict=True))
            found.append((sent, disk, sizes(file)[0], name))
    return sorted(found, reverse=True)


def main() -> None:
    """Build, weigh, print."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        build(folder)
        rows = weights(folder / "_build" / "html")
    print(f"{'page':<36} {'sent':>7} {'disk':>7} {'own file':>8}  (kB)")
    for sent, disk, own, name in rows:
        mark = "  over the goal" if sent > GOAL_BYTES else ""
        print(f"{name:<36} {sent / 1e3:7.0f} {disk / 1e3:7.0f} {own / 1e3:8.0f}{mark}")


if __name__ == "__main__":
    main()
