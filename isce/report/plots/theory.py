"""The drawings of the book's theory part, computed from the losses themselves; the book's build draws them anew."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from isce.attacks.ascent import ascend, slope
from isce.files import write_atomic
from isce.losses import inference_softmax_cross_entropy, released_inference_softmax_cross_entropy
from isce.losses.functional import negative_margin
from isce.report import worked
from isce.report.plots.runs import COLOURS, as_bytes, grid

BLUE, RED, GREEN, PINK, ORANGE, SKY, BLACK = COLOURS[:7]
CLASSES = 10
# A 2-D, 3-class problem with linear logits, the same as the interactive figure's: rows are the classes' weights.
WEIGHTS = torch.tensor([[np.cos(a), np.sin(a)] for a in np.deg2rad([90, 210, 330])], dtype=torch.float64)


def _figure(columns: int, width: float = 8.4, height: float = 3.4) -> tuple[Figure, list[Axes]]:
    figure, (axes,) = grid(1, columns, width, height)
    return figure, axes


def _text(logits: Tensor, m: float | Tensor, target: int = 0) -> Tensor:
    labels = torch.full(logits.shape[:1], target)
    return inference_softmax_cross_entropy(logits, labels, m, reduction="none")


def _released(logits: Tensor, m: float = 0.1, clip: bool = True, target: int = 0) -> Tensor:
    labels = torch.full(logits.shape[:1], target)
    return released_inference_softmax_cross_entropy(logits, labels, m, 1.0, clip, reduction="none")


def _margins(u: Tensor, rivals: int) -> Tensor:
    """Logits (N, C) with true class 0 at margin ``u`` over ``rivals`` equal classes; the others play no part."""
    rest = torch.where(torch.arange(CLASSES - 1) < rivals, 0.0, -60.0).to(u)
    return torch.cat([u[:, None], rest.expand(len(u), -1)], dim=1)


def softmax_margin() -> Figure:
    """SCE against the margin, and what scaling the logits does to loss and boundary."""
    figure, (left, right) = _figure(2)
    u = torch.linspace(-3, 8, 300, dtype=torch.float64)
    low, high = (_text(_margins(u, rivals), 0.0) for rivals in (1, CLASSES - 1))
    left.fill_between(u, low, high, color=BLACK, alpha=0.2, linewidth=0, label="every SCE with this margin")
    left.plot(u, low, color=BLACK, label="one rival")
    left.plot(u, high, color=BLACK, linestyle="--", label=f"{CLASSES - 1} equal rivals")
    left.axvline(0, color=BLACK, linewidth=0.8)
    left.annotate("decision boundary", (0, 3.2), (0.2, 3.2), fontsize=9)
    left.set(xlabel=r"margin $z_y - \max_{k \neq y} z_k$", ylabel="SCE", ylim=(0, 5.4))
    left.legend(frameon=False, loc="upper right", fontsize=9)
    point = torch.tensor([0.3, 1.0], dtype=torch.float64)
    logits = WEIGHTS @ point
    scale = torch.linspace(0.25, 8, 200, dtype=torch.float64)
    gap = (logits[0] - logits[1:].max()) / (WEIGHTS[0] - WEIGHTS[1 + int(logits[1:].argmax())]).norm()
    right.plot(scale, _text(scale[:, None] * logits, 0.0), color=BLACK, label="SCE")
    right.plot(scale, gap.expand(len(scale)), color=GREEN, linestyle="-.", label="distance to the boundary")
    right.set(xlabel="factor on all logits of a linear model", ylabel="value at one point", ylim=(0, None))
    right.legend(frameon=False, fontsize=9)
    return figure


def inference_region_sketch() -> Figure:
    """Margins of clean and of shifted examples, and the part that a term of twice the shift doesn't cover."""
    figure, (ax,) = _figure(1, 7.2, 3.4)
    u = np.linspace(-6, 11, 500)
    shift = 1.6

    def density(x: np.ndarray) -> np.ndarray:
        return np.exp(-((x - 4.2) ** 2) / (2 * 1.7**2)) / (1.7 * np.sqrt(2 * np.pi))

    clean, attacked = density(u), density(u + 2 * shift)
    ax.plot(u, clean, color=BLUE, label="clean examples")
    ax.plot(u, attacked, color=RED, linestyle="--", label="after every logit moved by r against them")
    ax.fill_between(u, attacked, where=list(u < 0), color=RED, alpha=0.25, linewidth=0, label="lost")
    hatched: dict[str, Any] = {"facecolor": "none", "edgecolor": BLUE, "hatch": "///", "linewidth": 0}
    ax.fill_between(u, clean, where=list(u < 2 * shift), label="not safe by its margin", **hatched)
    ax.axvline(0, color=BLACK, linewidth=0.8)
    ax.axvline(2 * shift, color=BLACK, linewidth=0.8, linestyle=":")
    ax.annotate("2r", (2 * shift, 0.27), (2 * shift + 0.15, 0.27), fontsize=9)
    ax.annotate("decision boundary", (0, 0.27), (-0.15, 0.27), ha="right", fontsize=9)
    ax.annotate("", (1.0, 0.241), (4.2, 0.241), arrowprops={"arrowstyle": "->", "color": "0.25"})
    ax.annotate("margin drop 2r", (1.3, 0.247), fontsize=9)
    ax.set(
        xlabel=r"margin $z_y - \max_{k \neq y} z_k$",
        ylabel="density (sketch)",
        yticks=[],
        xlim=(-6, 14),
        ylim=(0, 0.29),
    )
    ax.legend(frameon=False, fontsize=9, loc="upper right")
    return figure


def text_reading() -> Figure:
    """The loss and the pull on the true logit, for three values of the inference information."""
    figure, (left, right) = _figure(2)
    u = torch.linspace(-4, 7, 300, dtype=torch.float64)
    for m, colour, style in ((-2.0, GREEN, "-."), (0.0, BLACK, "-"), (2.0, RED, "--")):
        logits = _margins(u, 1).requires_grad_()
        loss = _text(logits, m)
        (gradient,) = torch.autograd.grad(loss.sum(), logits)
        label = "m = 0 (SCE)" if m == 0 else f"m = {m:g}"
        left.plot(u, loss.detach(), color=colour, linestyle=style, label=label)
        right.plot(u, -gradient[:, 0], color=colour, linestyle=style, label=label)
    for ax, name in ((left, r"loss $L_m$"), (right, r"pull on the true logit, $-\partial L_m / \partial z_y$")):
        ax.axvline(0, color=BLACK, linewidth=0.8)
        ax.set(xlabel="margin over one rival", ylabel=name)
    left.legend(frameon=False)
    return figure


def min_max_view() -> Figure:
    """Left: L at twice the radius is the exact inner maximum over logits. Right: over inputs it is a bound."""
    figure, (left, right) = _figure(2)
    logits = torch.tensor([[2.0, 0.5, -0.4, -1.0]], dtype=torch.float64)
    radii = torch.linspace(0, 2, 60, dtype=torch.float64)
    corners = torch.cartesian_prod(*[torch.tensor([-1.0, 1.0], dtype=torch.float64)] * 4)
    inner = [_text(logits + r * corners, 0.0) for r in radii[::6]]
    for sign, colour, name in ((1, RED, "max"), (-1, GREEN, "min")):
        curve = [float(_text(logits, 2 * sign * float(r))) for r in radii]
        left.plot(radii, curve, color=colour, label=f"$L_{{{'+' if sign > 0 else '-'}2r}}$")
        found = [float(getattr(values, name)()) for values in inner]
        left.plot(radii[::6], found, "o" if sign > 0 else "s", color=colour, label=f"{name} of SCE over the box")
    left.set(xlabel="radius r of the logit box", ylabel="loss", ylim=(0, None))
    left.legend(frameon=False, fontsize=9)

    weights = torch.tensor([[0.0, 1.5], [-0.6, 0.2], [1.5, -1.2]], dtype=torch.float64)
    point = torch.tensor([0.3, 1.0], dtype=torch.float64)
    constants = (weights[:, None] - weights[None]).norm(dim=-1)
    circle = torch.linspace(0, 2 * np.pi, 721, dtype=torch.float64)
    ball = torch.stack([circle.cos(), circle.sin()], dim=1)
    eps = torch.linspace(0, 1, 40, dtype=torch.float64)
    curves: dict[str, tuple[list[float], str, str]] = {
        "one K for all pairs": ([], RED, "--"),
        "K for each pair": ([], ORANGE, "-."),
        "true inner maximum": ([], BLACK, "-"),
    }
    for e in eps:
        centre = (weights @ point)[None]
        values = [
            _text(centre, float(constants.max() * e)),
            _text(centre, constants * e),
            _text((point + e * ball) @ weights.T, 0.0),
        ]
        for (curve, _, _), value in zip(curves.values(), values, strict=True):
            curve.append(float(value.max()))
    for name, (curve, colour, style) in curves.items():
        right.plot(eps, curve, color=colour, linestyle=style, label=name)
    right.set(xlabel=r"radius $\varepsilon$ of the input ball ($\ell_2$)", ylabel="loss", ylim=(0, None))
    right.legend(frameon=False, fontsize=9)
    return figure


def reweighting() -> Figure:
    """Left: the weight that a constant gives. Right: only a matrix turns the gradient."""
    figure, (left, right) = _figure(2)
    p = torch.linspace(1e-4, 1 - 1e-4, 400, dtype=torch.float64)
    logits = torch.stack([p.log() - (1 - p).log(), torch.zeros_like(p)], dim=1)
    slopes: dict[float, Tensor] = {}
    for m in (0.0, -2.0, 1.0, 2.0):
        z = logits.clone().requires_grad_()
        slopes[m] = torch.autograd.grad(_text(z, m).sum(), z)[0][:, 0]
    for m, colour, style in ((-2.0, GREEN, "-."), (0.0, BLACK, "-"), (1.0, ORANGE, ":"), (2.0, RED, "--")):
        left.plot(p, slopes[m] / slopes[0.0], color=colour, linestyle=style, label=f"m = {m:g}")
    left.set(xlabel=r"$p_y$ (SCE's probability of the true class)", ylabel="weight of the example", ylim=(0, 8))
    left.legend(frameon=False)

    z = torch.tensor([[1.0, 0.2, -0.2]], dtype=torch.float64)
    basis = torch.tensor([[0.0, 1.0, -1.0], [2.0, -1.0, -1.0]], dtype=torch.float64)
    basis = basis / basis.norm(dim=1, keepdim=True)
    pairs = torch.zeros(3, 3, dtype=torch.float64)
    pairs[0, 2] = 2.0
    arrows: tuple[tuple[float | Tensor, str, str], ...] = (
        (2.0, RED, "constant m = 2"),
        (0.0, BLACK, "m = 0 (SCE)"),
        (pairs, PINK, "matrix: 2 on one pair"),
    )
    for m, colour, label in arrows:
        point = z.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(_text(point, m).sum(), point)
        across, along = (basis @ -gradient[0]).tolist()
        arrow = {"arrowstyle": "-|>", "color": colour, "linewidth": 2.5, "shrinkA": 0, "shrinkB": 0}
        right.annotate("", (across, along), (0, 0), arrowprops=arrow)
        right.plot([], [], color=colour, linewidth=2.5, label=label)
    right.set(xlabel="← against one rival | against the other →", ylabel="towards the true class", aspect="equal")
    right.set(xlim=(-0.6, 0.6), ylim=(-0.05, 1.15), xticks=[-0.5, 0, 0.5])
    right.legend(frameon=False, fontsize=9, loc="center left", bbox_to_anchor=(1.0, 0.5))
    return figure


def _on_sphere(a: Tensor) -> Tensor:
    """Unit vectors (N, C) with t_y = ``a`` at class 0 and equal, negative others."""
    rest = -((1 - a**2) / (CLASSES - 1)).sqrt()
    return torch.cat([a[:, None], rest[:, None].expand(-1, CLASSES - 1)], dim=1)


def _ascent(start: float, objective: Callable[[Tensor], Tensor], size: float = 0.02) -> list[float]:
    """Margins along steps of length ``size`` up the gradient on the sphere, until the prediction changes."""
    t = _on_sphere(torch.tensor([start], dtype=torch.float64))
    t[0, 1] += 0.02  # one wrong class a little ahead, as on any real example
    margins: list[float] = []

    def gradient(t: Tensor) -> Tensor | None:
        margins.append(-float(_negative_margin(t)))
        return slope(objective, t) if margins[-1] > 0 else None

    def step(t: Tensor, gradient: Tensor, _: int) -> Tensor:
        t = t + size * gradient / gradient.norm()
        return t / t.norm()

    ascend(t / t.norm(), gradient, step, steps=1000)
    return margins


def _negative_margin(z: Tensor) -> Tensor:
    return negative_margin(z, torch.zeros(len(z), dtype=torch.int64))


def released_geometry() -> Figure:
    """Left: the loss along the sphere, with its minima. Right: how long ascent on it takes to the boundary."""
    figure, (left, right) = _figure(2)
    a = torch.linspace(0.55, 1, 900, dtype=torch.float64)
    sphere = _on_sphere(a)
    variants = (("m = 0", 0.0, False, BLACK, "-"), ("m = 0.1, no clip", 0.1, False, GREEN, "-."))
    for label, m, clip, colour, style in (*variants, ("I-SCE (code): m = 0.1, clip", 0.1, True, BLUE, "--")):
        loss = _released(sphere, m, clip)
        lowest = int(loss.argmin())
        left.plot(a, loss, color=colour, linestyle=style, label=label)
        left.plot(a[lowest], loss[lowest], "o", color=colour)
    left.set(xlabel=r"$t_y$, wrong classes equal", ylabel="loss")
    left.legend(frameon=False, fontsize=9)

    for start, style in ((0.91, "-"), (0.97, "--")):
        right.plot(
            _ascent(start, _released), color=BLUE, linestyle=style, label=f"on I-SCE (code), from $t_y$ = {start}"
        )
    right.plot(_ascent(0.91, _negative_margin), color=GREEN, linestyle="-.", label="on the margin, from 0.91")
    right.axhline(0, color=BLACK, linewidth=0.8)
    right.annotate("decision boundary", (0, 0), (1, 0.03), fontsize=9)
    right.set(
        xlabel="steps of ascent on the unit sphere", ylabel=r"margin $t_y - \max_{k \neq y} t_k$", ylim=(-0.08, 1.5)
    )
    right.legend(frameon=False, fontsize=9, loc="upper right")
    return figure


def explorer() -> Figure:
    """The interactive figure's still: loss of class 0 over the plane, SCE and both versions."""
    figure, axes = _figure(3, 8.4, 3.1)
    grid = torch.linspace(-3, 3, 161, dtype=torch.float64)
    x, y = torch.meshgrid(grid, grid, indexing="xy")
    logits = torch.stack([x.flatten(), y.flatten()], dim=1) @ WEIGHTS.T
    panels = (
        ("SCE (m = 0)", _text(logits, 0.0)),
        ("I-SCE (text), m = 2", _text(logits, 2.0)),
        ("I-SCE (code), m = 0.1", _released(logits)),
    )
    for ax, (title, loss) in zip(axes, panels, strict=True):
        ax.grid(visible=False)
        ax.contourf(x, y, loss.reshape(x.shape), levels=np.linspace(0, 7, 15), cmap="cividis_r", extend="max")
        for angle in np.deg2rad([30, 150, 270]):
            ax.plot([0, 4.3 * np.cos(angle)], [0, 4.3 * np.sin(angle)], color="white", linewidth=1.5)
        ax.set(title=title, xlim=(-3, 3), ylim=(-3, 3), aspect="equal", xticks=[-2, 0, 2], yticks=[-2, 0, 2])
        ax.text(0, 2.4, "class a", ha="center", fontsize=9)
    return figure


def worked_example() -> Figure:
    """The dial's still: what SCE and I-SCE make of three logits, and of every lead of the true class."""
    figure, (left, right) = _figure(2, 8.4, 3.2)
    places, plain, ours = np.arange(len(worked.CLASSES)), worked.work(0.0), worked.work(worked.INFERENCE)
    name = f"I-SCE, m = {worked.INFERENCE:g}"
    left.bar(places, ours.probabilities, 0.62, color=RED, alpha=0.75, label=name)
    left.bar(places, plain.probabilities, 0.8, fill=False, edgecolor=BLACK, linestyle="--", label="SCE")
    left.set(xticks=places, xticklabels=worked.CLASSES, ylabel="probability in the loss", ylim=(0, 1))
    left.legend(frameon=False)
    true, *rivals = worked.LOGITS
    leads = torch.linspace(-2, 7, 200, dtype=torch.float64)
    logits = torch.stack([max(rivals) + leads, *(torch.full_like(leads, z) for z in rivals)], dim=1)
    lead = true - max(rivals)
    for m, made, colour, style in ((worked.INFERENCE, ours, RED, "-"), (0.0, plain, BLACK, "--")):
        right.plot(leads, _text(logits, m), color=colour, linestyle=style, label=name if m else "SCE")
        right.plot([lead], [made.loss], "o", color=colour)
    right.set(xlabel=f"lead of {worked.CLASSES[0]} over {worked.CLASSES[1]}", ylabel="loss", xlim=(-2, 7), ylim=(0, 5))
    right.legend(frameon=False)
    return figure


FIGURES: tuple[Callable[[], Figure], ...] = (
    worked_example,
    softmax_margin,
    inference_region_sketch,
    text_reading,
    min_max_view,
    reweighting,
    released_geometry,
    explorer,
)


def write_all(folder: Path) -> None:
    """Draw every figure as ``folder/<name>.svg``; same code, same bytes; what would not change is left alone.

    Args:
        folder: made if it doesn't exist.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for draw in FIGURES:
        path, content = folder / f"{draw.__name__}.svg", as_bytes(draw(), "svg")
        if not path.exists() or path.read_bytes() != content:
            write_atomic(path, content)
