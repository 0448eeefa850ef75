"""The paper's claims C1 to C8, judged from the records of one experiment by fixed rules.

The verdicts are those of :mod:`isce.report.differences`: *supported* or *contradicted* where the 95% intervals over
images and over training seeds lie wholly on one side, else *inconclusive*; *not testable* where both sides are at the
floor, nobody is there to compare with, or an accuracy was not evaluated. :mod:`isce.report.paper` says each rule in
words. Derived here; the claims are the paper's (title, abstract and introduction).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from isce.evaluation import mean_interval, percent, wilson
from isce.files import ROOT
from isce.parameters.training import TrainParameters
from isce.report.cells import Cells, NotEvaluatedError, accuracies, mean, wilson_of
from isce.report.differences import (
    CONTRADICTED,
    FLOOR,
    INCONCLUSIVE,
    SUPPORTED,
    UNTESTABLE,
    Difference,
    Interval,
    difference,
    every,
    over_seeds,
    side,
)
from isce.report.key import Key, split_run
from isce.report.names import reader_name
from isce.report.paper import COST, REPORTED
from isce.report.plots.runs import eps_text
from isce.report.tables import eps_grid
from isce.runs.experiment import Experiment
from isce.runs.records import Record

ONE = "one network"
CLEAN = Key("clean")
PAPER = "pgd50-training"  # untargeted PGD with 50 steps on the model's own training loss
COSTS = ROOT / "benchmarks" / "results" / "losses-eager.json"
MISSED = 0.05
SEPARATING = ("contrastive", "triplet", "center", "lgm", "mmc")


@dataclass(frozen=True)
class Verdict:
    """One claim, judged.

    Attributes:
        claim: C1 to C8.
        label: the objective that it is judged for; empty where it is about others.
        ours: what was measured, with its intervals.
        verdict: one of the four.
        first_rule: the verdict under the rule before it was changed; empty where none was.
    """

    claim: str
    label: str
    ours: str
    verdict: str
    first_rule: str = ""


class Judge:
    """Judges the claims that an experiment can say something about.

    Args:
        experiment: the experiment.
        found: accuracies of its attack records.
        minmax: its min-max records with their labels.
        masks: for each run which images are robust at each threat; without them images are not paired.
        costs: file of ``benchmarks/losses.py``.
    """

    def __init__(
        self,
        experiment: Experiment,
        found: Cells,
        minmax: list[tuple[str, Record]],
        masks: Mapping[str, Mapping[str, Any]] | None = None,
        costs: Path = COSTS,
    ) -> None:
        self.experiment, self.found, self.masks, self.costs = experiment, found, masks, costs
        training = TrainParameters.model_validate(
            experiment.training | {"objective": experiment.objectives[0], "seed": experiment.seeds[0]}
        )
        self.data, self.adversarial = training.dataset, training.adversarial is not None
        self.objectives = {o.label: o for o in experiment.objectives}
        isce = [label for label in found.labels if self.objectives[label].name.startswith("isce")]
        self.ours = [label for label in isce if self.objectives[label].defence is None]
        self.others = [label for label, one in self.objectives.items() if not one.name.startswith("isce")]
        self.norm, main = experiment.plans[0].norm, experiment.plans[0].main_eps
        self.worst, self.paper, self.eps = Key.at("worst", main), Key.at("attack", main, PAPER), eps_text(main)
        self.grid = eps_grid(experiment)
        #: for each objective and seed its outcome at the largest eps of the analysis
        self.minmax: dict[str, dict[str, dict[str, Any]]] = {}
        for label, record in minmax:
            threat = max(record.results["threats"].values(), key=lambda one: one["eps"])
            self.minmax.setdefault(label, {})[split_run(record.run)[1]] = threat

    def verdicts(self) -> list[Verdict]:
        """Every verdict that the records allow, in the order of the claims."""
        if "sce" not in self.found.labels or not self.ours:
            return []
        alone: dict[str, Callable[[str], Verdict | None]] = {"C1": self._c1, "C2": self._c2}
        each = {"C3": self._c3, "C4": self._c4, "C5": self._c5, "C6": self._c6, "C8": self._c8}
        rules = [] if self.adversarial else [(name, "", rule) for name, rule in alone.items()]
        rules += [(name, label, rule) for name, rule in each.items() for label in self.ours]
        found = [*(self._judged(*rule) for rule in rules), self._c7()]
        return sorted((v for v in found if v is not None), key=lambda verdict: verdict.claim)

    @staticmethod
    def _judged(claim: str, label: str, rule: Callable[[str], Verdict | None]) -> Verdict | None:
        try:
            return rule(label)
        except NotEvaluatedError as error:
            return Verdict(claim, label, str(error), UNTESTABLE)

    def _difference(self, label: str, base: str, key: Key) -> Difference | None:
        return difference(self.found, label, base, key, self.masks, self.norm)

    def _halved(self, label: str) -> str:
        """Verdict on: at the largest eps at most half of the clean accuracy is left."""
        key = Key.at("worst", self.grid[-1])
        clean, worst = ({c.seed: c for c in self.found.get(label, one)} for one in (CLEAN, key))
        seeds = sorted(set(clean) & set(worst))
        before, left = ([cells[seed] for seed in seeds] for cells in (clean, worst))
        middle, (low, high) = mean(before) / 2, wilson_of(left)
        half = [accuracy / 2 for accuracy in accuracies(before)]
        return side((middle - high, middle - low), over_seeds(half, accuracies(left)))

    def _left(self, *labels: str) -> str:
        """What is left of these at the largest eps, as text."""
        key = Key.at("worst", self.grid[-1])
        text = ", ".join(f"{reader_name(label)} {self.found.text(label, key)}" for label in labels)
        single = all(len(self.found.get(label, key)) == 1 for label in labels)
        return f"worst case at eps {eps_text(self.grid[-1])}: {text}" + _alone(single, each=len(labels) > 1)

    def _scatters(self, label: str) -> dict[str, Interval]:
        """Between over within classes, clean and adversarial, of each seed where it was measured."""
        regions = {s: one.get("region", {}).get("all", {}) for s, one in self.minmax.get(label, {}).items()}
        pairs = {s: (found.get("separation"), found.get("adversarial_separation")) for s, found in regions.items()}
        return {seed: pair for seed, pair in pairs.items() if None not in pair}

    def _c1(self, _: str) -> Verdict | None:
        scatters = list(self._scatters("sce").values())
        if not scatters:
            return None
        clean, attacked = ([pair[place] for pair in scatters] for place in (0, 1))
        less = _mean(clean) - _mean(attacked)
        moved = side((less, less), over_seeds(clean, attacked))
        ours = f"clean {self.found.text('sce', CLEAN)}, {self._left('sce')}; scatter {_mean(clean):.2f} clean, "
        ours += f"{_mean(attacked):.2f} adversarial at eps {self._analysed('sce')}"
        ours += _alone(len(scatters) < 2, each=False)
        return Verdict("C1", "sce", ours, every(self._halved("sce"), moved))

    def _c2(self, _: str) -> Verdict | None:
        some = [label for label in self.found.labels if self.objectives[label].name in SEPARATING]
        if not some:
            return None
        ours, key = self._left(*some), Key.at("worst", self.grid[-1])
        if all(mean(self.found.get(label, key)) <= FLOOR for label in [*some, *self.ours]):
            return Verdict("C2", ", ".join(some), f"{ours}; every I-SCE is at the floor there, too", UNTESTABLE)
        return Verdict("C2", ", ".join(some), ours, every(*map(self._halved, some)))

    def _c3(self, label: str) -> Verdict | None:
        own, base = self._scatters(label), self._scatters("sce")
        seeds = sorted(set(own) & set(base))
        if not seeds:
            return None
        (mine, attacked), (theirs, base_attacked) = (
            [[of[seed][place] for seed in seeds] for place in (0, 1)] for of in (own, base)
        )
        interval, less = over_seeds(mine, theirs), _mean(mine) - _mean(theirs)
        spread = f"; {ONE} of each" if interval is None else f" [{interval[0]:+.2f}, {interval[1]:+.2f}] over seeds"
        ours = (
            f"scatter {_mean(mine):.2f}, of SCE {_mean(theirs):.2f}: {less:+.2f}{spread}; of adversarial images at eps "
            f"{self._analysed(label)} {_mean(attacked):.2f}, of SCE {_mean(base_attacked):.2f}"
        )
        return Verdict("C3", label, ours, INCONCLUSIVE if interval is None else side(interval))

    def _c4(self, label: str) -> Verdict | None:
        paper, worst = (self._difference(label, "sce", key) for key in (self.paper, self.worst))
        if paper is None or worst is None:
            return None
        ours = f"against SCE at eps {self.eps}: {worst} in the worst case, {paper} under PGD-50 ({paper.verdict})"
        return Verdict("C4", label, ours + _alone(worst.seeds is None), worst.verdict)

    def _c5(self, label: str) -> Verdict | None:
        if self.objectives[label].name != "isce":
            ours = "no theorem ties the loss of this version to an inner maximum"
            return Verdict("C5", label, ours, UNTESTABLE)
        m, threats = self.objectives[label].params.get("inference"), list(self.minmax.get(label, {}).values())
        covered = [row["covered"] for threat in threats for row in threat["gap"] if row["m"] == m]
        if not covered or len(covered) < len(threats):
            return None
        n, share = min(threat["n"] for threat in threats), _mean(covered)
        images, seeds = wilson(share * n, n), mean_interval(covered) if len(covered) > 1 else None
        text = percent(share, images, None if seeds is None else (seeds[1] - seeds[0]) / 2, unit="%")
        ours = f"at eps {self._analysed(label)} m = {m:g} covers {text} of {n} images"
        ours += _alone(seeds is None, each=False)
        verdict = side(images, seeds, bound=1 - MISSED)
        if verdict == CONTRADICTED:
            return Verdict("C5", label, f"our stronger statement is contradicted: {ours}", UNTESTABLE)
        return Verdict("C5", label, ours, verdict)

    def _c6(self, label: str) -> Verdict | None:
        pairs = {other: self._difference(label, other, self.worst) for other in self.others}
        known = {other: pair for other, pair in pairs.items() if pair is not None}
        if not known:
            return None
        best = min(known, key=lambda other: known[other].value)
        ours = f"worst case at eps {self.eps}: {self.found.text(label, self.worst)}; against the best other, "
        ours += f"{reader_name(best)}: {known[best]}{_alone(known[best].seeds is None)}"
        first = known[best].verdict
        if first == SUPPORTED:  # above the best on average is above all only if it is above each
            first = every(*(pair.verdict for pair in known.values()))
        if missing := [reader_name(other) for other in self.others if other not in known]:
            ours += f"; without {', '.join(missing)}, of which there is no number"
            first = INCONCLUSIVE if first == SUPPORTED else first
        found = Verdict("C6", label, ours, first, first)
        competitors = [self.objectives[other] for other in known]
        if any(other.name in SEPARATING or other.defence for other in competitors):
            return found
        return replace(found, ours=f"{ours}; no competitor but SCE", verdict=UNTESTABLE)

    def _c7(self) -> Verdict:
        rows = json.loads(self.costs.read_text(encoding="utf-8"))["rows"] if self.costs.is_file() else []
        step = next((r for r in rows if r["shape"].startswith("training step") and r["loss"] == "isce"), None)
        if step is None:
            return Verdict("C7", "isce", "the cost of a training step was not measured", UNTESTABLE)
        ours = f"a training step costs {step['ratio']:.3f} [{step['low']:.3f}, {step['high']:.3f}] times that of SCE"
        # Cheap is the claim, so that its sign is turned.
        return Verdict("C7", "isce", ours, side((-step["high"], -step["low"]), bound=-COST))

    def _c8(self, label: str) -> Verdict | None:
        if self.data != "mnist" or self.adversarial:
            return None
        keys = {eps: Key.at("attack", eps, PAPER) for eps in self.grid}
        pairs = {eps: self._difference(label, "sce", key) for eps, key in keys.items()}
        known = {eps: pair for eps, pair in pairs.items() if pair is not None}
        if not known:
            return None
        full = [eps for eps in known if min(accuracies(self.found.get("sce", keys[eps]))) > 1 - REPORTED]
        ours = "; ".join(f"eps {eps_text(eps)}: {pair}" for eps, pair in known.items())
        ours += _alone(any(pair.seeds is None for pair in known.values()))
        if full:
            ours += f"; SCE leaves no room for {100 * REPORTED:g} points at eps {', '.join(map(eps_text, full))}"
        found = [_reached(pair) for eps, pair in known.items() if eps not in full and not pair.floor]
        if not found or SUPPORTED in found:
            return Verdict("C8", label, ours, SUPPORTED if found else UNTESTABLE)
        return Verdict("C8", label, ours, INCONCLUSIVE if INCONCLUSIVE in found else CONTRADICTED)

    def _analysed(self, label: str) -> str:
        return eps_text(next(iter(self.minmax[label].values()))["eps"])


def _reached(pair: Difference) -> str:
    """Verdict on: the difference is the reported one, or larger."""
    if pair.seeds is not None and max(pair.images[1], pair.seeds[1]) < REPORTED:
        return CONTRADICTED
    return SUPPORTED if pair.value >= REPORTED and pair.verdict == SUPPORTED else INCONCLUSIVE


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)


def _alone(single: bool, *, each: bool = True) -> str:
    """Said of numbers that have no interval over seeds."""
    return f"; {ONE}{' of each' * each}" if single else ""
