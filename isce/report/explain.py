"""Tables, plots and numbers of explain records."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from isce.evaluation import percent
from isce.report.exhibits import Plot, Table
from isce.report.key import Key, split_run
from isce.report.names import is_text_version, reader_name
from isce.report.plots import explain as plots
from isce.report.plots.runs import eps_text, three
from isce.runs.records import EXPLAIN, Record

KINDS = ("explain",)
_STANDING = {
    "promised": "promised",
    "one-step-training": "one step, training loss",
    "one-step-exact": "the same, float64",
    "one-step-matched": "one step, margin",
    "plain-training": "plain, training loss",
    "plain-matched": "plain, margin",
    "adaptive-training": "adaptive, training loss",
    "adaptive-ce": "adaptive, CE",
    "adaptive-margin": "adaptive, margin",
    "adaptive-dlr": "adaptive, DLR",
    "adaptive-targeted": "adaptive, one class",
}
ASCENTS = ("training", "matched")
_MEDIAN, _LOW, _HIGH = 2, 0, 4  # places in isce.explain.analysis.QUANTILES


class Explained:
    """The explain records of one experiment.

    Args:
        found: path, label and record of each, in the order of the experiment file and of the seeds.
        side_file: reads the arrays of a record's side file, by the record's path and the file's name.
    """

    def __init__(
        self, found: list[tuple[str, str, Record]], side_file: Callable[[str, str], Mapping[str, np.ndarray]]
    ) -> None:
        self.all = found
        firsts: dict[str, tuple[str, Record]] = {}
        for name, label, record in found:
            firsts.setdefault(label, (name, record))
        self.first = {label: record for label, (_, record) in firsts.items()}
        self.name = {label: name for label, (name, _) in firsts.items()}
        self.arrays = {label: side_file(name, EXPLAIN) for label, (name, _) in firsts.items()}
        record = found[0][2]
        self.eps, self.n, self.steps = record.results["eps"], record.results["n"], record.parameters["steps"]

    @property
    def evidence(self) -> str:
        """Images, seed and ball, for captions."""
        seeds = sorted({split_run(record.run)[1] for record in self.first.values()})
        return f"{self.n:,} test images, training seed {', '.join(seeds)}; linf, eps {eps_text(self.eps)}."

    def tables(self) -> Iterator[tuple[str, Table]]:
        """Return every table with its name."""
        yield "explain-standing", self._standing()
        yield "explain-gradients", self._gradients()
        yield "explain-features", self._features()
        if any(record.results["sphere"] for record in self.first.values()):
            yield "explain-sphere", self._sphere()

    def _standing(self) -> Table:
        rows: list[list[str]] = []
        for label, record in self.first.items():
            cells = [record.results["standing"][name] for name in _STANDING]
            rows.append([label, *(percent(of["accuracy"], (of["low"], of["high"])) for of in cells)])
        caption = (
            "Images that are still classified right (%). Promised: if the margin were linear in the image. One step "
            "of size eps along the gradient's sign: of the training loss in float32, of the same in float64, of the "
            f"margin. Plain: {self.steps} steps of equal size from the image. Adaptive: {self.steps} falling steps "
            "of the matched attack from the image, on that function alone. Wilson 95% intervals over images. "
            f"{self.evidence}"
        )
        return _table(["loss", *_STANDING.values()], rows, caption)

    def _gradients(self) -> Table:
        columns = ["loss", "margin", "slope", "promised distance", "tiny (%)", "zero (%)", "matched tiny (%)"]
        rows: list[list[str]] = []
        for label, record in self.first.items():
            of = record.results["gradients"]
            medians = [three(of[name][_MEDIAN]) for name in ("margin", "slope", "distance")]
            shares = [percent(of[name]) for name in ("tiny", "zero", "matched_tiny")]
            kept = [_range(of[name]) for name in ("kept", "aim")]
            rows.append([label, *medians, *shares, *kept, percent(self.backwards(label))])
        caption = (
            "Gradients at the images. Medians of the margin, of the l_1 norm of its gradient, and of the l_inf "
            "distance at which a linear margin would be used up inside the box. Tiny: images where no entry of the "
            "training loss's float32 gradient reaches 6e-8; zero: where all are 0. Kept by float32, and aim at the "
            "margin: what the sign of that gradient gets of the steepest first-order change of that loss, and of "
            "the margin, in per cent; median, and from a tenth to nine tenths of the images. Backwards: images "
            f"classified right where the latter is negative, so that the margin grows at first. {self.evidence}"
        )
        return _table([*columns, "kept by float32", "aim at the margin", "backwards (%)"], rows, caption)

    def backwards(self, label: str) -> float:
        """Share of the images classified right whose margin grows, to first order, as the training loss is ascended."""
        arrays = self.arrays[label]
        aims = arrays["gradients.aim"][arrays["gradients.margin"] > 0]
        return float((aims < 0).mean()) if len(aims) else 0.0

    def _features(self) -> Table:
        columns = ["loss", "between / within", "the same, adversarial", "moved", "nearest own (%)"]
        rows: list[list[str]] = []
        for label, record in self.first.items():
            of = record.results["features"]
            ratios = [three(of[name]) for name in ("separation", "adversarial_separation")]
            shares = [percent(of[name]) for name in ("nearest", "adversarial_nearest")]
            margins = [record.results["gradients"]["margin"], of["adversarial_margin"]]
            rows.append([label, *ratios, three(of["moved"][_MEDIAN]), *shares, *(three(m[_MEDIAN]) for m in margins)])
        caption = (
            "Embeddings and margins of the images and of the last points of the plain ascent on the margin. First "
            "two columns: scatter between classes over within. Moved: median distance from clean to adversarial, in "
            "halves of the distance between the own class mean and the one nearest to it. Nearest own: embeddings "
            "whose nearest clean class mean is the own one. Medians of the margins, in each network's own units. "
            f"{self.evidence}"
        )
        return _table([*columns, "the same, adversarial (%)", "margin", "adversarial margin"], rows, caption)

    def _sphere(self) -> Table:
        rows: list[list[str]] = []
        for label, record in self.first.items():
            of = record.results["sphere"]
            for name in ASCENTS if of else ():
                shares = [_share(of[name][what]) for what in ("rises", "widens", "standing", "standing_others")]
                rows.append([label, name, f"{of['beyond']} of {of['right']}", *shares])
        columns = ["loss", "ascends", "beyond the kink", "true entry rises (%)", "margin widens (%)", "stand (%)"]
        caption = (
            "Images that are classified right and start beyond the kink of the clip, and what an attack does to "
            "them. Of these, how many the first step of a plain ascent takes further beyond it, where the true "
            "class's entry rises, and how many away from the decision boundary, where the margin widens. How many "
            f"of them, and of the images before the kink, no step misclassifies. {self.evidence}"
        )
        return _table([*columns, "others stand (%)"], rows, caption)

    def plots(self) -> Iterator[tuple[str, Callable[[], Plot]]]:
        """Return the name of every plot, and what draws it."""
        drawings = {"paths": self._paths, "gradients": self._gradient_plot, "promise": self._promise}
        drawings |= {"margins": self._margins, "features": self._feature_maps}
        if self._walked():
            drawings["walk"] = self._walk
        if self._kinks():
            drawings["sphere"] = self._trajectories
        yield from ((f"explain-{name}", draw) for name, draw in drawings.items())

    def _plot(self, figure: Figure, caption: str, alt: str, *labels: str) -> Plot:
        """Plot of the first records of some objectives, or of all."""
        sources = sorted(self.name[label] for label in labels or self.name)
        return Plot(figure=figure, caption=caption, alt=alt, kinds=KINDS, sources=sources)

    def _walked(self) -> dict[str, int]:
        """Return SCE and the text version by label, each with its gallery's first attack on the training loss."""
        found: dict[str, int] = {}
        for label, record in self.first.items():
            rows = [Key("attack", name).on_own_loss for name, _ in record.results["gallery"]["rows"]]
            if any(rows) and (label == "sce" or is_text_version(label)):
                found[label] = rows.index(True)
        return found if len(found) > 1 and "sce" in found else {}

    def _walk(self) -> Plot:
        walked = self._walked()
        labels = self.first["sce"].results["gallery"]["labels"]
        before, after = (self.arrays["sce"]["gallery.predictions"][row, :, 0] for row in (0, walked["sce"] + 1))
        fell = [k for k, label in enumerate(labels) if before[k] == label != after[k]]
        image = fell[0] if fell else 0
        drawn = plots.walk({label: self.arrays[label] for label in walked}, walked, image)
        caption = (
            f"Left: one test image of class {labels[image]}, attacked by {self.steps} plain steps (BIM) on the "
            f"training loss. Right: the median margin along them. {self.evidence}"
        )
        medians = {reader_name(label): self.arrays[label]["training.margin"][1] for label in walked}
        ends = "; ".join(f"{name}: {median[0]:.1f} to {median[-1]:.1f}" for name, median in medians.items())
        alt = f"An image before and after the attack for each network, and falling lines of the margin. {ends}."
        return self._plot(drawn, caption, alt, *walked)

    def _paths(self) -> Plot:
        caption = (
            f"What changes along {self.steps} plain steps on the training loss (dashed) and on the margin (solid). "
            "The training loss, cross-entropy of the raw logits, the margin, and the share of images that no step "
            "so far misclassified. Median, and band from a tenth to nine tenths of the images; the paths go on "
            f"after an image has fallen. Of many losses three are drawn. {self.evidence}"
        )
        ends = "; ".join(
            f"{reader_name(label)}: {100 * a['training.standing'][-1]:.0f}% and {100 * a['matched.standing'][-1]:.0f}%"
            for label, a in self.arrays.items()
        )
        alt = f"Four line plots by step for each loss. Share still right at the end, training loss and margin: {ends}."
        return self._plot(plots.paths(self.arrays), caption, alt)

    def _kinks(self) -> dict[str, float]:
        return {label: r.results["sphere"]["kink"] for label, r in self.first.items() if r.results["sphere"]}

    def _trajectories(self) -> Plot:
        kinks = self._kinks()
        caption = (
            "Logits of some images on the unit sphere along both plain ascents, from the image (circle) to the last "
            "step (cross). Entry of the true class against the largest other entry. A point above the diagonal is "
            "misclassified. Shaded: beyond the kink of the clip, where the loss has no gradient through the true "
            f"class's entry. Below: the same around the kink. {self.evidence}"
        )
        rises = "; ".join(
            f"{label}: {' and '.join(_share(self.first[label].results['sphere'][a]['rises']) for a in ASCENTS)}%"
            for label in kinks
        )
        alt = (
            "Trajectories in a disc, whole and close to the kink. Share of the images beyond the kink that the first "
            f"step takes further away from it, on the training loss and on the margin: {rises}."
        )
        return self._plot(plots.sphere({label: self.arrays[label] for label in kinks}, kinks), caption, alt)

    def _gradient_plot(self) -> Plot:
        caption = (
            "Gradients of the training loss in float32, for each image that is classified right, against its "
            "margin. Left: the largest entry. Middle: the share of that loss's steepest ascent that the sign of "
            "this gradient keeps. Right: the share that it gets of the margin's steepest descent, negative where it "
            "widens the margin. Dotted: the gap of 16.6 from which the true class's entry rounds to 0 for SCE of "
            f"two classes. From 37 on float64, which the middle compares with, rounds likewise. {self.evidence}"
        )
        tiny = ", ".join(f"{label} {100 * r.results['gradients']['tiny']:.0f}%" for label, r in self.first.items())
        alt = f"Three scatter plots against the margin. Share of images with a tiny gradient: {tiny}."
        return self._plot(plots.gradients(self.arrays), caption, alt)

    def _promise(self) -> Plot:
        standing: dict[str, tuple[float, float, float]] = {}
        for label, record in self.first.items():
            of = record.results["standing"]
            best = of["adaptive-margin"]
            half = 50 * (best["high"] - best["low"])
            standing[label] = (100 * of["one-step-matched"]["accuracy"], 100 * best["accuracy"], half)
        caption = (
            "Left: the promised distance, by loss. Right: its median against the share still right, after one step "
            "(hollow) and after the adaptive attack (filled). Promised: the l_inf distance at which the margin "
            "would be used up if it were linear, inside the box; median, middle half and middle eight tenths of the "
            f"images. Both attacks are on the margin; bars are Wilson 95% intervals. {self.evidence}"
        )
        text = "; ".join(
            f"{reader_name(label)}: {r.results['gradients']['distance'][_MEDIAN]:.3f} and {standing[label][1]:.0f}%"
            for label, r in self.first.items()
        )
        alt = f"Promised distance by loss, and against accuracy. Median distance and share still right: {text}."
        return self._plot(plots.promise(self.arrays, self.eps, standing), caption, alt)

    def _margins(self) -> Plot:
        caption = (
            "Share of images whose margin lies below a value: clean, and at the last points of the plain ascent. "
            "The dashed curve's value at margin 0 is the share misclassified under attack. The units are each "
            f"network's own. {self.evidence}"
        )
        alt = "Two rising curves for each loss; the adversarial one lies to the left of the clean one."
        return self._plot(plots.margins(self.arrays), caption, alt)

    def _feature_maps(self) -> Plot:
        caption = (
            "Embeddings: distance to the own class's clean mean and to the nearest other one. Below the diagonal "
            "another class is nearer. In units of the distance between these two means; adversarial are the last "
            f"points of the plain ascent on the margin. {self.evidence}"
        )
        near = ", ".join(
            f"{reader_name(label)} {100 * r.results['features']['adversarial_nearest']:.0f}%"
            for label, r in self.first.items()
        )
        alt = f"Scatter plots of embeddings. Adversarial embeddings that stay nearest to their own class mean: {near}."
        return self._plot(plots.feature_maps(self.arrays), caption, alt)

    def numbers(self, number: Callable[[float, str, list[str]], dict[str, Any]]) -> dict[str, dict[str, Any]]:
        """Return every number that a sentence may name: of the first seed, keys ``<label>.explain:<name>``.

        Args:
            number: makes an entry of a value, its text and the names of its records.
        """
        found: dict[str, dict[str, Any]] = {}
        for label, record in self.first.items():
            values = _plain(record.results) | {"backwards": _percent(self.backwards(label))}
            for name, (value, text) in values.items():
                found[str(Key("explain", name, label=label))] = number(value, text, [self.name[label]])
        every = sorted(self.name.values())
        for name, value in (("n", self.n), ("eps", self.eps), ("steps", self.steps)):
            found[f"explain_{name}"] = number(value, f"{value:.3g}", every)
        return found


def _table(columns: list[str], rows: list[list[str]], caption: str) -> Table:
    return Table(columns=columns, rows=rows, caption=caption, kinds=KINDS)


def _plain(results: Mapping[str, Any]) -> dict[str, tuple[float, str]]:
    """Value and text of each number of one record: shares in per cent, medians of distributions."""
    found = {name: _percent(cell["accuracy"]) for name, cell in results["standing"].items()}
    of, seen, sphere = results["gradients"], results["features"], results["sphere"]
    found |= {name: _percent(of[name]) for name in ("zero", "tiny", "matched_zero", "matched_tiny")}
    found |= {name: _percent(of[name][_MEDIAN]) for name in ("kept", "aim")}
    margin, slope, distance = (of[name][_MEDIAN] for name in ("margin", "slope", "distance"))
    found |= {"margin": _three(margin), "slope": _three(slope), "distance": _three(distance)}
    if margin > 0 and slope > 0:  # of the medians: how far the way is without the box, and how much longer within it
        ratio = margin / slope
        found |= {"ratio": _three(ratio), "stretch": (distance / ratio, f"{distance / ratio:.2f}")}
    found |= {name: _three(seen[name]) for name in ("separation", "adversarial_separation")}
    found |= {name: _percent(seen[name]) for name in ("nearest", "adversarial_nearest", "shown")}
    found |= {
        "moved": _three(seen["moved"][_MEDIAN]),
        "adversarial_margin": _three(seen["adversarial_margin"][_MEDIAN]),
    }
    if sphere and sphere["right"]:
        found["beyond"] = _percent(sphere["beyond"] / sphere["right"])
        for ascent in ASCENTS:
            shares = {what: share for what, share in sphere[ascent].items() if share is not None}
            found |= {f"{ascent}-{what}": _percent(share) for what, share in shares.items()}
    return found


def _percent(share: float) -> tuple[float, str]:
    return 100 * share, percent(share, unit="%")


def _three(value: float) -> tuple[float, str]:
    return value, three(value)


def _share(share: float | None) -> str:
    return "none" if share is None else percent(share)


def _range(quantiles: list[float]) -> str:
    middle, low, high = (round(100 * quantiles[place]) for place in (_MEDIAN, _LOW, _HIGH))
    return f"{middle} ({low} to {high})"
