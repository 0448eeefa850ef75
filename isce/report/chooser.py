"""Data of the book's interactive figure: every accuracy, by attack and threat model."""

from __future__ import annotations

from typing import Any

from isce.report.cells import Cell, Cells, NotEvaluatedError
from isce.report.key import Key
from isce.report.names import reader_name, row_name
from isce.report.plots.runs import eps_text, looks
from isce.report.tables import count_range, left_of, suites
from isce.runs.experiment import Experiment

#: Kinds of accuracies: the heading that the attack stands under, and what is said of it.
KINDS = {
    "worst": (
        "Over several attacks",
        "An image is robust if it is classified right and no attack, at this eps or a smaller one, changes that.",
    ),
    "certified": (
        "Proved",
        "No point of the ball changes the prediction, whatever the attack: a lower bound of robust accuracy.",
    ),
    "own": ("Over several attacks", "The lowest of the attacks on the training loss, for each network."),
    "attack": ("By itself", "The attack's own result, whatever the others find."),
    "left": (
        "On what was left",
        "It attacked only what the attacks before it in the suite had left; its result is what remains after them all.",
    ),
}
NAMES = {"worst": "worst case", "certified": "proved", "own": "training loss"}


def chooser(experiment: Experiment, found: Cells, evidence: str) -> dict[str, Any]:
    """Return what ``isce-chooser.js`` draws.

    Returns:
        ``caption``; ``start``, the threat that is shown first; ``objectives`` with their colour and marker in the
        plots; ``kinds`` of attacks, what is said of them; ``attacks``: for each the threats it was run in, with the
        results of each objective as :meth:`Cells.percents` returns them; a text where they were not evaluated.
    """
    plan = experiment.plans[0]
    rows: dict[str, list[dict[str, Any]]] = {name: [] for name in NAMES.values()}
    for key in found.keys:
        if key.kind in ("clean", "rejected", "hit"):
            continue
        cells = found.of_all(key)
        kind = "left" if any(cell.left for cell in cells) else key.kind
        about = {"threat": _in_words(key, plan.norm), "kind": kind, "on": _counts(cells)}
        results = [_figures(found, label, key) for label in found.labels]
        rows.setdefault(row_name(key.row) if key.row else NAMES[key.kind], []).append(about | {"results": results})
    caption = (
        "Choose an attack: accuracy (%) in one threat model at one eps, mean (marker) and Wilson 95% interval "
        f"(bar); the upright line is clean accuracy. Attacks of {suites(experiment)}. Images and seeds of what is "
        f"chosen are named above; at most {evidence}"
    )
    objectives = [
        {"label": reader_name(label), "clean": found.percents(label, Key("clean"))[0], **look}
        for label, look in looks(found.labels).items()
    ]
    attacks = [{"name": name, "at": at} for name, at in rows.items() if at]
    start = _in_words(Key.at("worst", plan.main_eps), plan.norm)
    used = {one["kind"] for at in rows.values() for one in at}
    kinds = {kind: about for kind, about in KINDS.items() if kind in used}
    return {"caption": caption, "start": start, "kinds": kinds, "objectives": objectives, "attacks": attacks}


def _figures(found: Cells, label: str, key: Key) -> list[float] | str:
    try:
        return found.percents(label, key)
    except NotEvaluatedError as error:
        return str(error)


def _in_words(key: Key, norm: str) -> str:
    """Threat of a key as readers choose it; ``norm`` is the experiment's."""
    name, _, eps = key.threat(norm).partition("@")
    return f"{name}, eps {eps_text(float(eps))}" if eps else name


def _counts(cells: list[Cell]) -> str:
    """Numbers of images and of training seeds behind the cells of one key."""
    seeds = [sum(cell.label == label for cell in cells) for label in dict.fromkeys(cell.label for cell in cells)]
    ending, given = "s" if max(seeds) > 1 else "", left_of(cells)
    images = f"{count_range(cell.n for cell in cells)} test images{f', given what was left{given}' if given else ''}"
    return f"{images}, {count_range(seeds)} training seed{ending}"
