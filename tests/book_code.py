"""The code of a book page, run: its python blocks in order as one script, the files that it shows written before.

A block whose first line is a comment with a file's name, ``# experiments/mine.yaml``, is that file; with
``, at its end`` it is appended. A ``text`` block right below a python block is what that block prints.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

FENCE = re.compile(r"^```(\w+)\n(.*?)^```$(\n\n```text\n(.*?)^```$)?", re.MULTILINE | re.DOTALL)
FILE = re.compile(r"# (\S+/\S+\.\w+)(, at its end)?\n")
MARK = "\N{SECTION SIGN} end of block"


@dataclass(frozen=True)
class Block:
    """A fenced block: its language, its text, and what the page says that it prints (empty: nothing)."""

    language: str
    text: str
    output: str


def blocks(page: Path) -> list[Block]:
    """The fenced blocks of a page, in order."""
    found = FENCE.finditer(page.read_text(encoding="utf-8"))
    return [Block(match[1], match[2], match[4] or "") for match in found]


def write_files(page: Path, root: Path) -> None:
    """Write the files that a page shows below ``root``."""
    for block in blocks(page):
        if name := FILE.match(block.text):
            path = root / name[1]
            before = path.read_text(encoding="utf-8") if name[2] else ""
            path.write_text(before + block.text.removeprefix(name[0]) if name[2] else block.text, encoding="utf-8")


def python(root: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Start Python in the project at ``root``, with that project's package."""
    environment = os.environ | {"PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"}
    return subprocess.run([sys.executable, *arguments], cwd=root, env=environment, capture_output=True, text=True)


def run(root: Path, *pages: Path) -> dict[str, list[tuple[str, str]]]:
    """Run the python blocks of pages, each page in a namespace of its own, in one process; a warning is an error.

    Args:
        root: the project whose package they get.
        pages: in the order to run them.

    Returns:
        For each page, for each block what the page says that it prints, and what it did print.
    """
    chosen = {
        page.stem: [b for b in blocks(page) if b.language == "python" and not FILE.match(b.text)] for page in pages
    }
    texts = [[block.text for block in found] for found in chosen.values()]
    script = f"""
for texts in {texts!r}:
    namespace = {{"__name__": "__main__"}}
    for text in texts:
        exec(text, namespace)
        print({MARK!r})
"""
    done = python(root, "-W", "error", "-c", script)
    assert done.returncode == 0, done.stderr
    printed = iter(done.stdout.split(f"{MARK}\n"))
    return {name: [(block.output, next(printed)) for block in found] for name, found in chosen.items()}
