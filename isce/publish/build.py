"""The book, built by Jupyter Book from a report folder: its pages, or a look at its links to other places."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from isce.runs import locks
from isce.strict import ConfigError


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

    @property
    def _begun(self) -> Path:
        """A file that is there while the book is built, and after a build that was killed or failed."""
        return self.out / "_build" / ".begun"

    @property
    def is_cut_off(self) -> bool:
        """Whether the last build was killed on its way, or failed."""
        return self._begun.exists()

    def drop_cut_off(self) -> None:
        """Remove what a build left that was killed on its way, or failed: nothing can be built upon that.

        Sphinx goes on from it without a word, and ends with pages that its search does not find.
        """
        if self.is_cut_off:
            for left in (self.html, self.out / "_build" / ".doctrees"):
                shutil.rmtree(left, ignore_errors=True)

    def render(self) -> Path:
        """Render every page; returns the first, to open.

        Raises:
            RuntimeError: there was a warning or an error, such as a link to what isn't there, or a page that the
                search does not know; the message has them.
            ConfigError: the folder of sources, report or records is not there.
        """
        with self._alone() as lock:
            self.drop_cut_off()
            self._begun.touch()
            done = self._run(lock)
            index = self.html / "index.html"
            if done.returncode or not index.is_file():
                raise RuntimeError(f"{done.stdout}{done.stderr}\nthe book has warnings or errors (above)")
            if lost := self._unsearched():
                raise RuntimeError(f"the book's search does not know these pages: {', '.join(lost)}; build it again")
            self._begun.unlink()
        return index

    def _alone(self) -> AbstractContextManager[locks.Lock]:
        """Check the folders, and wait for the end of any other build of this book."""
        for what, needed in (("source", self.source / "_toc.yml"), ("report", self.report), ("records", self.records)):
            if not needed.exists():
                raise ConfigError(f"no book can be built: {needed} is not there (--{what})")

        def wait(owners: str) -> None:
            sys.stderr.write(f"isce: {owners} builds the book in {self.out}; waiting for the end of that\n")

        return locks.hold(self.out / "_build" / ".lock", wait)

    def _unsearched(self) -> list[str]:
        """Pages of the table of contents that the search index lacks."""
        from sphinx_external_toc.parsing import parse_toc_yaml  # not there where no book is built

        text = (self.html / "searchindex.js").read_text(encoding="utf-8")
        known = json.loads(text.removeprefix("Search.setIndex(").removesuffix(")"))["docnames"]
        contents = parse_toc_yaml(self.source / "_toc.yml")
        found = [path for pattern in contents.globs() for path in self.source.glob(f"{pattern}.md")]
        pages = {path.relative_to(self.source).with_suffix("").as_posix() for path in found}
        return sorted({*contents, *pages} - set(known))

    def links(self) -> list[tuple[str, str, str]]:
        """Ask for every address outside the book that it links to: (what came back, address, page), sorted.

        Raises:
            RuntimeError: the book can't be built.
            ConfigError: the folder of sources, report or records is not there.
        """
        with self._alone() as lock:
            done = self._run(lock, "--builder", "linkcheck")
        answers = self.html / "output.json"
        if not answers.is_file():
            raise RuntimeError(f"{done.stdout}{done.stderr}\nthe links could not be looked at (above)")
        found = [json.loads(line) for line in answers.read_text(encoding="utf-8").splitlines()]
        return sorted({(row["status"], row["uri"], row["filename"]) for row in found if row["uri"].startswith("http")})

    def _run(self, lock: locks.Lock, *more: str) -> subprocess.CompletedProcess[str]:
        # To look for cycles among millions of nodes takes a third of the time; without it 1 GB is needed.
        program = "import gc; gc.disable(); from jupyter_book.cli.main import main; main()"
        command = [sys.executable, "-c", program, "build", str(self.source), "-W", "-n", "--keep-going", "-q"]
        command += ["--path-output", str(self.out), *more]
        folders = {"ISCE_REPORT": str(self.report.resolve()), "ISCE_RECORDS": str(self.records.resolve())}
        return subprocess.run(  # noqa: S603
            command, env=os.environ | folders, pass_fds=[lock.file], capture_output=True, text=True, check=False
        )
