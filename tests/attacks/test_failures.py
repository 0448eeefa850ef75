"""A third-party attack that fails is a flagged row without accuracy; what fails of ours ends the evaluation."""

from __future__ import annotations

import math
import time

import numpy as np
import pytest
import torch
from foreign import of_package
from mean_model import parameters
from tiny import Times

from isce import attacks, compat
from isce.attacks import matched
from isce.attacks.foreign import gradient
from isce.attacks.spec import AttackSpec
from isce.evaluation import Evaluation, Outcome, evaluate, examples, job, outcome_flags, red_flags
from isce.losses import build

PGD = {"attack": "pgd", "steps": 5, "objective": "matched"}


FGSM = {"attack": "fgsm"}
IN_THE_PACKAGE = ZeroDivisionError("in the package")


@pytest.fixture
def fails_at(monkeypatch):
    """Make advertorch's loop, which BIM and PGD share, raise in these of its calls, with what is in its closure."""
    module = compat.import_advertorch().attacks.iterative_projected_gradient

    def plant(*numbers, error=IN_THE_PACKAGE):
        real, calls = module.perturb_iterative, []

        def fails(*args, **named):
            calls.append(1)
            if not numbers or len(calls) in numbers:
                raise error
            return real(*args, **named)

        monkeypatch.setattr(module, "perturb_iterative", of_package(fails))
        return calls

    return plant


def results(target, monkeypatch=None, fake=None, rows=(PGD, FGSM), classifier=None, **changes):
    if monkeypatch is not None:
        monkeypatch.setattr(gradient, "pgd", fake)
    given = parameters([AttackSpec(**row) for row in rows], [0.15], **{"batch_size": 15, **changes})
    found = evaluate(classifier or target.classifier, build("sce"), target.x, target.y, given, progress=False)
    return found, found.results()["threats"]["linf@0.15"]["attacks"]


NONE = dict.fromkeys(("accuracy", "correct", "low", "high"))


def test_one_that_raises_keeps_what_it_broke_and_has_no_accuracy(target, fails_at):
    fails_at(2)
    found, rows = results(target)
    pgd, fgsm = rows["pgd5-matched"], rows["fgsm-training"]
    lost = int(found.clean[15:30].sum())
    assert pgd["error"] == "ZeroDivisionError: in the package"
    assert pgd | NONE | {"last_accuracy": None} == pgd
    assert pgd["why"] == f"pgd5-matched: ZeroDivisionError: in the package (no outcome for {lost} of 40 images)"
    assert 0 < pgd["attacked"] < fgsm["attacked"] == int(found.clean.sum())
    outcome = found.outcomes["linf@0.15"]["pgd5-matched"]
    assert not outcome.broken[15:30].any()
    assert not found.robust("linf@0.15", "pgd5-matched")[15:30].any()
    assert outcome.broken[30:].any()
    assert set(fgsm).isdisjoint({"error", "why"})
    assert (
        outcome_flags(found.results())["attack-failed"] == "pgd5-matched linf@0.15: ZeroDivisionError: in the package"
    )


def outcome(asked, attacked, broken=(), rejected=(), survivors=False) -> Outcome:
    """An outcome on four images, by their places."""

    def mask(places):
        return np.isin(np.arange(4), places)

    given = (asked, attacked, broken, rejected, broken, ())
    return Outcome(*map(mask, given), first_success=np.full(4, -1), survivors=survivors)


ALL = (0, 1, 2, 3)
#: Rows on four images of which the last is misclassified anyway; accuracy of each row, then the worst case.
KNOWN = {
    "all attacked": ([outcome(ALL, (0, 1, 2), (0,))], [0.5], 0.5),
    "one not attacked": ([outcome(ALL, (0, 1), (0,))], [None], None),
    "one rejected": ([outcome(ALL, (0, 1, 2), (0,), (1,))], [None], None),
    "rejected once, broken once": ([outcome(ALL, (0, 1, 2), (0,), (0,))], [0.5], 0.5),
    "misclassified anyway": ([outcome(ALL, (0, 1, 2))], [0.75], 0.75),
    "another row broke it": ([outcome(ALL, (0, 1)), outcome(ALL, (0, 1, 2), (2,))], [None, 0.5], 0.5),
    "another row did not": ([outcome(ALL, (0, 1)), outcome(ALL, (0, 1, 2), (0,))], [None, 0.5], None),
    "survivors need no others": (
        [outcome(ALL, (0, 1, 2), (0,)), outcome(ALL, (1, 2), survivors=True)],
        [0.5, 0.5],
        0.5,
    ),
    "survivors after a loss": ([outcome(ALL, (0, 1)), outcome(ALL, (0, 1, 2), survivors=True)], [None, None], None),
    "survivors mend a loss": ([outcome(ALL, (0, 1)), outcome(ALL, ALL, (2,), survivors=True)], [None, 0.5], 0.5),
    "a part, known": ([outcome(ALL, (0, 1, 2)), outcome((0, 1), (0, 1))], [0.75, 1.0], 0.75),
    "a part, lost": ([outcome(ALL, (0, 1, 2)), outcome((0, 1), (0,))], [0.75, None], None),
    "a part, lost, then broken": (
        [outcome((0, 1), (0,)), outcome(ALL, (0, 1, 2), (1,))],
        [None, 0.5],
        0.5,
    ),
}


@pytest.mark.parametrize("name", KNOWN)
def test_an_accuracy_is_known_if_every_image_it_is_about_has_an_outcome(name):
    rows, accuracies, worst = KNOWN[name]
    clean = np.array([True, True, True, False])
    found = Evaluation(clean, {"linf@0.1": {str(n): row for n, row in enumerate(rows)}}, 4).results()["threats"]
    cells = found["linf@0.1"]["attacks"].values()
    assert [cell["accuracy"] for cell in cells] == accuracies
    assert found["linf@0.1"]["worst"]["accuracy"] == worst
    for cell in (*cells, found["linf@0.1"]["worst"]):
        assert ("why" in cell) == (cell["accuracy"] is None)


def test_a_row_that_failed_at_a_smaller_eps_leaves_the_larger_one_known():
    clean = np.array([True, True, True, False])
    rows = {"linf@0.1": {"a": outcome(ALL, (0,))}, "linf@0.2": {"a": outcome(ALL, (0, 1, 2), (1,))}}
    found = Evaluation(clean, rows, 4).results()["threats"]
    assert found["linf@0.1"]["worst"]["accuracy"] is None
    assert found["linf@0.2"]["worst"]["accuracy"] == 0.5


def test_masks_of_another_shape_are_no_evaluation():
    with pytest.raises(ValueError, match=r"masks of a linf@0.1 must have shape \(3,\), got .*\(4,\)"):
        Evaluation(np.ones(3, dtype=bool), {"linf@0.1": {"a": outcome(ALL, ALL)}}, 4)


class Faulty(torch.nn.Module):
    """A network that goes wrong in a call after the first, the clean one."""

    def __init__(self, inner, how) -> None:
        super().__init__()
        self.inner, self.how, self.calls = inner, how, 0

    def forward(self, x, **options):
        self.calls += 1
        if self.calls <= 5:  # two that check the network, three batches of clean images
            return self.inner(x, **options)
        return self.how(self.inner(x, **options))


def breaks(logits):
    raise KeyError("in the network")


@pytest.mark.parametrize("row", [PGD, {"attack": "deepfool", "steps": 3}, {"attack": "matched", "steps": 3}])
def test_an_error_of_the_network_ends_the_evaluation_with_the_row_named(target, row):
    name = AttackSpec(**row).label
    with pytest.raises(RuntimeError, match=f"^{name} linf@0.15: KeyError: 'in the network'$"):
        results(target, rows=(row,), classifier=Faulty(target.classifier, breaks))


@pytest.mark.parametrize("row", [PGD, {"attack": "deepfool", "steps": 3}])
def test_logits_of_another_shape_end_it_too(target, row):
    with pytest.raises(RuntimeError, match=r"ValueError: logits must have shape \(\d+, classes\), got"):
        results(target, rows=(row,), classifier=Faulty(target.classifier, lambda logits: logits[:-1]))


@pytest.mark.parametrize("row", [PGD, {"attack": "deepfool", "steps": 3}, {"attack": "search", "steps": 3}])
def test_logits_that_are_no_numbers_show_nothing(target, row):
    """NaN in the logits of one image: the gradient's sign would be 0, and the point would stay where it is."""

    def poisoned(logits):
        return torch.cat([logits[:1] * math.nan, logits[1:]])

    found, rows = results(target, rows=(row,), classifier=Faulty(target.classifier, poisoned))
    (cell,) = rows.values()
    assert cell["accuracy"] is None
    assert cell["why"].startswith(f"{AttackSpec(**row).label}: no valid point (no outcome for ")
    assert {"attack-failed", "rejected-points"} <= set(outcome_flags(found.results()))


@pytest.mark.parametrize(
    "row", [PGD, FGSM, {"attack": "matched", "steps": 10}, {"attack": "matched", "steps": 4, "restarts": 2}]
)
def test_gradients_that_are_no_numbers_show_nothing(target, row):
    class Blinding(torch.nn.Module):
        def forward(self, x):
            return target.classifier(Times.apply(x, torch.tensor(math.nan)))

    found, rows = results(target, rows=(row,), classifier=Blinding())
    (cell,) = rows.values()
    assert cell["accuracy"] is None
    assert found.results()["threats"]["linf@0.15"]["worst"]["accuracy"] is None


def test_an_error_of_ours_that_a_package_keeps_to_itself_is_known(target, monkeypatch):
    module = compat.import_advertorch().attacks.iterative_projected_gradient

    def swallows(xvar, yvar, predict, **named):
        for _ in range(9):
            try:
                predict(xvar)
            except KeyError:
                return xvar
        return None

    monkeypatch.setattr(module, "perturb_iterative", of_package(swallows))
    with pytest.raises(RuntimeError, match="KeyError: 'in the network'"):
        results(target, classifier=Faulty(target.classifier, breaks))


def test_points_of_another_shape_are_the_package_s_failure(target, monkeypatch):
    module = compat.import_advertorch().attacks.iterative_projected_gradient
    monkeypatch.setattr(module, "perturb_iterative", lambda x, *_, **named: x[:-1] if len(x) > 1 else x)
    _, rows = results(target)
    assert rows["pgd5-matched"]["error"].startswith("points of pgd must have shape (")


def test_flags_and_examples_survive_an_attack_that_fails(target, fails_at):
    calls = fails_at()
    rows = [AttackSpec(**PGD), AttackSpec(attack="bim", steps=5)]
    args, given = (target.classifier, build("sce"), target.x, target.y), parameters(rows, [0.02])
    found = evaluate(*args, given, progress=False)
    assert len(calls) == 2
    flags = red_flags(found, *args, given)
    assert flags["attack-failed"].startswith("pgd5-matched linf@0.02: ZeroDivisionError: in the package; bim5-training")
    shown = examples(*args, rows[0], attacks.Threat("linf", 0.02))
    assert len(shown.index) == 0


def test_one_past_its_time_limit_is_stopped(target, monkeypatch):
    def never_ends(spec, problem, restart):
        while True:  # this test doesn't end if the limit isn't kept
            problem.outputs(problem.x)

    _, rows = results(target, monkeypatch, never_ends, rows=(PGD | {"seconds": 0.2}, {"attack": "bim", "steps": 5}))
    assert rows["pgd5-matched"]["error"] == "stopped after 0.2 s"
    assert rows["pgd5-matched"]["attacked"] == 0
    assert rows["pgd5-matched"]["accuracy"] is None
    assert rows["bim5-training"]["attacked"] > 0


def test_a_time_limit_costs_ten_images_at_most(target, monkeypatch):
    real, sizes = gradient.pgd, []

    def slow_from_the_third_batch_on(spec, problem, restart):
        sizes.append(len(problem.y))
        while len(sizes) > 2:
            problem.outputs(problem.x)
        return real(spec, problem, restart)

    monkeypatch.setattr(gradient, "pgd", slow_from_the_third_batch_on)
    found, rows = results(target, rows=(PGD | {"seconds": 2},), batch_size=256)
    row = rows["pgd5-matched"]
    assert sizes == [10, 10, 10]
    assert row["error"] == "stopped after 2 s"
    assert row["attacked"] == 20
    assert row["accuracy"] is None
    assert found.outcomes["linf@0.15"]["pgd5-matched"].broken.any()


@pytest.mark.parametrize("value", [math.nan, math.inf, 2.0, 0.5])
def test_points_that_are_no_images_or_outside_the_ball_do_not_count(target, monkeypatch, value):
    def thrown(spec, problem, restart):
        return gradient.Found.only(torch.full_like(problem.x, value))

    found, rows = results(target, monkeypatch, thrown)
    assert not found.outcomes["linf@0.15"]["pgd5-matched"].broken.any()
    assert rows["pgd5-matched"]["rejected"] == int(found.clean.sum())
    assert rows["pgd5-matched"]["accuracy"] is None
    assert {"attack-failed", "rejected-points"} <= set(outcome_flags(found.results()))


@pytest.mark.parametrize(("module", "row"), [(matched, {"attack": "matched", "steps": 3}), (gradient, PGD)])
def test_our_own_bug_is_not_swept_under_a_row(target, monkeypatch, module, row):
    """Nor in the few lines of ours between the driver and a package."""
    monkeypatch.setattr(module, row["attack"], lambda *_: 1 / 0)
    with pytest.raises(RuntimeError, match=f"{AttackSpec(**row).label} linf@0.15: ZeroDivisionError: division by zero"):
        results(target, rows=(row,))


def test_want_of_memory_names_the_remedy(target, monkeypatch, fails_at):
    def hungry(spec, problem, restart):
        raise torch.OutOfMemoryError("no room")

    fails_at(error=torch.OutOfMemoryError("no room"))  # in the package
    for planted in ((), (monkeypatch, hungry)):
        with pytest.raises(RuntimeError, match=r"^out of memory with batch_size 15: lower it and run again"):
            results(target, *planted)


@pytest.mark.parametrize(
    "text",
    [
        "[enforce fail at alloc_cpu.cpp:118] err == 0. DefaultCPUAllocator: can't allocate memory",
        "[enforce fail at alloc_cpu.cpp:114] data. DefaultCPUAllocator: not enough memory",
    ],
)
def test_want_of_memory_on_a_cpu_is_no_failed_row(target, monkeypatch, text):
    def hungry(spec, problem, restart):
        raise RuntimeError(text)

    with pytest.raises(RuntimeError, match="out of memory with batch_size 15: lower it and run again"):
        results(target, monkeypatch, hungry)


def test_what_this_machine_says_when_it_has_no_memory_is_known():
    with pytest.raises(RuntimeError) as raised:
        torch.empty(2**60, dtype=torch.uint8)
    assert job._out_of_memory(raised.value)


def test_want_of_memory_on_the_clean_images_names_the_remedy(target):
    class Hungry(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = torch.nn.Parameter(torch.ones(1))

        def forward(self, x):
            raise torch.OutOfMemoryError("no room")

    with pytest.raises(RuntimeError, match="out of memory with batch_size 15: lower it and run again"):
        results(target, classifier=Hungry())


def test_the_time_limit_holds_for_the_network_that_is_attacked_in_anothers_stead(target):
    class Slow(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner, self.calls = target.classifier, 0

        def forward(self, x, **options):
            self.calls += 1
            if self.calls > 3:
                time.sleep(0.3)
            return self.inner(x, **options)

    slow = Slow()
    spec, threat = AttackSpec(attack="transfer", steps=1000, source="other"), attacks.Threat("linf", 0.1)
    args, source = (spec, target.classifier, build("sce"), target.x, target.y, threat), (slow, build("sce"))
    with pytest.raises(attacks.TimeLimitError):
        attacks.run(*args, seed=0, source=source, deadline=time.monotonic() + 0.2)
    assert slow.calls < 1000


def test_points_that_an_attack_brings_in_time_are_judged_without_a_limit(target, monkeypatch):
    def ends_late(spec, problem, restart):
        point = gradient.Found.only(problem.x + 0)
        time.sleep(0.3)
        return point

    monkeypatch.setattr(gradient, "pgd", ends_late)
    threat = attacks.Threat("linf", 0.1)
    args = (AttackSpec(**PGD), target.classifier, build("sce"), target.x, target.y, threat)
    assert not attacks.run(*args, seed=0, deadline=time.monotonic() + 0.2).rejected.any()


def test_what_looks_for_the_smallest_change_is_run_once_and_judged_at_each_eps(target, monkeypatch):
    from isce.attacks.foreign import minimum

    calls, real = [], minimum.deepfool
    monkeypatch.setattr(minimum, "deepfool", lambda *args: calls.append(1) or real(*args))
    spec = AttackSpec(attack="deepfool", steps=10)

    def broken(eps):
        given = parameters([spec], eps, batch_size=40)
        found = evaluate(target.classifier, build("sce"), target.x, target.y, given, progress=False)
        return {threat: rows[spec.label] for threat, rows in found.outcomes.items()}

    alone = [broken([eps])[f"linf@{eps:g}"] for eps in (0.02, 0.05, 0.1)]
    calls.clear()
    together = broken([0.02, 0.05, 0.1])
    assert len(calls) == 1
    for one, other in zip(alone, together.values(), strict=True):
        assert np.array_equal(one.broken, other.broken)
        assert not other.rejected.any()
    counts = [int(outcome.broken.sum()) for outcome in together.values()]
    assert counts == sorted(counts)
    assert counts[0] < counts[-1]


def test_kept_points_are_those_that_broke(target, monkeypatch):
    rows = (PGD, {"attack": "jsma", "targeted": True, "norm": "l0", "eps": 20.0})
    found, _ = results(target, monkeypatch, gradient.pgd, rows=rows, keep_points=True)
    for threat, norm in (("linf@0.15", math.inf), ("l0@20", 0)):
        index, points = found.worst_points(threat)
        assert len(index) == int((found.clean & ~found.robust(threat)).sum()) > 0
        with torch.no_grad():
            predicted = target.classifier(torch.from_numpy(points)).argmax(1)
        assert (predicted != target.y[index]).all()
        change = torch.from_numpy(points) - target.x[index]
        reach = change.flatten(1).norm(norm, dim=1)
        assert (reach <= (0.15 + 1e-6 if norm else 20)).all()
