"""One line of a terminal that shows how far a run has come."""

from __future__ import annotations

import contextlib
import os
import sys
from typing import TextIO

ERASE = "\r\x1b[K"  #: back to the start of the line, and away with what stands there


class Line:
    """Takes what a notebook writes to its error stream, and shows its latest progress bar where a person sees it.

    Side by side, runs share the line: the latest word stands there. Elsewhere than on a terminal nothing is shown.

    Args:
        what: the run, which goes before the bar.
        stream: a terminal, or not.
    """

    def __init__(self, what: str, stream: TextIO | None = None) -> None:
        self.what, self.stream = what, stream or sys.stderr
        self.shown = False

    def write(self, text: str) -> None:
        """Show a bar, which tqdm draws anew after each carriage return; anything else is no progress."""
        _, drawn, bar = text.rpartition("\r")
        if drawn and bar.strip() and self.stream.isatty():
            self._put(f"{self.what}  {bar.strip()}".splitlines()[0])
            self.shown = True

    def flush(self) -> None:
        """Nothing is held back."""

    def clear(self) -> None:
        """Leave the line empty, for what is printed next."""
        if self.shown:
            self._put("")
            self.shown = False

    def _put(self, text: str) -> None:
        with contextlib.suppress(OSError):  # a terminal that was closed ends no run
            width = os.get_terminal_size(self.stream.fileno()).columns or 80  # 0: it does not know
            self.stream.write(ERASE + text[: width - 1])  # a full line may take its cursor to the next
            self.stream.flush()
