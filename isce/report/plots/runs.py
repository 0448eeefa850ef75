"""Plots of runs, for notebooks and book. Functions take plain values or data frames and return a matplotlib figure."""

from __future__ import annotations

import io
import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from IPython.display import Image
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from isce.report.names import core, panels, reader_name

# Okabe and Ito's palette: told apart with every common kind of colour blindness. Marker and line differ as well.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#8C8C00", "#6A3D9A")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">")
#: Colour and marker of each loss in every figure: places in the two above.
LOOKS = {
    "sce": (6, 0),
    "isce": (1, 1),
    "isce-m2": (1, 1),
    "isce-m5": (4, 4),
    "isce-released": (0, 3),
    "isce-certified": (2, 5),
    "mmc": (8, 5),
    "lgm": (7, 6),
    "center": (5, 7),
    "contrastive": (3, 8),
    "triplet": (2, 2),
}


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


def looks(labels: Iterable[str]) -> dict[str, dict[str, Any]]:
    """``color`` and ``marker`` of each label: those of :data:`LOOKS`, for others pairs that none of these has.

    No pair comes twice within 81 labels.
    """
    labels = list(labels)
    taken = set(LOOKS.values())
    pairs = ((k % 9, (k % 9 + turn) % 9) for turn in range(9) for k in range(9))
    free = (pair for pair in pairs if pair not in taken)
    kinds = {label: "isce-certified" if label.startswith("isce-certified") else label for label in labels}
    found = {label: LOOKS[kind] if kind in LOOKS else next(free) for label, kind in kinds.items()}
    return {label: {"color": COLOURS[colour], "marker": MARKERS[marker]} for label, (colour, marker) in found.items()}


def name_beside(ax: Axes, extra: Sequence[Artist] = ()) -> None:
    """Name the labelled lines right of the axes, by falling mean height; then ``extra``."""
    drawn, names = ax.get_legend_handles_labels()
    known = [(line, name) for line, name in zip(drawn, names, strict=True) if isinstance(line, Line2D)]
    known.sort(key=lambda one: -float(np.nanmean(np.asarray(one[0].get_ydata(), dtype=float))))
    handles = [line for line, _ in known]
    if not handles:
        return
    texts = [*(name for _, name in known), *(str(artist.get_label()) for artist in extra)]
    place: dict[str, Any] = {"loc": "center left", "bbox_to_anchor": (1.0, 0.5), "borderaxespad": 0.2}
    ax.legend([*handles, *extra], texts, **place, frameon=False, fontsize=9, handlelength=1.6)


def grid(
    rows: int, columns: int, width: float, height: float, shade: str = "0.92", **places: Any
) -> tuple[Figure, list[list[Axes]]]:
    """Return a figure of ``width`` by ``height`` inches and its rows of axes, with grid lines behind what is drawn."""
    figure = Figure(figsize=(width, height), layout="constrained", facecolor="white")
    axes = figure.subplots(rows, columns, squeeze=False, **places).tolist()
    for ax in itertools.chain.from_iterable(axes):
        ax.grid(color=shade)
        ax.set_axisbelow(True)
        ax.spines[["top", "right"]].set_visible(False)
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
    """Training loss and validation accuracy by epoch; of many labels in several rows.

    Args:
        histories: for each label the history of one run or more: rows with ``epoch``, ``train_loss``,
            ``validation_accuracy`` (share); several runs of a label are drawn as their mean with the band from the
            lowest to the highest.
    """
    groups, look = panels(list(histories)), looks(histories)
    figure, axes = grid(len(groups), 2, 8.4, 3.2 * len(groups))
    for (left, right), group in zip(axes, groups, strict=True):
        for label in group:
            if not histories[label]:  # training diverged in its first epoch
                continue
            frame = pd.DataFrame(list(histories[label])).groupby("epoch")
            for ax, name, factor in ((left, "train_loss", 1), (right, "validation_accuracy", 100)):
                mean, low, high = (factor * frame[name].agg(how) for how in ("mean", "min", "max"))
                ax.plot(mean.index, mean, label=reader_name(label), markevery=0.2, **look[label])
                ax.fill_between(mean.index, low, high, color=look[label]["color"], alpha=0.2, linewidth=0)
        left.set(xlabel="epoch", ylabel="training loss (own scale)")
        right.set(xlabel="epoch", ylabel="validation accuracy (%)")
        name_beside(right)
    return figure


def robust_accuracy(frame: pd.DataFrame, norm: str) -> Figure:
    """Robust accuracy against eps: worst case over the suite (solid), strongest attack on the training loss (dashed).

    Args:
        frame: columns ``label``, ``eps``, ``own``, ``worst`` and the bounds ``low``, ``high`` of ``worst``, all
            accuracies in per cent. eps 0 stands for clean accuracy. Of more than four labels the main ones are drawn.
        norm: name of the norm for the axis.
    """
    figure, ((ax,),) = grid(1, 1, 6.8, 3.9)
    labels = core(frame["label"].unique())
    look = looks(labels)
    rising = frame.sort_values("eps", kind="stable")
    for label, rows in rising[rising["label"].isin(labels)].groupby("label", sort=False):
        style = look[str(label)]
        ax.plot(rows["eps"], rows["worst"], label=reader_name(str(label)), **style)
        ax.fill_between(rows["eps"], rows["low"], rows["high"], color=style["color"], alpha=0.2, linewidth=0)
        ax.plot(rows["eps"], rows["own"], linestyle="--", alpha=0.7, **style)
    ax.set(xlabel=f"eps ({norm}, images in [0, 1])", ylabel="accuracy (%)", ylim=(-2, 102))
    solid = Line2D([], [], color="0.3", label="worst case")
    dashed = Line2D([], [], color="0.3", linestyle="--", label="best attack on\nthe training loss")
    name_beside(ax, (solid, dashed))
    return figure


def seeds(frame: pd.DataFrame, xlabel: str, own: str = "best attack on the training loss, mean") -> Figure:
    """A row for each label: worst case of each training seed (filled), mean under training-loss attacks (hollow).

    Args:
        frame: columns ``label``, ``own`` and ``worst``: accuracies of one seed in per cent, NaN where not evaluated.
        xlabel: of the axis.
        own: what the legend calls the hollow marks.
    """
    labels = list(frame["label"].unique())
    figure, ((ax,),) = grid(1, 1, 6.8, 0.38 * len(labels) + 1.3)
    look = looks(labels)
    for place, label in enumerate(labels):
        rows, style = frame[frame["label"] == label], look[label]
        mean, worst = rows["own"].mean(), rows["worst"].mean()
        if np.isfinite(mean) and np.isfinite(worst):
            arrow = {"arrowstyle": "->", "color": style["color"], "alpha": 0.7, "shrinkA": 4, "shrinkB": 0}
            ax.annotate("", (worst, place), (mean, place), arrowprops=arrow)
        ax.plot([mean], [place], **style, fillstyle="none", markersize=8)
        ax.plot(rows["worst"], [place] * len(rows), **style, linestyle="none", alpha=0.75)
    ax.set(yticks=range(len(labels)), yticklabels=[reader_name(label) for label in labels], xlabel=xlabel)
    ax.set(ylim=(len(labels) - 0.4, -0.6), xlim=(-2, 102))
    ax.plot([], [], "o", color="0.3", fillstyle="none", label=own)
    ax.plot([], [], "o", color="0.3", label="worst case, each seed")
    figure.legend(loc="outside upper center", ncols=2, frameon=False, fontsize=9)
    return figure


def lines(frame: pd.DataFrame, x: str, xlabel: str, order: Sequence[str], *, log: bool = False) -> Figure:
    """Accuracy against one quantity, a line for each label: mean over runs, with the range as band.

    Args:
        frame: columns ``label``, ``run``, ``percent`` and the one named ``x``. A run that ended at 0 stays there; where
            one has NaN, its label has a gap.
        x: name of the column.
        xlabel: of the axis.
        order: labels in their order.
        log: logarithmic axis.
    """
    known = set(frame["label"])
    labels = [label for label in order if label in known]
    groups, look = panels(labels), looks(labels)
    figure, axes = grid(len(groups), 1, 6.8, 3.3 * len(groups) + 0.3)
    for (ax,), group in zip(axes, groups, strict=True):
        for label in group:
            table = frame[frame["label"] == label].pivot(index=x, columns="run", values="percent")
            table = table.mask(table.ffill() == 0, 0)
            style = look[label]
            middle, low, high = (getattr(table, name)(axis=1, skipna=False) for name in ("mean", "min", "max"))
            ax.plot(table.index, middle, label=reader_name(label), markevery=max(1, len(table) // 12), **style)
            ax.fill_between(table.index, low, high, color=style["color"], alpha=0.2, linewidth=0)
        ax.set(xlabel=xlabel, ylabel="accuracy (%)", ylim=(-2, 102), xscale="log" if log else "linear")
        name_beside(ax)
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
        figure, ((ax,),) = grid(1, 1, 5, 1)
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
    every, labels = sorted(rows["eps"].unique()), list(rows["label"].unique())
    groups, look = panels(labels), looks(labels)
    figure, axes = grid(len(groups), len(every), 2.1 * len(every) + 1.6, 2.9 * len(groups), "0.9")
    for line_of, group in zip(axes, groups, strict=True):
        for ax, eps in zip(line_of, every, strict=True):
            for label in group:
                line = rows[(rows["eps"] == eps) & (rows["label"] == label)]
                ax.plot(line["m"], line["covered"], label=reader_name(label), **look[label])
            ax.set(xlabel="m", ylim=(-2, 102))
            ax.set_title(f"{norm}, eps {eps_text(eps)}", fontsize=10)
        line_of[0].set_ylabel("covered (%)")
        name_beside(line_of[-1])
    return figure


def as_bytes(figure: Figure, kind: str) -> bytes:
    """The figure as SVG, PDF or PNG; the same figure gives the same bytes.

    Args:
        figure: the figure.
        kind: ``svg``, ``pdf`` or ``png``.
    """
    dateless = {"svg": {"Date": None}, "pdf": {"CreationDate": None, "Producer": None}, "png": {"Software": None}}
    if engine := figure.get_layout_engine():  # found once for all formats; savefig would draw the whole figure for it
        engine.execute(figure)
        figure.set_layout_engine(None)
    buffer = io.BytesIO()
    with mpl.rc_context({"svg.hashsalt": "isce", "svg.fonttype": "path", "pdf.fonttype": 3}):
        figure.savefig(buffer, format=kind, metadata=dateless[kind], dpi=150)
    return buffer.getvalue()


def show(figure: Figure) -> Image:
    """Return the figure as a picture to end a notebook's cell with."""
    return Image(as_bytes(figure, "png"), width=int(figure.get_figwidth() * 90))
