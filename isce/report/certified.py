"""What is proved beside what attacks leave: a table and a plot by eps, and a plot by m for a sweep of it."""

from __future__ import annotations

from typing import Any

from isce.evaluation import percent
from isce.report.cells import NOT_RUN, Cells, NotEvaluatedError, mean
from isce.report.exhibits import Plot, Table
from isce.report.key import Key
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
        texts = [
            f"{_mean(found, label, Key.at('certified', e))} to {_mean(found, label, Key.at('worst', e))}"
            for e in _grid(experiment, found)
        ]
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
    last = {row["label"]: row for row in rows}.values()
    ends = "; ".join(
        f"{row['label']}: {row['certified']:.0f} to {row['attacked']:.0f}% at eps {eps_text(row['eps'])}"
        for row in last
    )
    alt = f"Certified and attacked accuracy by eps. {ends}."
    return Plot(figure=plots.sandwich(rows, norm), caption=caption, alt=alt)


def constants(experiment: Experiment) -> dict[str, float]:
    """The constant m of each objective, where the experiment sweeps one: at least three values, nothing else."""
    found: dict[str, float] = {}
    for objective in experiment.objectives:
        m = objective.params.get("inference")
        if objective.name != "isce" or not isinstance(m, int | float):
            return {}
        found[objective.label] = float(m)
    return found if len(set(found.values())) == len(found) >= 3 else {}


def sweep(experiment: Experiment, found: Cells, evidence: str) -> Plot:
    """Plot clean and certified accuracy against the constant m, each seed as a dot."""
    rows = list[dict[str, Any]]()
    for label, m in constants(experiment).items():
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
