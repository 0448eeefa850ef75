"""Plots of runs, for notebooks and book. Functions take plain values or data frames and return a matplotlib figure."""

from __future__ import annotations

import io
import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from IPython.display import Image
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from isce.report.names import reader_name

# Okabe and Ito's palette: told apart with every common kind of colour blindness. Marker and line differ as well.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#8C8C00", "#6A3D9A")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">")


def eps_text(eps: float) -> str:
    """An eps as tables and captions say it: ``0.1``, or ``8/255 (0.0314)`` where it is k/255 and no short decimal.

    Six digits are enough to know it by: records name threat models so.
    """
    levels, text = round(eps * 255), f"{eps:g}"
    if len(text) <= 6 or not math.isclose(levels / 255, eps, rel_tol=1e-5):
        return text
    return f"{levels}/255 ({eps:.3g})"


def three(value: float) -> str:
    """A number with three significant digits, zeros at its end among them: ``1.90``, ``2,930``, ``6.71e-05``."""
    digits = float(f"{value:.3g}")
    if digits and not 1e-4 <= abs(digits) < 1e6:
        return f"{value:.2e}"
    return f"{digits:,.0f}" if abs(digits) >= 100 else f"{value:#.3g}"


def _style(number: int) -> dict[str, Any]:
    """Colour and marker of the line with this number; no pair comes twice within 81."""
    turn, place = divmod(number, len(COLOURS))
    return {"color": COLOURS[place], "marker": MARKERS[(place + turn) % len(MARKERS)]}


def _below(figure: Figure, ax: Axes) -> None:
    """A legend of all panels, below them."""
    handles, labels = ax.get_legend_handles_labels()
    if labels:
        figure.legend(handles, labels, loc="outside lower center", ncols=min(5, len(labels)), frameon=False)


MANY = 7  #: lines of which a legend would cover some


def _legend(ax: Axes) -> None:
    """A legend; of many lines beside the axes, where it covers none of them."""
    if len(ax.get_legend_handles_labels()[1]) > MANY:
        ax.legend(frameon=False, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    else:
        ax.legend(frameon=False)


def grid(rows: int, columns: int, width: float, height: float, shade: str = "0.92") -> tuple[Figure, list[list[Axes]]]:
    """Return a figure of ``width`` by ``height`` inches and its rows of axes, with grid lines behind what is drawn."""
    figure = Figure(figsize=(width, height), layout="constrained", facecolor="white")
    axes = figure.subplots(rows, columns, squeeze=False).tolist()
    for ax in itertools.chain.from_iterable(axes):
        ax.grid(color=shade)
        ax.set_axisbelow(True)
        ax.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _figure(columns: int = 1, width: float = 6.4, height: float = 3.8) -> tuple[Figure, list[Axes]]:
    figure, (axes,) = grid(1, columns, width, height, "0.9")
    return figure, axes


def draw_image(ax: Axes, image: np.ndarray, *, difference: bool = False, **place: Any) -> None:
    """Draw one image (C, H, W) of values in [0, 1]; ``place`` goes to matplotlib's ``imshow``.

    Args:
        ax: where to draw.
        image: grey (C = 1) or coloured (C = 3).
        difference: draw a grey one in two colours, with white for 0.5.
        place: further options.
    """
    picture = np.clip(np.moveaxis(image, 0, -1), 0, 1)
    if picture.shape[-1] == 1:
        ax.imshow(picture[..., 0], cmap="PuOr" if difference else "gray", vmin=0, vmax=1, **place)
    else:
        ax.imshow(picture, **place)


def training_curves(histories: Mapping[str, Sequence[Mapping[str, Any]]]) -> Figure:
    """Training loss and validation accuracy by epoch.

    Args:
        histories: for each label the history of one run or more: rows with ``epoch``, ``train_loss``,
            ``validation_accuracy`` (share); several runs of a label are drawn as their mean with the band from the
            lowest to the highest.
    """
    figure, (left, right) = _figure(2, 8.4, 3.4)
    for number, (label, rows) in enumerate(histories.items()):
        if not rows:  # training diverged in its first epoch
            continue
        frame = pd.DataFrame(list(rows)).groupby("epoch")
        for ax, name, factor in ((left, "train_loss", 1), (right, "validation_accuracy", 100)):
            mean, low, high = (factor * frame[name].agg(how) for how in ("mean", "min", "max"))
            ax.plot(mean.index, mean, label=reader_name(str(label)), markevery=0.2, **_style(number))
            ax.fill_between(mean.index, low, high, color=_style(number)["color"], alpha=0.2, linewidth=0)
    left.set(xlabel="epoch", ylabel="training loss (each objective's own)")
    right.set(xlabel="epoch", ylabel="validation accuracy (%)")
    if len(right.lines) > MANY:
        _below(figure, right)
    elif right.lines:
        right.legend(frameon=False)
    return figure


def robust_accuracy(frame: pd.DataFrame, norm: str) -> Figure:
    """Robust accuracy against eps: worst case over the suite (solid), strongest attack on the own loss (dashed).

    Args:
        frame: columns ``label``, ``eps``, ``own``, ``worst`` and the bounds ``low``, ``high`` of ``worst``, all
            accuracies in per cent. eps 0 stands for clean accuracy.
        norm: name of the norm for the axis.
    """
    figure, (ax,) = _figure()
    for number, (label, rows) in enumerate(frame.groupby("label", sort=False)):
        rows = rows.sort_values("eps")
        style = _style(number)
        ax.plot(rows["eps"], rows["worst"], label=reader_name(str(label)), **style)
        ax.fill_between(rows["eps"], rows["low"], rows["high"], color=style["color"], alpha=0.2, linewidth=0)
        ax.plot(rows["eps"], rows["own"], linestyle="--", alpha=0.7, **style)
    ax.set(xlabel=f"eps ({norm}, images in [0, 1])", ylabel="accuracy (%)", ylim=(-2, 102))
    ax.plot([], [], color="0.3", label="worst case over the suite")
    ax.plot([], [], color="0.3", linestyle="--", label="strongest attack on the training loss")
    _legend(ax)
    return figure


def lines(frame: pd.DataFrame, x: str, xlabel: str, order: Sequence[str], *, log: bool = False) -> Figure:
    """Accuracy against one quantity, a line for each label: mean over runs, with the range as band.

    Args:
        frame: columns ``label``, ``run``, ``percent`` and the one named ``x``. A run that ended at 0 stays there; where
            one has NaN, its label has a gap.
        x: name of the column.
        xlabel: of the axis.
        order: labels in the order of their colours.
        log: logarithmic axis.
    """
    figure, (ax,) = _figure()
    for number, label in enumerate(order):
        part = frame[frame["label"] == label]
        if part.empty:
            continue
        table = part.pivot(index=x, columns="run", values="percent")
        table = table.mask(table.ffill() == 0, 0)
        style = _style(number)
        middle, low, high = (getattr(table, name)(axis=1, skipna=False) for name in ("mean", "min", "max"))
        ax.plot(table.index, middle, label=reader_name(label), **style)
        ax.fill_between(table.index, low, high, color=style["color"], alpha=0.2, linewidth=0)
    ax.set(xlabel=xlabel, ylabel="accuracy (%)", ylim=(-2, 102), xscale="log" if log else "linear")
    _legend(ax)
    return figure


def example_images(
    clean: np.ndarray, adversarial: np.ndarray, predictions: np.ndarray, titles: Sequence[str] = ()
) -> Figure:
    """Images, their adversarial versions, and the difference amplified to the full range.

    Args:
        clean: images (N, C, H, W) in [0, 1].
        adversarial: adversarial versions, of the same shape.
        predictions: (N, 4): predicted class and its probability, clean then adversarial; stands under the images.
        titles: for each image a title above the clean version.
    """
    count = len(clean)
    if count == 0:
        figure, (ax,) = _figure(width=5, height=1)
        ax.set_axis_off()
        ax.text(0.5, 0.5, "No image fell to this attack.", ha="center", va="center")
        return figure
    width = 1.25 * count + 0.4
    figure = Figure(figsize=(width, 4.4), layout="constrained", facecolor="white")
    axes = figure.subplots(3, count, squeeze=False)
    size = max(8.0, 0.85 * width)  # of letters: a wide figure is shown smaller
    largest = max(float(np.abs(adversarial - clean).max()), 1e-12)
    rows = (clean, adversarial, (adversarial - clean) / largest / 2 + 0.5)
    for column in range(count):
        for row, images in enumerate(rows):
            draw_image(axes[row][column], images[column], difference=row == 2)
            axes[row][column].set(xticks=[], yticks=[])
        for row, (predicted, confidence) in enumerate(predictions[column].reshape(2, 2)):
            axes[row][column].set_xlabel(f"{int(predicted)} ({confidence:.0%})", fontsize=size)
        if titles:
            axes[0][column].set_title(titles[column], fontsize=size)
    for row, name in enumerate(("image", "adversarial", f"difference \N{MULTIPLICATION SIGN} {0.5 / largest:.2g}")):
        axes[row][0].set_ylabel(name, fontsize=size)
    return figure


def coverage(rows: pd.DataFrame, norm: str) -> Figure:
    """Which inference information m covers which share of images: L_m at the image at least the measured inner maximum.

    Args:
        rows: columns ``label``, ``eps``, ``m``, ``covered`` (per cent).
        norm: name of the norm.
    """
    every = sorted(rows["eps"].unique())
    figure, axes = _figure(len(every), 2.6 * len(every) + 1.2, 3.2)
    for ax, eps in zip(axes, every, strict=True):
        part = rows[rows["eps"] == eps]
        for number, (label, line) in enumerate(part.groupby("label", sort=False)):
            ax.plot(line["m"], line["covered"], label=reader_name(str(label)), **_style(number))
        ax.set(title=f"{norm}, eps {eps_text(eps)}", xlabel="m", ylim=(-2, 102))
    axes[0].set_ylabel("covered (%)")
    _below(figure, axes[-1])
    return figure


def looks(count: int) -> list[dict[str, Any]]:
    """``color`` and ``marker`` of so many lines, in their order: for what shows the same objectives elsewhere."""
    return [_style(number) for number in range(count)]


def as_bytes(figure: Figure, kind: str) -> bytes:
    """The figure as SVG, PDF or PNG; the same figure gives the same bytes.

    Args:
        figure: the figure.
        kind: ``svg``, ``pdf`` or ``png``.
    """
    dateless = {"svg": {"Date": None}, "pdf": {"CreationDate": None, "Producer": None}, "png": {"Software": None}}
    buffer = io.BytesIO()
    with mpl.rc_context({"svg.hashsalt": "isce", "svg.fonttype": "path", "pdf.fonttype": 3}):
        figure.savefig(buffer, format=kind, metadata=dateless[kind], dpi=150)
    figure.set_layout_engine("none")  # the layout stays as it was found; another format needn't look for it again
    return buffer.getvalue()


def show(figure: Figure) -> Image:
    """Return the figure as a picture to end a notebook's cell with."""
    return Image(as_bytes(figure, "png"), width=int(figure.get_figwidth() * 90))
