"""A third-party attack that fails is a flagged row without an accuracy, not a lost evaluation; ours ends it."""

from __future__ import annotations

import math
import time

import numpy as np
import pytest
import torch

from isce import attacks
from isce.attacks import gradient, matched
from isce.evaluation import evaluate, job, outcome_flags
from isce.losses import build
from isce.suites import AttackParameters, AttackSpec, Suite

PGD = {"attack": "pgd", "steps": 5, "objective": "matched"}


def figures(target, monkeypatch, fake, rows=(PGD, {"attack": "bim", "steps": 5}), **changes):
    monkeypatch.setattr(gradient, "pgd", fake)
    suite = Suite(name="s", rows=[AttackSpec(**row) for row in rows])
    parameters = AttackParameters(checkpoint="none", suite=suite, eps=[0.15], batch_size=15, **changes)
    found = evaluate(target.classifier, build("sce"), target.x, target.y, parameters, progress=False)
    return found, found.figures()["threats"]["linf@0.15"]["attacks"]


def test_one_that_raises_keeps_what_it_broke(target, monkeypatch):
    real = gradient.pgd

    def fails_in_the_second_batch(spec, problem, restart):
        if 20 in problem.index.tolist():
            raise attacks.ForeignError("ZeroDivisionError: at 20")
        return real(spec, problem, restart)

    found, rows = figures(target, monkeypatch, fails_in_the_second_batch)
    pgd, bim = rows["pgd5-matched"], rows["bim5-training"]
    assert pgd["error"] == "ZeroDivisionError: at 20"
    assert pgd["accuracy"] is pgd["correct"] is None
    assert 0 < pgd["attacked"] < bim["attacked"] == int(found.clean.sum())
    assert not found.outcomes["linf@0.15"]["pgd5-matched"].broken[15:30].any()
    assert found.outcomes["linf@0.15"]["pgd5-matched"].broken[30:].any()
    assert "error" not in bim
    assert outcome_flags(found.figures())["attack-failed"] == "pgd5-matched linf@0.15: ZeroDivisionError: at 20"


def test_one_past_its_time_limit_is_stopped(target, monkeypatch):
    def never_ends(spec, problem, restart):
        while True:  # this test doesn't end if the limit isn't kept
            problem.outputs(problem.x)

    _, rows = figures(target, monkeypatch, never_ends, rows=(PGD | {"seconds": 0.2}, {"attack": "bim", "steps": 5}))
    assert rows["pgd5-matched"]["error"] == "stopped after 0.2 s"
    assert rows["pgd5-matched"]["attacked"] == 0
    assert rows["bim5-training"]["attacked"] > 0


def test_a_time_limit_costs_ten_images_at_most(target, monkeypatch):
    real, sizes = gradient.pgd, []

    def slow_from_the_third_batch_on(spec, problem, restart):
        sizes.append(len(problem.y))
        while len(sizes) > 2:
            problem.outputs(problem.x)
        return real(spec, problem, restart)

    monkeypatch.setattr(gradient, "pgd", slow_from_the_third_batch_on)
    suite = Suite(name="s", rows=[AttackSpec(**PGD, seconds=2)])
    parameters = AttackParameters(checkpoint="none", suite=suite, eps=[0.15])
    found = evaluate(target.classifier, build("sce"), target.x, target.y, parameters, progress=False)
    row = found.figures()["threats"]["linf@0.15"]["attacks"]["pgd5-matched"]
    assert sizes == [10, 10, 10]
    assert row["error"] == "stopped after 2 s"
    assert row["attacked"] == 20
    assert row["accuracy"] is None
    assert found.outcomes["linf@0.15"]["pgd5-matched"].broken[:20].any()


@pytest.mark.parametrize("value", [math.nan, math.inf, 2.0, 0.5])
def test_points_that_are_no_images_or_outside_the_ball_do_not_count(target, monkeypatch, value):
    def thrown(spec, problem, restart):
        return gradient.Found.only(torch.full_like(problem.x, value))

    found, rows = figures(target, monkeypatch, thrown)
    assert rows["pgd5-matched"]["rejected"] == int(found.clean.sum())
    assert rows["pgd5-matched"]["accuracy"] is None
    assert not found.outcomes["linf@0.15"]["pgd5-matched"].broken.any()
    assert "rejected-points" in outcome_flags(found.figures())


def test_our_own_bug_is_not_swept_under_a_row(target, monkeypatch):
    monkeypatch.setattr(matched, "matched", lambda *_: 1 / 0)
    with pytest.raises(RuntimeError, match=r"matched3-training linf@0.15: ZeroDivisionError: division by zero"):
        figures(target, monkeypatch, gradient.pgd, rows=({"attack": "matched", "steps": 3},))


def test_want_of_memory_names_the_remedy(target, monkeypatch):
    def hungry(spec, problem, restart):
        raise torch.OutOfMemoryError("no room")

    with pytest.raises(RuntimeError, match="out of memory with batch_size 15: lower it and run again"):
        figures(target, monkeypatch, hungry)


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
        figures(target, monkeypatch, hungry)


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

    parameters = AttackParameters(checkpoint="none", suite=Suite(name="s", rows=[AttackSpec(**PGD)]), eps=[0.15])
    with pytest.raises(RuntimeError, match="out of memory with batch_size 256: lower it and run again"):
        evaluate(Hungry(), build("sce"), target.x, target.y, parameters, progress=False)


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
    spec = AttackSpec(attack="transfer", steps=1000, source="other")
    with pytest.raises(attacks.TimeLimitError):
        attacks.run(
            spec,
            target.classifier,
            build("sce"),
            target.x,
            target.y,
            attacks.Threat("linf", 0.1),
            seed=0,
            source=(slow, build("sce")),
            deadline=time.monotonic() + 0.2,
        )
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
    from isce.attacks import minimum

    calls, real = [], minimum.deepfool
    monkeypatch.setattr(minimum, "deepfool", lambda *args: calls.append(1) or real(*args))
    spec = AttackSpec(attack="deepfool", steps=10)

    def broken(eps):
        parameters = AttackParameters(checkpoint="none", suite=Suite(name="s", rows=[spec]), eps=eps, batch_size=40)
        found = evaluate(target.classifier, build("sce"), target.x, target.y, parameters, progress=False)
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
    found, _ = figures(target, monkeypatch, gradient.pgd, rows=rows, keep_points=True)
    for threat, norm in (("linf@0.15", math.inf), ("l0@20", 0)):
        index, points = found.worst_points(threat)
        assert len(index) == int((found.clean & ~found.robust(threat)).sum()) > 0
        with torch.no_grad():
            predicted = target.classifier(torch.from_numpy(points)).argmax(1)
        assert (predicted != target.y[index]).all()
        change = torch.from_numpy(points) - target.x[index]
        reach = change.flatten(1).norm(norm, dim=1)
        assert (reach <= (0.15 + 1e-6 if norm else 20)).all()
