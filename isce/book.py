"""The book, built by Jupyter Book from a report folder: its pages, or a look at its links to other places."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Build:
    """One build: the book's sources, the report and the records that it shows, and the folder that takes ``_build``."""

    source: Path
    report: Path
    records: Path
    out: Path

    @property
    def html(self) -> Path:
        """The folder of the rendered pages."""
        return self.out / "_build" / "html"

    def render(self) -> Path:
        """Render every page; returns the first, to open.

        Raises:
            RuntimeError: there was a warning or an error, such as a link to what isn't there; the message has them.
        """
        begun = self.out / "_build" / ".begun"
        if begun.exists():
            # Killed on its way, or failed: what it left can't be built upon, such as pages without a search index.
            for left in (self.html, self.out / "_build" / ".doctrees"):
                shutil.rmtree(left, ignore_errors=True)
        begun.parent.mkdir(parents=True, exist_ok=True)
        begun.touch()
        done = self._run()
        index = self.html / "index.html"
        if done.returncode or not index.is_file():
            raise RuntimeError(f"{done.stdout}{done.stderr}\nthe book has warnings or errors (above)")
        begun.unlink()
        return index

    def links(self) -> list[tuple[str, str, str]]:
        """Ask for every address outside the book that it links to: (what came back, address, page), sorted.

        Raises:
            RuntimeError: the book can't be built.
        """
        done = self._run("--builder", "linkcheck")
        answers = self.html / "output.json"
        if not answers.is_file():
            raise RuntimeError(f"{done.stdout}{done.stderr}\nthe links could not be looked at (above)")
        found = [json.loads(line) for line in answers.read_text(encoding="utf-8").splitlines()]
        return sorted({(row["status"], row["uri"], row["filename"]) for row in found if row["uri"].startswith("http")})

    def _run(self, *more: str) -> subprocess.CompletedProcess[str]:
        program = Path(sys.executable).with_name("jupyter-book")  # it can't be run as a module
        command = [str(program), "build", str(self.source), "-W", "-n", "--keep-going", "-q"]
        command += ["--path-output", str(self.out), *more]
        folders = {"ISCE_REPORT": str(self.report.resolve()), "ISCE_RECORDS": str(self.records.resolve())}
        return subprocess.run(command, env=os.environ | folders, capture_output=True, text=True, check=False)  # noqa: S603
