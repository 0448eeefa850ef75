"""The paper's claims C1 to C8, judged from the records of one experiment by fixed rules.

The rules were written when first records of digits and MNIST were known. One was narrowed since: C6 could hold where
SCE was the only other loss, which is C4 once more.

Every rule compares accuracies over the same images and training seeds. A difference counts only where both of its 95%
intervals, over images (Newcombe's, which is cautious here: it doesn't know that the images are the same) and over
seeds where there are several (paired t), leave out 0. :mod:`isce.report.paper` says each rule in words; the book shows
them beside the verdicts. Derived here; the claims are the paper's (title, abstract and introduction).
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from statsmodels.stats.proportion import confint_proportions_2indep

from isce.data.sets import SETS
from isce.evaluation import paired_seeds, percent, wilson
from isce.files import ROOT
from isce.parameters.training import ObjectiveSpec, TrainParameters
from isce.report.cells import Cells, NotEvaluatedError, accuracies, mean, wilson_of
from isce.report.exhibits import Table
from isce.report.key import Key
from isce.report.names import reader_name
from isce.report.paper import CLAIMS, COST, REPORTED, REPORTS
from isce.report.plots.runs import eps_text
from isce.runs.experiment import Experiment
from isce.runs.records import Record

HOLDS, ONLY, NOT = "holds", "holds only under the paper's attack", "does not hold"
CANT = "can't be tested here"
ONE = "one network"
CLEAN = Key("clean")
PAPER = "pgd50-training"  # untargeted PGD with 50 steps on the model's own training loss
COSTS = ROOT / "benchmarks" / "results" / "losses-eager.json"
MISSED = 0.05
SEPARATING = ("contrastive", "triplet", "center", "lgm", "mmc")

COLUMNS = ["claim", "experiment (data)", "of", "reported by the paper", "ours", "verdict", "deviation"]


@dataclass(frozen=True)
class Verdict:
    """One claim, judged.

    Attributes:
        claim: C1 to C8.
        label: the objective that it is judged for; empty where it is about others.
        ours: what was measured, with its intervals.
        verdict: one of the four.
    """

    claim: str
    label: str
    ours: str
    verdict: str


@dataclass(frozen=True)
class Difference:
    """Accuracy of one objective minus that of another, in shares.

    Attributes:
        value: mean over the seeds.
        images: Newcombe's 95% interval over images.
        seeds: 95% t interval over seeds, of no width where all seeds give the same; None: of one seed.
    """

    value: float
    images: tuple[float, float]
    seeds: tuple[float, float] | None

    @property
    def positive(self) -> bool:
        """Whether both intervals lie above 0."""
        return self.images[0] > 0 and (self.seeds is None or self.seeds[0] > 0)

    def __str__(self) -> str:
        half = None if self.seeds is None else (self.seeds[1] - self.seeds[0]) / 2
        return percent(self.value, self.images, half, unit=" points", sign="+")


def difference(found: Cells, label: str, base: str, key: Key) -> Difference | None:
    """Between two objectives at one key, over the seeds that both have; None where there are none.

    Raises:
        NotEvaluatedError: one of these seeds has no accuracy.
    """
    one, two = ({cell.seed: cell for cell in found.get(name, key)} for name in (label, base))
    shared = sorted(set(one) & set(two))
    if not shared:
        return None
    first, second = ([side[seed] for seed in shared] for side in (one, two))
    n = min(cell.n for cell in (*first, *second))
    a, b = mean(first), mean(second)
    low, high = confint_proportions_2indep(a * n, n, b * n, n, compare="diff", method="newcomb")
    seeds = None
    if len(shared) > 1:
        test = paired_seeds(accuracies(first), accuracies(second))
        seeds = (a - b, a - b) if test.low is None or test.high is None else (test.low, test.high)
    return Difference(a - b, (float(low), float(high)), seeds)


class Judge:
    """Judges the claims that an experiment can say something about.

    Args:
        experiment: the experiment.
        found: accuracies of its attack records.
        minmax: its min-max records with their labels.
        costs: file of ``benchmarks/losses.py``.
    """

    def __init__(
        self, experiment: Experiment, found: Cells, minmax: list[tuple[str, Record]], costs: Path = COSTS
    ) -> None:
        self.experiment, self.found, self.costs = experiment, found, costs
        training = TrainParameters.model_validate(
            experiment.training | {"objective": experiment.objectives[0], "seed": experiment.seeds[0]}
        )
        self.mnist, self.adversarial = training.dataset == "mnist", training.adversarial is not None
        self.objectives: dict[str, ObjectiveSpec] = {o.label: o for o in experiment.objectives}
        self.ours = [label for label in found.labels if self.objectives[label].name.startswith("isce")]
        self.others = [label for label in found.labels if label not in self.ours]
        self.data = training.dataset
        main = experiment.plans[0].main_eps
        self.worst, self.paper, self.eps = Key.at("worst", main), Key.at("attack", main, PAPER), eps_text(main)
        self.grid = sorted({eps for plan in experiment.plans for eps in plan.eps})
        self.minmax: dict[str, list[dict[str, Any]]] = {}
        for label, record in minmax:
            threats = sorted(record.results["threats"].values(), key=lambda threat: threat["eps"])
            self.minmax.setdefault(label, threats)  # of the first seed

    def verdicts(self) -> list[Verdict]:
        """Every verdict that the records allow, in the order of the claims.

        A claim about an accuracy that was not evaluated can't be tested.
        """
        if "sce" not in self.found.labels or not self.ours:
            return []
        alone: dict[str, Callable[[str], Verdict | None]] = {"C1": self._c1, "C2": self._c2}
        each = {"C3": self._c3, "C4": self._c4, "C5": self._c5, "C6": self._c6, "C8": self._c8}
        rules = [] if self.adversarial else [(name, "", rule) for name, rule in alone.items()]
        rules += [(name, label, rule) for name, rule in each.items() for label in self.ours]
        found = [self._judged(*rule) for rule in rules] + [self._c7()]
        return sorted((v for v in found if v is not None), key=lambda verdict: verdict.claim)

    @staticmethod
    def _judged(claim: str, label: str, rule: Callable[[str], Verdict | None]) -> Verdict | None:
        try:
            return rule(label)
        except NotEvaluatedError as error:
            return Verdict(claim, label, str(error), CANT)

    def _single(self, *labels: str) -> str:
        """Said of accuracies that have no interval over seeds."""
        if any(len(self.found.get(label, CLEAN)) > 1 for label in labels):
            return ""
        return f"; {ONE}" + (" of each" if len(labels) > 1 else "")

    def _halved(self, label: str) -> tuple[bool, str]:
        """Whether at the largest eps at most half of the clean accuracy is left, and how much is."""
        key = Key.at("worst", self.grid[-1])
        worst, clean = self.found.get(label, key), mean(self.found.get(label, CLEAN))
        return wilson_of(worst)[1] <= clean / 2, f"{label} {self.found.text(label, key)}"

    def _scatter(self, label: str) -> tuple[float, float, float] | None:
        """Between over within classes: clean, adversarial at the largest eps, and that eps; None where not measured."""
        threat = self.minmax.get(label, [{}])[-1]
        found = threat.get("region", {}).get("all", {})
        values = (found.get("separation"), found.get("adversarial_separation"))
        return None if values[0] is None or values[1] is None else (values[0], values[1], threat["eps"])

    def _c1(self, _: str) -> Verdict | None:
        scatter = self._scatter("sce")
        if scatter is None:
            return None
        low, text = self._halved("sce")
        clean, attacked, eps = scatter
        ours = f"clean {self.found.text('sce', CLEAN)}, worst case at eps {eps_text(self.grid[-1])}: {text}"
        ours += f"{self._single('sce')}; scatter ({ONE}) {clean:.2f} clean, {attacked:.2f} adversarial at eps "
        return Verdict("C1", "sce", ours + eps_text(eps), HOLDS if low and attacked < clean else NOT)

    def _c2(self, _: str) -> Verdict | None:
        some = [label for label in self.found.labels if self.objectives[label].name in SEPARATING]
        if not some:
            return None
        halves = [self._halved(label) for label in some]
        ours = f"worst case at eps {eps_text(self.grid[-1])}: " + ", ".join(text for _, text in halves)
        ours += self._single(*some)
        return Verdict("C2", ", ".join(some), ours, HOLDS if all(low for low, _ in halves) else NOT)

    def _c3(self, label: str) -> Verdict | None:
        mine, theirs = self._scatter(label), self._scatter("sce")
        if mine is None or theirs is None:
            return None
        (own, attacked, eps), (base, base_attacked, _) = mine, theirs
        ours = (
            f"scatter {own:.2f}, of SCE {base:.2f}; of adversarial images at eps {eps_text(eps)} {attacked:.2f}, of "
            f"SCE {base_attacked:.2f}; {ONE} of each"
        )
        return Verdict("C3", label, ours, HOLDS if own > base else NOT)

    def _c4(self, label: str) -> Verdict | None:
        paper = difference(self.found, label, "sce", self.paper)
        worst = difference(self.found, label, "sce", self.worst)
        if paper is None or worst is None:
            return None
        ours = f"against SCE at eps {self.eps}: {paper} under PGD-50, {worst} in the worst case"
        ours += _alone(paper, worst)
        verdict = NOT if not paper.positive else HOLDS if worst.positive else ONLY
        return Verdict("C4", label, ours, verdict)

    def _c5(self, label: str) -> Verdict | None:
        if self.objectives[label].name != "isce":
            return Verdict("C5", label, "no theorem ties the loss of this version to an inner maximum", CANT)
        if label not in self.minmax:
            return None
        m = self.objectives[label].params.get("inference")
        threat = self.minmax[label][-1]
        row = next((row for row in threat["gap"] if row["m"] == m), None)
        if row is None:
            return None
        n = threat["n"]
        share = percent(row["covered"], wilson(row["covered"] * n, n), unit="%")
        ours = f"at eps {eps_text(threat['eps'])} m = {m:g} covers {share} of {n} images; {ONE}"
        return Verdict("C5", label, ours, HOLDS if row["covered"] >= 1 - MISSED else NOT)

    def _c6(self, label: str) -> Verdict | None:
        def least(key: Key) -> tuple[str, Difference] | None:
            pairs = ((other, difference(self.found, label, other, key)) for other in self.others)
            known = [(other, pair) for other, pair in pairs if pair is not None]
            return min(known, key=lambda pair: pair[1].value) if known else None

        worst, paper = least(self.worst), least(self.paper)
        if worst is None or paper is None:
            return None
        ours = f"worst case at eps {self.eps}: {self.found.text(label, self.worst)}; "
        ours += f"against the best other, {worst[0]}: {worst[1]}{_alone(worst[1])}"
        if not any(self.objectives[other].name in SEPARATING for other in self.others):
            return Verdict("C6", label, ours, CANT)
        return Verdict("C6", label, ours, HOLDS if worst[1].positive else ONLY if paper[1].positive else NOT)

    def _c7(self) -> Verdict | None:
        if not self.costs.is_file():
            return None
        rows = json.loads(self.costs.read_text(encoding="utf-8"))["rows"]
        step = next((r for r in rows if r["shape"].startswith("training step") and r["loss"] == "isce"), None)
        if step is None:
            return None
        ours = f"a training step costs {step['ratio']:.3f} [{step['low']:.3f}, {step['high']:.3f}] times that of SCE"
        return Verdict("C7", "isce", ours, HOLDS if step["high"] <= COST else NOT)

    def _c8(self, label: str) -> Verdict | None:
        if not self.mnist or self.adversarial:
            return None
        keys = {eps: difference(self.found, label, "sce", Key.at("attack", eps, PAPER)) for eps in self.grid}
        known = {eps: found for eps, found in keys.items() if found is not None}
        if not known:
            return None
        ours = "; ".join(f"eps {eps_text(eps)}: {found}" for eps, found in known.items()) + _alone(*known.values())
        reached = any(found.images[1] >= REPORTED for found in known.values())
        return Verdict("C8", label, ours, HOLDS if reached else NOT)


def table(judge: Judge, evidence: str) -> Table | None:
    """Return the verdicts of an experiment; None where nothing can be judged."""
    rows = [_row(judge, verdict) for verdict in judge.verdicts()]
    caption = (
        f"The claims by the records of '{judge.experiment.name}': main eps {judge.eps}; ours in per cent and in "
        "percentage points, with the 95% interval over images in brackets and the half-width of that over seeds after "
        f"±, or the words '{ONE}' where there is one seed. {evidence}"
    )
    return Table(columns=COLUMNS, rows=rows, caption=caption, kinds=("attack", "minmax")) if rows else None


def rules() -> Table:
    """Return the rules that judge the claims."""
    rows = [[f"{name} {claim.text}", claim.rule, claim.differs] for name, claim in CLAIMS.items()]
    caption = (
        "How each claim is judged. An inequality between accuracies counts only where both 95% intervals bear it out; "
        "scatter is measured on one network of each loss and compared as a number."
    )
    columns = ["claim", "holds if", "what differs from the paper"]
    return Table(columns=columns, rows=rows, caption=caption, kinds=("attack", "minmax"))


def _row(judge: Judge, verdict: Verdict) -> list[str]:
    """Cells of one verdict, in the order of ``COLUMNS``."""
    name, of = verdict.claim, reader_name(verdict.label)
    where = (
        f"{judge.experiment.name} ({SETS[judge.data].title})"
        if name != "C7"
        else "benchmarks/losses.py (random images)"
    )
    reported, claim = REPORTS.get(name, "no number known"), CLAIMS[name]
    return [f"{name} {claim.text}", where, of, reported, verdict.ours, verdict.verdict, claim.differs]


def _alone(*pairs: Difference) -> str:
    """Said of differences that have no interval over seeds."""
    return f"; {ONE} of each" if any(pair.seeds is None for pair in pairs) else ""
