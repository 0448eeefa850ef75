"""The two kinds of things that a report shows: tables of texts, and plots."""

from __future__ import annotations

from dataclasses import dataclass

from matplotlib.figure import Figure


@dataclass(frozen=True, kw_only=True)
class Exhibit:
    """Say what a table or plot shows, and which records it is made of.

    Attributes:
        caption: text that stands with it.
        kinds: kinds of the records, the one whose notebook is named first.
        sources: names of the records; None for all of these kinds.
    """

    caption: str
    kinds: tuple[str, ...] = ("attack",)
    sources: list[str] | None = None


@dataclass(frozen=True, kw_only=True)
class Table(Exhibit):
    """Hold the headings and the cells of a table; every row has as many cells as there are headings."""

    columns: list[str]
    rows: list[list[str]]


@dataclass(frozen=True, kw_only=True)
class Plot(Exhibit):
    """Hold a drawn figure and the text for readers who don't see it."""

    figure: Figure
    alt: str
