"""Plots of explain records. Every function takes, by label, the tensors of a side file (``Explanation.arrays``)."""

from __future__ import annotations

import itertools
import math
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Circle
from matplotlib.ticker import NullFormatter

from isce.report.names import core, reader_name
from isce.report.plots.runs import draw_image, eps_text, grid, looks, name_beside

Arrays = Mapping[str, np.ndarray]
TRAINING, MATCHED = "#7A4A1E", "#1B7F79"  # no loss has these
#: An ascent's colour and line, and what it is called.
ASCENTS = {
    "training": {"color": TRAINING, "linestyle": "--", "label": "ascending the training loss"},
    "matched": {"color": MATCHED, "linestyle": "-", "label": "ascending the margin"},
}
#: Of two classes alone, the gap from which the true class's entry of SCE's gradient rounds to 0 in float32.
ROUNDED = 24 * math.log(2)
#: Below this a loss in float32, and a cross-entropy in float64, is rounding.
FLOOR = {"loss": 1e-8, "entropy": 1e-16}
CLEAN, ADVERSARIAL = "0.55", "0.1"


def _panels(count: int, side: float) -> tuple[Figure, list[Axes]]:
    """One square panel for each objective, three in a row; those left over are hidden."""
    columns = min(3, count)
    rows = -(-count // columns)
    figure, axes = grid(rows, columns, side * columns + 0.6, side * rows + 0.5)
    every = list(itertools.chain.from_iterable(axes))
    for ax in every[count:]:
        ax.set_visible(False)
    return figure, every[:count]


def paths(found: Mapping[str, Arrays]) -> Figure:
    """Along both ascents, a row for each of three losses: training loss, cross-entropy, margin, who is still right."""
    names = {
        "loss": "training loss",
        "entropy": "cross-entropy",
        "margin": "margin",
        "standing": "still right (%)",
    }
    found = {label: found[label] for label in core(found)[:3]}
    figure, axes = grid(len(found), len(names), 8.4, 1.7 * len(found) + 0.9)
    for row, (label, arrays) in zip(axes, found.items(), strict=True):
        for ax, what in zip(row, names, strict=True):
            for ascent, style in ASCENTS.items():
                _band(ax, arrays[f"{ascent}.{what}"], style)
            if what in FLOOR and _wide(arrays, what):
                ax.set_yscale("log")
                ax.set_ylim(bottom=max(ax.get_ylim()[0], FLOOR[what]))
        row[2].axhline(0, color="black", linewidth=0.8)
        row[3].set_ylim(-2, 102)
        row[0].set_ylabel(_in_lines(label), fontsize=9)
    for ax, name in zip(axes[0], names.values(), strict=True):
        ax.set_title(name, fontsize=10)
    for ax in axes[-1]:
        ax.set_xlabel("step")
    figure.legend(*axes[0][0].get_legend_handles_labels(), loc="outside upper center", ncols=2, frameon=False)
    return figure


def _in_lines(label: str) -> str:
    """A loss's name on two lines where it has a part in brackets."""
    return reader_name(label).replace(" (", "\n(")


def _wide(arrays: Arrays, what: str) -> bool:
    """Whether a median spans more than a factor of 30 along the paths."""
    values = np.concatenate([arrays[f"{ascent}.{what}"][1] for ascent in ASCENTS])
    return bool(values.max() > 30 * values.min())


def _band(ax: Axes, values: np.ndarray, style: Mapping[str, Any]) -> None:
    """A median with the band from a tenth to nine tenths, or a share in per cent."""
    steps = np.arange(values.shape[-1])
    if values.ndim == 1:
        ax.plot(steps, 100 * values, **style)
        return
    low, middle, high = values
    ax.plot(steps, middle, **style)
    ax.fill_between(steps, low, high, color=style["color"], alpha=0.15, linewidth=0)


def sphere(found: Mapping[str, Arrays], kinks: Mapping[str, float]) -> Figure:
    """Trajectories of the logits on the unit sphere under both ascents: true entry against the largest other one.

    Args:
        found: of the objectives with a kink; two rows for each, the second a part of the first around the kink.
        kinks: where it is, by label.
    """
    figure, axes = grid(2 * len(found), 2, 8.4, 7.8 * len(found))
    for number, (label, arrays) in enumerate(found.items()):
        every = [arrays[f"{name}.sphere"].astype(float) for name in ASCENTS]
        low = min(float(ways.min()) for ways in every) - 0.05
        kink = kinks[label]
        start = float(np.quantile(every[0][0, :, 1], 0.2))
        near = ((kink - 0.06, min(kink + 0.04, 1.0)), (start - 0.07, start + 0.15))
        for column, (ways, style) in enumerate(zip(every, ASCENTS.values(), strict=True)):
            whole, part = axes[2 * number][column], axes[2 * number + 1][column]
            for ax in (whole, part):
                _trajectories(ax, ways, kink, style["color"])
            whole.set(xlim=(low, 1.02), ylim=(low, 1.02))
            part.set(xlim=near[0], ylim=near[1])
            whole.set_title(f"{reader_name(label)}, {style['label']}", fontsize=9)
            part.set_title("the same, around the kink", fontsize=9)
    axes[0][0].legend(loc="lower left", frameon=False, fontsize=9)
    return figure


def _trajectories(ax: Axes, ways: np.ndarray, kink: float, colour: str) -> None:
    """Of each image its way ``(S, n, 2)``: a circle where it starts, a cross where it ends."""
    ax.add_patch(Circle((0, 0), 1, fill=False, edgecolor="0.6"))
    ax.plot([-1, 1], [-1, 1], color="black", linewidth=1, label="decision boundary")
    ax.axvline(kink, color="0.4", linestyle=":", linewidth=2, label=f"the clip's kink, $t_y$ = {kink:g}")
    ax.axvspan(kink, 1.02, color="0.4", alpha=0.12, linewidth=0)
    for way in np.moveaxis(ways, 1, 0):
        ax.plot(*way.T, color=colour, linewidth=0.9, alpha=0.8, marker=".", markersize=2.5)
    ax.plot(*ways[0].T, "o", color="white", markeredgecolor=colour, markersize=5, label="image")
    ax.plot(*ways[-1].T, "X", color=colour, markersize=5, label="last step")
    ax.set(xlabel="$t_y$, the true class's entry", ylabel="largest other entry")


def walk(found: Mapping[str, Arrays], rows: Mapping[str, int], image: int) -> Figure:
    """Left, one image before and after an attack on each network; right, the median margin along the ascent.

    Args:
        found: by label.
        rows: by label, the attack's row in the gallery.
        image: its place in the gallery.
    """
    figure = Figure(figsize=(8.4, 3.4), layout="constrained", facecolor="white")
    pictures, line = figure.subfigures(1, 2, squeeze=False, width_ratios=(len(found) + 0.4, 4))[0]
    axes, look = pictures.subplots(2, len(found), squeeze=False), looks(found)
    ax = line.subplots()
    for column, (label, arrays) in zip(axes.T, found.items(), strict=True):
        name, row = reader_name(label), rows[label]
        points = (arrays["gallery.clean"][image], arrays["gallery.adversarial"][row, image])
        for place, point, seen in zip(column, points, (0, row + 1), strict=True):
            draw_image(place, point / 255)
            predicted, sure = arrays["gallery.predictions"][seen, image]
            place.set(xticks=[], yticks=[])
            place.set_xlabel(f"{int(predicted)} ({sure:.0%})", fontsize=10)
        column[0].set_title(_in_lines(label), fontsize=10)
        ax.plot(arrays["training.margin"][1], **look[label], markevery=10, label=name)
    axes[0][0].set_ylabel("image")
    axes[1][0].set_ylabel("attacked")
    ax.axhline(0, color="black", linewidth=0.8)
    ax.grid(color="0.92")
    ax.spines[["top", "right"]].set_visible(False)
    ax.set(xlabel="step of PGD", ylabel="median margin")
    ax.legend(frameon=False, fontsize=10)
    return figure


def gradients(found: Mapping[str, Arrays]) -> Figure:
    """Of each image against its margin: size of the training loss's gradient, and what float32 and the loss keep."""
    found = {label: found[label] for label in core(found)}
    look, (figure, (axes,)) = looks(found), grid(1, 3, 8.4, 3.6)
    smallest = min((a["gradients.size"][a["gradients.size"] > 0].min(initial=1) for a in found.values()), default=1)
    for label, arrays in found.items():
        right = arrays["gradients.margin"] > 0
        style: dict[str, Any] = look[label] | {"linestyle": "none", "markersize": 3, "alpha": 0.5}
        size = np.maximum(arrays["gradients.size"], smallest / 10)
        for ax, values in zip(axes, (size, arrays["gradients.kept"], arrays["gradients.aim"]), strict=True):
            ax.plot(arrays["gradients.margin"][right], values[right], label=reader_name(label), **style)
    for ax, name in zip(axes, ("largest entry of the gradient", "kept by float32", "aim at the margin"), strict=True):
        ax.set(xlabel="margin of the raw logits", title=name, xscale="log")
        ax.xaxis.set_minor_formatter(NullFormatter())  # within a decade or two its labels run into each other
        ax.axvline(ROUNDED, color="black", linewidth=1, linestyle=":")
    axes[0].set_yscale("log")
    for ax in axes[1:]:
        ax.set_ylim(-1.05, 1.05)
        ax.axhline(0, color="black", linewidth=0.8)
    handles, labels = axes[0].get_legend_handles_labels()
    columns = min(5, len(labels))
    legend = figure.legend(handles, labels, loc="outside lower center", ncols=columns, frameon=False, markerscale=2)
    for handle in legend.legend_handles:
        if handle is not None:
            handle.set_alpha(1)
    return figure


def promise(found: Mapping[str, Arrays], eps: float, standing: Mapping[str, tuple[float, float, float]]) -> Figure:
    """Left, the distance that the gradient promises, by objective; right, its median against what attacks leave.

    Args:
        found: by label.
        eps: of the ball.
        standing: by label: per cent right after one step, and after the adaptive attack on the margin, and of that the
            half-width of a Wilson interval.
    """
    look, (figure, ((left, right),)) = looks(found), grid(1, 2, 8.4, 0.28 * len(found) + 2.4)
    for number, (label, arrays) in enumerate(found.items()):
        distance = arrays["gradients.distance"].astype(float)
        low, first, middle, third, high = np.quantile(distance, (0.1, 0.25, 0.5, 0.75, 0.9))
        colour, marker = look[label]["color"], look[label]["marker"]
        left.plot([low, high], [number, number], color=colour, linewidth=1.5)
        left.plot([first, third], [number, number], color=colour, linewidth=6, alpha=0.5)
        left.plot([middle], [number], color=colour, marker=marker, markersize=7)
        one, all_steps, half = standing[label]
        right.plot([middle], [one], color=colour, marker=marker, markersize=6, fillstyle="none")
        right.plot([middle] * 2, [all_steps - half, all_steps + half], color=colour)
        right.plot([middle], [all_steps], color=colour, marker=marker, markersize=7, label=reader_name(label))
    left.axvline(eps, color="black", linewidth=1, linestyle=":")
    left.annotate(f" eps {eps_text(eps)}", (eps, -0.7), fontsize=9, va="center")
    left.set(
        yticks=range(len(found)),
        yticklabels=[reader_name(label) for label in found],
        ylim=(len(found) - 0.4, -1),
        xlim=(0, None),
    )
    left.set(xlabel=r"promised distance ($\ell_\infty$)")
    right.set(xlabel="median promised distance", ylabel="still right (%)", ylim=(-2, 102))
    name_beside(right)
    return figure


def margins(found: Mapping[str, Arrays]) -> Figure:
    """Clean and adversarial margins, as curves of the share of images that lie below; a panel for each objective."""
    figure, axes = _panels(len(found), 2.5)
    for ax, (label, arrays) in zip(axes, found.items(), strict=True):
        clean, moved = np.sort(arrays["gradients.margin"]), np.sort(arrays["features.adversarial_margin"])
        share = 100 * (np.arange(len(clean)) + 1) / len(clean)
        ax.step(clean, share, color=CLEAN, label="clean")
        ax.step(moved, share, color=ADVERSARIAL, linestyle="--", label="adversarial")
        ax.axvline(0, color="black", linewidth=0.8)
        ax.set_title(reader_name(label), fontsize=10)
        ax.set_ylim(0, 102)
        ax.set_xlabel("margin")
    axes[0].set_ylabel("images below (%)")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside upper center", ncols=2, frameon=False)
    return figure


def feature_maps(found: Mapping[str, Arrays]) -> Figure:
    """Distances of clean and adversarial embeddings to the own class's mean and to the nearest other; a panel each."""
    figure, axes = _panels(len(found), 2.5)
    for ax, (label, arrays) in zip(axes, found.items(), strict=True):
        distances = arrays["features.distances"].astype(float)
        for points, name, colour, marker in zip(
            distances, ("clean", "adversarial"), (CLEAN, TRAINING), ("o", "x"), strict=True
        ):
            ax.plot(*points.T, linestyle="none", marker=marker, markersize=3, color=colour, alpha=0.6, label=name)
        reach = float(np.quantile(distances, 0.99)) * 1.05
        ax.plot([0, reach], [0, reach], color="black", linewidth=0.8)
        ax.set(xlim=(0, reach), ylim=(0, reach), xlabel="to the own mean")
        ax.set_title(reader_name(label), fontsize=10)
    axes[0].set_ylabel("to the nearest other")
    figure.legend(
        *axes[0].get_legend_handles_labels(), loc="outside upper center", ncols=2, frameon=False, markerscale=2
    )
    return figure


def gallery_sheet(arrays: Arrays, rows: Sequence[Sequence[str]], labels: Sequence[int]) -> Figure:
    """Images, and beside each adversarial version its difference from the image, amplified row by row.

    Args:
        arrays: of one record.
        rows: label and threat of each attack.
        labels: true label of each image.
    """
    clean, adversarial = arrays["gallery.clean"], arrays["gallery.adversarial"]
    predictions = arrays["gallery.predictions"]
    width, height = _NAMES + _PAIR * len(clean) - 0.08, _LINE * (len(rows) + 1) + 0.05
    figure = Figure(figsize=(0.7 * width, 0.7 * height), facecolor="white")
    figure.suppressComposite = True  # each picture as it is, pixel by pixel: faster, sharper and smaller
    ax = figure.add_axes((0, 0, 1, 1))  # one for all pictures: an Axes for each takes a hundred times as long
    ax.set(xlim=(0, width), ylim=(height, 0))
    ax.axis("off")
    _row(ax, 0, ("image", ""), clean / 255, predictions[0], labels)
    for line, (name, images) in enumerate(zip(rows, adversarial, strict=True), 1):
        _row(ax, line, name, images / 255, predictions[line], labels)
        change = images.astype(float) - clean
        largest = max(float(np.abs(change).max()), 1)
        for number, difference in enumerate(change / largest / 2 + 0.5):
            _picture(ax, _NAMES + _PAIR * number + 1.06, line * _LINE + 0.1, difference, difference=True)
        text = f"\N{MULTIPLICATION SIGN} {127.5 / largest:.2g}" if change.any() else "no change"
        ax.text(_NAMES + 1.56, line * _LINE + 1.13, text, fontsize=_LETTERS, ha="center", va="top")
    return figure


_NAMES, _PAIR, _LINE = 2.5, 2.2, 1.42  # width of the names, of an image with its change; height of a row: in pictures
_LETTERS = 9  # points
_NAME = 22  # letters of a name on one line


def _row(
    ax: Axes, line: int, name: Sequence[str], images: np.ndarray, found: np.ndarray, labels: Sequence[int]
) -> None:
    """The name of an attack, and its images with the predicted class and its probability; a wrong one bold, marked."""
    top = line * _LINE + 0.1
    words = "\n".join(line for part in name for line in textwrap.wrap(part, _NAME))
    ax.text(_NAMES - 0.12, top + 0.5, words, fontsize=_LETTERS, ha="right", va="center")
    for number, (image, (predicted, confidence), label) in enumerate(zip(images, found, labels, strict=True)):
        left, wrong = _NAMES + _PAIR * number, int(predicted) != label
        _picture(ax, left, top, image)
        text = f"{int(predicted)} ({confidence:.0%}){' ≠' if wrong else ''}"
        style: dict[str, Any] = {"fontweight": "bold", "color": TRAINING} if wrong else {}
        ax.text(left + 0.5, top + 1.03, text, fontsize=_LETTERS, ha="center", va="top", **style)


def _picture(ax: Axes, left: float, top: float, image: np.ndarray, difference: bool = False) -> None:
    place = (left, left + 1, top + 1, top)
    draw_image(ax, image, difference=difference, extent=place, aspect="auto", interpolation="none")
