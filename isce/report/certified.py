"""What is proved beside what attacks leave: a table and a plot by eps, and for a sweep of m two plots of it."""

from __future__ import annotations

from collections import Counter
from typing import Any

from isce.evaluation import percent
from isce.report.cells import NOT_RUN, Cells, NotEvaluatedError, mean
from isce.report.exhibits import Plot, Table
from isce.report.key import Key
from isce.report.names import reader_name
from isce.report.plots import certified as plots
from isce.report.plots.runs import eps_text
from isce.report.tables import eps_grid, suites
from isce.runs.experiment import Experiment

METHODS = {
    "interval": "interval arithmetic",
    "linear": "linear relaxation (CROWN)",
    "lipschitz": "the network's Lipschitz constant",
}


def exists(found: Cells) -> bool:
    """Return whether a record of the experiment holds proofs."""
    return any(key.kind == "certified" for key in found.keys)


def table(experiment: Experiment, found: Cells, evidence: str) -> Table:
    """Tabulate, for each objective and eps, the certified accuracy and what attacks leave above it."""
    rows, grid = list[list[str]](), _grid(experiment, found)
    for label in found.labels:
        ends = [[_mean(found, label, Key.at(kind, eps)) for kind in ("certified", "worst")] for eps in grid]
        texts = [NOT_RUN if low == high == NOT_RUN else f"{low} to {high}" for low, high in ends]
        rows.append([label, found.text(label, Key("clean")), *texts])
    columns = ["objective", "clean", *(f"eps {eps_text(eps)}" for eps in grid)]
    caption = (
        f"Robust accuracy in per cent by eps, {experiment.plans[0].norm}: proved by {methods(experiment)}, and what "
        f"attacks leave ({suites(experiment)}). The true value lies between. {evidence}"
    )
    return Table(columns=columns, rows=rows, caption=caption)


def methods(experiment: Experiment) -> str:
    """Name the bounds that the attack plans prove images by."""
    used = dict.fromkeys(METHODS[plan.certify] for plan in experiment.plans if plan.certify)
    return " or ".join(used)


def _grid(experiment: Experiment, found: Cells) -> list[float]:
    return [eps for eps in eps_grid(experiment) if found.of_all(Key.at("certified", eps))]


def _mean(found: Cells, label: str, key: Key) -> str:
    several = found.get(label, key)
    try:
        return percent(mean(several)) if several else NOT_RUN
    except NotEvaluatedError:
        return "not evaluated"


def sandwich(experiment: Experiment, found: Cells, evidence: str) -> Plot:
    """Plot certified accuracy below attacked accuracy against eps, the gap between them shaded."""
    rows = list[dict[str, Any]]()
    for label in found.labels:
        for eps in [0.0, *_grid(experiment, found)]:
            certified = found.get(label, Key.at("certified", eps) if eps else Key("clean"))
            worst = found.get(label, Key.at("worst", eps) if eps else Key("clean"))
            if certified and all(cell.accuracy is not None for cell in [*certified, *worst]):
                shares = {"certified": 100 * mean(certified), "attacked": 100 * mean(worst)}
                rows.append({"label": label, "eps": eps, **shares})
    norm, seeds = experiment.plans[0].norm, f", mean over {found.seeds} seeds" if found.seeds > 1 else ""
    caption = (
        f"Dashed: proved by {methods(experiment)}. Solid: left by attacks ({suites(experiment)}), by eps. The true "
        f"accuracy is between them{seeds}. {evidence}"
    )
    main = experiment.plans[0].main_eps
    ends = "; ".join(
        f"{reader_name(row['label'])}: {row['certified']:.0f} to {row['attacked']:.0f}%"
        for row in rows
        if row["eps"] == main
    )
    alt = f"A panel for each loss: proved and attacked accuracy by eps. At eps {eps_text(main)}: {ends}."
    return Plot(figure=plots.sandwich(rows, norm), caption=caption, alt=alt)


def moved(experiment: Experiment) -> dict[str, dict[str, float]]:
    """Return what an experiment moves, by label: ``m`` at one temperature, ``T`` at m = 0; at least three values each.

    Nothing where an objective is neither of the two, or one of them comes twice.
    """
    place: dict[str, tuple[float, float]] = {}
    for objective in experiment.objectives:
        m, temperature = objective.params.get("inference"), objective.params.get("temperature", 1.0)
        if objective.name != "isce" or not isinstance(m, int | float):
            return {}
        place[objective.label] = float(m), float(temperature)
    usual, _ = Counter(temperature for _, temperature in place.values()).most_common(1)[0]
    found = {
        "m": {label: m for label, (m, temperature) in place.items() if temperature == usual},
        "T": {label: temperature for label, (m, temperature) in place.items() if m == 0},
    }
    found = {name: values for name, values in found.items() if len(values) >= 3}
    whole = {label for values in found.values() for label in values} == set(place)
    return found if whole and len(set(place.values())) == len(place) else {}


def sweep(experiment: Experiment, found: Cells, evidence: str) -> Plot:
    """Plot clean and certified accuracy against the constant m, each seed as a dot."""
    rows = list[dict[str, Any]]()
    for label, m in moved(experiment)["m"].items():
        for eps in [0.0, *_grid(experiment, found)]:
            for cell in found.get(label, Key.at("certified", eps) if eps else Key("clean")):
                if cell.accuracy is not None:
                    rows.append({"m": m, "eps": eps, "seed": cell.seed, "percent": 100 * cell.accuracy})
    caption = (
        f"Clean accuracy and accuracy proved at each {experiment.plans[0].norm} eps, against m; a dot is a seed, a "
        f"line the mean. Attacked by {suites(experiment)}. {evidence}"
    )
    best = {eps: max(means, key=lambda pair: pair[1])[0] for eps, means in plots.means(rows).items() if eps}
    alt = "; ".join(f"at eps {eps:g} the most is proved with m = {m:g}" for eps, m in best.items())
    return Plot(figure=plots.sweep(rows), caption=caption, alt=f"Lines against m: {alt}.")


def price(experiment: Experiment, found: Cells, evidence: str) -> Plot:
    """Plot certified against clean accuracy as m or the temperature moves: which buys more proofs for the price."""
    rows = list[dict[str, Any]]()
    for name, values in moved(experiment).items():
        for label, value in values.items():
            clean = {cell.seed: cell.accuracy for cell in found.get(label, Key("clean"))}
            for eps in _grid(experiment, found):
                for cell in found.get(label, Key.at("certified", eps)):
                    if cell.accuracy is not None and (before := clean.get(cell.seed)) is not None:
                        share = {"clean": 100 * before, "percent": 100 * cell.accuracy}
                        rows.append({"moved": name, "value": value, "eps": eps, "seed": cell.seed, **share})
    caption = (
        f"Accuracy proved at each {experiment.plans[0].norm} eps against clean accuracy, as m moves at one temperature "
        f"and as the temperature T moves at m = 0; a dot is a network, a line joins the means. {evidence}"
    )
    every = dict.fromkeys((row["moved"], row["eps"]) for row in rows)
    top = {one: max(row["percent"] for row in rows if (row["moved"], row["eps"]) == one) for one in every}
    most = [f"moving {name}: at most {high:.0f}% at eps {eps:g}" for (name, eps), high in top.items()]
    return Plot(figure=plots.price(rows), caption=caption, alt=f"Proved against clean accuracy. {'; '.join(most)}.")
