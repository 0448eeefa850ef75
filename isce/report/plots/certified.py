"""Plots of proofs: certified below attacked accuracy, certified accuracy as m moves, and at which price."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

from matplotlib.figure import Figure

from isce.report.names import reader_name
from isce.report.plots.runs import COLOURS, grid, looks

Rows = Sequence[Mapping[str, Any]]


def sandwich(rows: Rows, norm: str) -> Figure:
    """Certified (dashed) and attacked (solid) accuracy by eps, a panel for each objective, the gap shaded.

    Args:
        rows: ``label``, ``eps``, ``certified`` and ``attacked`` in per cent; eps rising.
        norm: of the balls.
    """
    labels = list(dict.fromkeys(row["label"] for row in rows))
    columns = min(4, len(labels))
    count = -(-len(labels) // columns)
    figure, axes = grid(count, columns, 2.3 * columns, 2.6 * count)
    for number, (label, look) in enumerate(looks(labels).items()):
        ax, colour = axes[number // columns][number % columns], look["color"]
        part = [row for row in rows if row["label"] == label]
        eps, proved, left = ([row[name] for row in part] for name in ("eps", "certified", "attacked"))
        ax.fill_between(eps, proved, left, color=colour, alpha=0.2, linewidth=0)
        ax.plot(eps, left, **look, markersize=4)
        ax.plot(eps, proved, color=colour, linestyle="--", marker=".", markersize=4)
        ax.set(ylim=(-3, 103), xlabel=f"eps ({norm})")
        ax.set_title(textwrap.fill(reader_name(label), 26), fontsize=9)
    for row in axes:
        row[0].set_ylabel("accuracy (%)")
    for ax in axes[-1][len(labels) - columns * (count - 1) :]:
        ax.set_visible(False)
    return figure


def means(rows: Rows) -> dict[float, list[tuple[float, float]]]:
    """Mean over seeds by eps, then by m: pairs of m and per cent, m rising."""
    found: dict[float, dict[float, list[float]]] = {}
    for row in sorted(rows, key=lambda row: (row["eps"], row["m"])):
        found.setdefault(row["eps"], {}).setdefault(row["m"], []).append(row["percent"])
    return {eps: [(m, fmean(values)) for m, values in by_m.items()] for eps, by_m in found.items()}


def sweep(rows: Rows) -> Figure:
    """Accuracy by m, a line for each eps and one for the clean accuracy, each named at its end.

    Args:
        rows: ``m``, ``eps`` (0: clean), ``seed`` and ``percent``.
    """
    figure, [[ax]] = grid(1, 1, 6.4, 3.8)
    for number, (eps, pairs) in enumerate(means(rows).items()):
        colour, part = COLOURS[number % len(COLOURS)], [row for row in rows if row["eps"] == eps]
        dots = [row["m"] for row in part], [row["percent"] for row in part]
        ax.plot(*dots, linestyle="", marker=".", color=colour, alpha=0.5)
        ax.plot(*zip(*pairs, strict=True), color=colour)
        name = f"proved, eps {eps:g}" if eps else "clean"
        ax.annotate(name, pairs[-1], (6, 0), textcoords="offset points", color=colour, va="center")
    ax.set(xlabel="inference information m", ylabel="accuracy (%)", ylim=(-3, 103))
    return figure


def price(rows: Rows) -> Figure:
    """Certified against clean accuracy, a panel for each eps, a line for each parameter, with its last value.

    Args:
        rows: ``moved`` (name of the parameter), ``value``, ``eps``, ``seed``, ``clean`` and ``percent``.
    """
    every = list(dict.fromkeys(row["eps"] for row in rows))
    figure, [axes] = grid(1, len(every), 2.6 * len(every), 3.0)
    for ax, eps in zip(axes, every, strict=True):
        for number, name in enumerate(dict.fromkeys(row["moved"] for row in rows)):
            colour, style = COLOURS[number], ("-", "--")[number % 2]
            part = [row for row in rows if (row["moved"], row["eps"]) == (name, eps)]
            values = sorted({row["value"] for row in part})
            line = [
                [fmean(row[axis] for row in part if row["value"] == value) for value in values]
                for axis in ("clean", "percent")
            ]
            ax.plot([row["clean"] for row in part], [row["percent"] for row in part], ".", color=colour, alpha=0.4)
            ax.plot(*line, color=colour, linestyle=style, marker=".")
            end, aside = (line[0][-1], line[1][-1]), (0, 8 - 20 * (number % 2))
            ax.annotate(
                f"{name} = {values[-1]:g}",
                end,
                aside,
                textcoords="offset points",
                color=colour,
                ha="center",
                fontsize=8,
            )
        ax.margins(0.15)
        ax.set(xlabel="clean accuracy (%)")
        ax.set_title(f"proved at eps {eps:g} (%)", fontsize=9)
    return figure
