"""Drawings of tables that a benchmark wrote; the book's build draws them anew. A cell is a text."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.figure import Figure

from isce.report.plots.runs import COLOURS, grid, looks

#: Columns of the table ``mechanisms``: accuracies that the attack's way shows, and those of the worst case.
PANELS = {"what the attack shows": ("I-SCE", "SCE"), "worst case": ("worst case: I-SCE", "worst case: SCE")}


WORST = "worst case at 0.1"  #: column of the table ``rates``
SEEN = ("margin", "slope", WORST)  #: its columns with a value for each seed

#: Columns of the table ``transport`` with colour, marker and line.
CURVES = {
    "proved bound": (COLOURS[6], "s", ":"),
    "estimated bound": (COLOURS[1], "^", "--"),
    "attacks": (COLOURS[0], "o", "-"),
}


def transport(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> Figure:
    """For each network the mean loss against the mean squared distance: two bounds and what attacks reach.

    Args:
        columns: headings: network, mean squared distance, those of :data:`CURVES`.
        rows: cells; ``none`` where there is no bound.
    """
    networks = list(dict.fromkeys(row[0] for row in rows))
    figure, (axes,) = grid(1, len(networks), 4.6 * len(networks), 3.8)
    for ax, network in zip(axes, networks, strict=True):
        for name, (colour, marker, line) in CURVES.items():
            cells = [(row[1], row[columns.index(name)]) for row in rows if row[0] == network]
            known = [(float(rho), float(cell)) for rho, cell in cells if cell != "none"]
            ax.plot(*zip(*known, strict=True), color=colour, marker=marker, linestyle=line, markersize=4, label=name)
        ax.set(title=network, xlabel="mean squared distance", xscale="log", yscale="log")
    limits = [ax.get_ylim() for ax in axes]
    for ax in axes:
        ax.set_ylim(min(low for low, _ in limits), max(high for _, high in limits))
    axes[0].set_ylabel("mean loss")
    axes[0].legend(frameon=False)
    return figure


def rates(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> Figure:
    """For each loss the worst case against the learning rate, and against margin over slope; a dot for each seed.

    Args:
        columns: headings: network, rate, margin, slope and ``worst case at 0.1`` among them.
        rows: cells; several seeds in one, apart by commas, or none.
    """
    names = list(dict.fromkeys(row[0] for row in rows))
    look = dict(zip(names, looks(["sce", "isce-m2", "isce-m5"]).values(), strict=True))
    figure, (axes,) = grid(1, 2, 9.2, 3.6)
    for name in names:
        points = [
            (float(row[columns.index("rate")]), float(margin) / float(slope), float(left))
            for row in rows
            if row[0] == name
            for margin, slope, left in zip(*(_values(row[columns.index(of)]) for of in SEEN), strict=True)
        ]
        by_rate = dict[float, list[float]]()
        for rate, _, left in points:
            by_rate.setdefault(rate, []).append(left)
        axes[0].plot(list(by_rate), [sum(of) / len(of) for of in by_rate.values()], color=look[name]["color"])
        for ax, place in zip(axes, (0, 1), strict=True):
            ax.plot([p[place] for p in points], [p[2] for p in points], linestyle="", label=name, **look[name])
    for ax, what in zip(axes, ("learning rate", "median margin / median slope"), strict=True):
        ax.set(xlabel=what, ylim=(-3, 103))
    ticks = list(dict.fromkeys(row[columns.index("rate")] for row in rows))
    axes[0].set(xscale="log", ylabel=f"{WORST} (%)")
    axes[0].set_xticks([float(tick) for tick in ticks], ticks)
    axes[0].minorticks_off()
    axes[1].set_xlim(left=0)
    axes[1].legend(frameon=False, loc="lower right")
    return figure


def _values(cell: str) -> list[str]:
    return cell.split(", ") if cell else []


def mechanisms(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> Figure:
    """For each way of attacking the accuracy of I-SCE and SCE, as it shows it and in the worst case.

    Args:
        columns: headings, those of :data:`PANELS` among them; the first four say which way it is.
        rows: cells, in per cent.
    """
    figure, (axes,) = grid(1, len(PANELS), 8.4, 1.2 + 0.42 * len(rows), width_ratios=[2, 1])
    places = range(len(rows))
    for number, (ax, (title, pair)) in enumerate(zip(axes, PANELS.items(), strict=True)):
        isce, sce = ([float(row[columns.index(name)]) for row in rows] for name in pair)
        ax.hlines(places, sce, isce, color="0.6", linewidth=2)
        ax.plot(isce, places, "o", color=COLOURS[1], label="I-SCE")
        ax.plot(sce, places, "s", color=COLOURS[0], label="SCE", markerfacecolor="white")
        ax.set(title=title, xlabel="accuracy (%)", xlim=(-4, 104), ylim=(len(rows) - 0.4, -0.6), yticks=places)
        ax.set_yticklabels([", ".join(row[:2]) + f"\n{row[2]} ({row[3]})" if not number else "" for row in rows])
        ax.tick_params(axis="y", labelsize=8.5)
    axes[-1].legend(frameon=False, loc="upper right")
    return figure
