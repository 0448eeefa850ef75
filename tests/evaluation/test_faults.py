"""No fault in a function of ours makes an accuracy rise: one is planted in each in turn, found by a trace."""

from __future__ import annotations

import importlib
import json
import tempfile
from collections.abc import Callable, Iterator
from inspect import unwrap
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from planting import RAISES, Plants, planted_copy

from isce.attacks import names

#: Distance of each image to the nearest of another class, in l_inf; the first has a wrong label.
DISTANCES = (0.02, 0.0001, 0.0002, 0.0003, 0.03, 0.3)
EPS = [0.04, 0.08]
ROWS = [
    {"attack": "pgd", "steps": 2},
    {"attack": "deepfool", "steps": 2},
    {"attack": "search", "objective": "margin", "steps": 2, "restarts": 3, "images": 5},
    {"attack": "matched", "objective": "margin", "steps": 3, "restarts": 2},
    {"attack": "matched", "objective": "training", "steps": 2, "survivors": True},
]
CURVES = {"images": 4, "convergence_eps": EPS[0], "convergence_steps": [1, 2]}
#: Each attack's own budget, as small as it can be; the others have two steps.
BUDGETS = {
    "cw": {"params": {"search_steps": 1, "lr": 0.1}},
    "jsma": {"eps": 6.0},
    "lbfgs": {"params": {"search_steps": 1}},
    "local-search": {"params": {"seeds": 2}, "eps": 6.0},
    "released": {"step_size": 0.05},
    "spsa": {"params": {"samples": 2}},
    "transfer": {"source": "other"},
}


class Stage:
    """The copy of the package, a linear network, and six images."""

    def __init__(self) -> None:
        self.evaluation = importlib.import_module("isce.evaluation")
        self.suites, self.attacks = (
            importlib.import_module("isce.parameters.attack"),
            importlib.import_module("isce.attacks"),
        )
        flags = importlib.import_module("isce.evaluation.flags")
        vars(flags).update(SEARCH_STEPS=3, FEW=1)
        base = importlib.import_module("isce.models.base")

        class Flat(base.Backbone):
            embedding_dim = 16

            def features(self, x: torch.Tensor) -> torch.Tensor:
                return x.flatten(1)

        classifier = base.Classifier(Flat((1, 4, 4), [0.5], [0.5]), torch.nn.Linear(16, 3))
        left = torch.tensor([1.0, 1.0, 0.0, 0.0]).repeat(4)  # the columns that class 0 looks at; class 1 at the others
        classifier.score_map.weight.data = torch.stack([left, 1 - left, 0 * left])
        classifier.score_map.bias.data = torch.tensor([0.0, 0.0, -20.0])
        classifier.eval().requires_grad_(requires_grad=False)
        y = torch.arange(len(DISTANCES)) % 2
        sides = torch.stack([left, 1 - left])[y].view(-1, 1, 4, 4)
        x = 0.3 + 2 * torch.tensor(DISTANCES).view(-1, 1, 1, 1) * sides
        y[0] = 1 - y[0]
        self.network = (classifier, importlib.import_module("isce.losses").build("isce"))
        self.given = (*self.network, x, y)
        self.index = torch.arange(len(y)) + 10
        source = SimpleNamespace(classifier=classifier, objective=self.network[1])
        vars(importlib.import_module("isce.evaluation.job"))["load_checkpoint"] = lambda path, device: source
        self.weak = self.parameters([{"attack": "bim", "steps": 1, "step_size": 0.001}])
        self.found = self.evaluation.evaluate(*self.given, self.weak, index=self.index, progress=False)

    def parameters(self, rows: list[dict[str, Any]], eps: list[float] = EPS[:1], **more: Any) -> Any:
        suite = self.suites.Suite(name="s", rows=rows)
        return self.suites.AttackParameters(checkpoint="", suite=suite, eps=eps, batch_size=8, **more)

    def evaluate(self, rows: list[dict[str, Any]], eps: list[float] = EPS[:1], **more: Any) -> dict[str, Any]:
        given = (*self.given, self.parameters(rows, eps))
        return unwrap(self.evaluation.evaluate)(*given, index=self.index, progress=False, **more).results()

    # The scenes: what a notebook does with an evaluation, one after the other.

    def suite(self) -> dict[str, Any]:
        return self.evaluate(ROWS)

    def grid(self) -> dict[str, Any]:
        """Points of an attack that looks for the smallest change are judged again; images are spared."""
        return self.evaluate([ROWS[1], ROWS[-1]], EPS)

    def state(self) -> dict[str, Any]:
        with tempfile.TemporaryDirectory() as folder:
            self.evaluate(ROWS[:1], state=Path(folder) / "state.npz")
            return self.evaluate(ROWS[:1], state=Path(folder) / "state.npz")

    def flags(self) -> dict[str, Any]:
        return {"flags": unwrap(self.evaluation.red_flags)(self.found, *self.given, self.weak)}

    def curves(self) -> dict[str, Any]:
        chosen = self.parameters([*ROWS[:2], ROWS[-1]], EPS, curves=CURVES)
        outcome = unwrap(self.evaluation.evaluate)(*self.given, chosen, index=self.index, progress=False)
        with tempfile.TemporaryDirectory() as folder:
            found = unwrap(self.evaluation.curves)(
                *self.given, chosen, outcome, index=self.index, folder=Path(folder), progress=False
            )
        return {"curves": found, "flags": self.evaluation.curve_flags(found)}

    def examples(self) -> dict[str, Any]:
        spec, threat = self.suites.AttackSpec(**ROWS[0]), self.attacks.Threat("linf", EPS[0])
        unwrap(self.evaluation.examples)(*self.given, spec, threat, count=2)
        return {}

    def attack(self, name: str) -> Callable[[], dict[str, Any]]:
        about = self.attacks.about(name)
        row = {"attack": name, "targeted": about.targeted == "must", "images": 3}
        row |= {"steps": 2} if about.steps else {}
        if "linf" not in about.norms:
            row |= {"norm": about.norms[0], "eps": 1.0}
        return lambda: self.evaluate([row | BUDGETS.get(name, {})])


SCENES = ("suite", "grid", "state", "flags", "curves", "examples")


@pytest.fixture(scope="module")
def planted() -> Iterator[tuple[Stage, Plants, dict[str, str]]]:
    """The stage, what plants the faults, and the functions that had theirs, each with its scene."""
    with planted_copy() as plants:
        yield Stage(), plants, {}


def shares(found: Any, place: str = "") -> dict[str, dict[str, Any]]:
    """Every share of images in what a scene returned, by its place there."""
    if isinstance(found, dict) and "accuracy" in found:
        return {place: found}
    inner = found.items() if isinstance(found, dict) else enumerate(found) if isinstance(found, list) else ()
    return {name: one for key, value in inner for name, one in shares(value, f"{place} {key}").items()}


def rises(before: dict[str, Any], after: dict[str, Any]) -> Iterator[str]:
    """What looks better than it is: accuracies above those without a fault, or of other images; flags that are gone."""
    known, flags = shares(before), after.get("flags", {})
    if "attack-failed" not in flags:
        yield from (f"no flag {name}" for name in before.get("flags", {}) if name not in flags)
    for place, share in shares(after).items():
        clean = known.get(place, {})  # empty for a row that goes by another name: none of the suite's
        for name in {"accuracy", "last_accuracy"} & share.keys() & clean.keys():
            fits = share["n"] == clean["n"] and clean[name] is not None and share[name] is not None
            if share[name] is not None and not (fits and share[name] <= clean[name] + 1e-12):
                yield f"{place}: {name} {share[name]} of {share['n']}, without the fault {clean[name]} of {clean['n']}"


@pytest.mark.parametrize("name", [*SCENES, *names()])
def test_no_fault_makes_an_accuracy_rise(planted, name):
    stage, plants, done = planted
    scene = getattr(stage, name) if name in SCENES else stage.attack(name)
    clean, called = plants.trace(scene)
    again = name == "grid"
    places = [(place, kind) for place, kinds in called.items() if again or place not in done for kind in kinds]
    done |= dict.fromkeys(called, name)
    assert places or name not in SCENES
    if name == "suite":
        rows = clean["threats"]["linf@0.04"]["attacks"].values()
        assert all(row["correct"] < row["attacked"] for row in rows if not row["survivors"]), "nothing to lose"
    assert name != "flags" or clean["flags"], "none that could go"
    wrong = []
    for place, kind in places:
        try:
            found = plants.plant(place, kind, scene)
            json.dumps(found, allow_nan=False)  # as a record is written
        except Exception:  # the evaluation has ended
            continue
        finally:
            assert plants.shown, f"{kind} in {place} was not planted"
        wrong += [f"{kind} in {place}: {text}" for text in rises(clean, found)]
        wrong += [f"{place} raised, and the scene went on"] * (kind == RAISES)
    assert not wrong, "\n".join(wrong)
    print(f"{name}: {len(called)} functions, {len(places)} faults planted")  # noqa: T201
