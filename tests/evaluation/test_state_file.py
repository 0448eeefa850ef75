"""The state file: an evaluation goes on where it was, and takes nothing that would come out otherwise today."""

from __future__ import annotations

import math
import time

import pytest
import torch
from foreign import of_package
from hypothesis import given, settings
from hypothesis import strategies as st
from mean_model import ROWS, VALUES, BatchMean, Mean, evaluated, flat, parameters
from spying import KilledError, Spy

from isce import attacks, compat
from isce.attacks.spec import AttackSpec
from isce.evaluation import evaluate, state
from isce.losses import build
from isce.parameters import semantics
from isce.parameters.attack import AttackParameters, Suite


def test_a_killed_evaluation_goes_on_and_ends_in_the_same_figures(tmp_path, monkeypatch):
    state = tmp_path / "state.npz"
    expected = evaluated(parameters()).results()
    spy = Spy(monkeypatch, [4])
    with pytest.raises(KilledError):
        evaluated(parameters(), state=state)
    assert evaluated(parameters(), state=state).results() == expected
    assert spy.rows()[4:] == [spec.label for spec in ROWS]  # the three rows of the first eps were kept
    assert evaluated(parameters(), state=state).results() == expected
    assert spy.rows() == []


@pytest.mark.parametrize("changed", ["weights", "images", "labels", "parameters", "objective", "damaged", "semantics"])
def test_a_state_of_anything_else_is_started_over(tmp_path, monkeypatch, changed):
    x, y = flat(VALUES)
    model, objective, chosen, state = Mean(), build("isce"), parameters(), tmp_path / "state.npz"
    evaluate(model, objective, x, y, chosen, progress=False, state=state)
    if changed == "weights":
        model.gain.data.mul_(2)
    elif changed == "images":
        x = x + 0.001
    elif changed == "labels":
        y = 1 - y
    elif changed == "parameters":
        chosen = parameters(seed=1)
    elif changed == "objective":
        objective = build("isce", inference=3.0)
    elif changed == "damaged":
        state.write_bytes(state.read_bytes()[:-200])
    else:
        monkeypatch.setitem(semantics.CHANGES, "attack", ["another"] * 9)
    spy = Spy(monkeypatch)
    evaluate(model, objective, x, y, chosen, progress=False, state=state)
    assert len(spy.calls) == 6


def test_a_suite_that_gains_a_row_runs_that_row_alone(tmp_path, monkeypatch):
    state, last = tmp_path / "state.npz", AttackSpec(attack="pgd", steps=2, survivors=True)
    evaluated(parameters(rows=[*ROWS, last]), state=state)
    spy = Spy(monkeypatch)
    more = parameters(rows=[ROWS[0], AttackSpec(attack="bim", steps=3), *ROWS[1:], last])
    found = evaluated(more, state=state)
    assert spy.rows() == ["bim3-training"] * 2
    assert found.results() == evaluated(more).results()


def test_a_row_on_survivors_is_run_again_when_others_survive(tmp_path, monkeypatch):
    state, last = tmp_path / "state.npz", AttackSpec(attack="bim", steps=3, survivors=True)
    weak = AttackSpec(attack="bim", steps=1, step_size=0.01)
    evaluated(parameters(rows=[ROWS[0], last]), state=state)
    spy = Spy(monkeypatch)
    evaluated(parameters(rows=[weak, last]), state=state)
    assert spy.rows() == [weak.label] * 2 + [last.label] * 2


def test_lowering_the_batch_size_as_the_error_says_keeps_finished_rows(tmp_path, monkeypatch):
    state, real, calls = tmp_path / "state.npz", attacks.run, []

    def little_memory(spec, classifier, objective, images, *args, **named):
        calls.append(spec.label)
        if len(calls) > 3 and len(images) > 2:
            raise torch.OutOfMemoryError("no room")
        return real(spec, classifier, objective, images, *args, **named)

    monkeypatch.setattr(attacks, "run", little_memory)
    with pytest.raises(RuntimeError, match="out of memory with batch_size 8: lower it and run again"):
        evaluated(parameters(batch_size=8), state=state)
    calls.clear()
    found = evaluated(parameters(batch_size=2), state=state)
    assert calls == [spec.label for spec in ROWS for _ in range(3)]  # those of the second eps; six images
    monkeypatch.setattr(attacks, "run", real)
    assert found.results() == evaluated(parameters()).results()


def test_the_batch_size_of_a_batch_dependent_network_is_part_of_it(tmp_path, monkeypatch):
    x, _ = flat([0.1, 0.2, 0.3, 0.4])
    y = torch.tensor([0, 1, 0, 1])
    state, rows = tmp_path / "state.npz", ROWS[:1]
    for batch_size in (4, 2):
        spy = Spy(monkeypatch)
        chosen = parameters(rows=rows, eps=[0.2], batch_size=batch_size)
        evaluate(BatchMean(), build("sce"), x, y, chosen, progress=False, state=state)
        assert len(spy.calls) == 4 // batch_size


@settings(max_examples=25, deadline=None)
@given(at=st.integers(1, 40))
def test_killed_at_any_batch_it_ends_in_the_same_figures(tmp_path_factory, at):
    """Also between two eps of an attack that looks for the smallest change, which is run for the first alone."""
    path = tmp_path_factory.mktemp("killed") / "state.npz"
    rows = [*ROWS, AttackSpec(attack="deepfool", steps=5), AttackSpec(attack="matched", steps=3, survivors=True)]
    chosen = parameters(rows=rows, batch_size=2)
    with pytest.MonkeyPatch.context() as patch:
        Spy(patch, [at])
        try:
            evaluated(chosen, state=path)
        except KilledError:
            evaluated(chosen, state=path)
        resumed = evaluated(chosen, state=path)
    assert resumed.results() == evaluated(chosen).results()


class Lost(Mean):
    """Beyond the boundary, and nowhere else, its gradient is NaN."""

    def forward(self, x):
        total = x.flatten(1).sum(1, keepdim=True)
        root = (total - total.detach()).abs().sqrt()
        return super().forward(x) + torch.where(x.flatten(1).mean(1)[:, None] > 0.5, root, 0 * total)


@pytest.mark.parametrize("row", ["fmn", "deepfool"])
def test_killed_at_any_batch_an_attack_for_the_smallest_change_ends_in_the_same(tmp_path, row):
    """Its points are in no file, and an eps that they lie within may decide what it says of them."""
    rows = [AttackSpec(attack=row, steps=20), ROWS[0]]
    chosen = parameters(rows=rows, eps=[0.1, 0.12, 0.2], batch_size=2)

    def ends(path=None):
        found = evaluate(Lost(), build("sce"), *flat([0.35, 0.36, 0.41, 0.3]), chosen, progress=False, state=path)
        outcomes = [one for rows in found.outcomes.values() for one in rows.values()]
        return found.results(), [(o.forwards, o.gradients, o.distance.tolist()) for o in outcomes]

    expected = ends()
    for at in range(1, 13):
        path = tmp_path / f"{at}.npz"
        with pytest.MonkeyPatch.context() as patch:
            Spy(patch, [at])
            with pytest.raises(KilledError):
                ends(path)
        assert ends(path) == expected


def test_an_attack_for_the_smallest_change_is_run_again_for_another_first_eps(tmp_path, monkeypatch):
    path, rows = tmp_path / "state.npz", [AttackSpec(attack="fmn", steps=5), ROWS[0]]
    evaluated(parameters(rows=rows, eps=[0.12, 0.2]), state=path)
    spy = Spy(monkeypatch)
    evaluated(parameters(rows=rows, eps=[0.1, 0.2]), state=path)
    assert [call[:2] for call in spy.calls] == [
        ("fmn5", "linf@0.1"),
        ("fgsm-training", "linf@0.1"),
        ("fmn5", "linf@0.2"),
    ]


class Buffered(Mean):
    """Hands out a part of one buffer, which the next call overwrites."""

    def __init__(self) -> None:
        super().__init__()
        self.out = torch.zeros(8, 2, dtype=torch.float64)

    def forward(self, x):
        logits = super().forward(x)
        if torch.is_grad_enabled():
            return logits
        self.out[: len(x)] = logits
        return self.out[: len(x)]


def test_a_network_that_hands_out_one_buffer_again_keeps_its_clean_accuracy():
    given = parameters(batch_size=2)
    plain = evaluated(given)
    found = evaluate(Buffered(), build("sce"), *flat(VALUES), given, progress=False)
    assert found.clean.tolist() == plain.clean.tolist()


def test_a_row_that_failed_is_tried_again(tmp_path, monkeypatch):
    module = compat.import_advertorch().attacks.iterative_projected_gradient
    path, real, calls = tmp_path / "state.npz", module.perturb_iterative, []

    def fails_at_first(*args, **named):
        calls.append(1)
        if len(calls) == 1:
            raise ZeroDivisionError
        return real(*args, **named)

    monkeypatch.setattr(module, "perturb_iterative", of_package(fails_at_first))
    chosen = parameters(rows=ROWS[1:2], eps=[0.1])
    first = evaluated(chosen, state=path)
    assert first.results()["threats"]["linf@0.1"]["worst"]["accuracy"] is None
    again = evaluated(chosen, state=path)
    assert again.results()["threats"]["linf@0.1"]["worst"]["accuracy"] == 0.5
    evaluated(chosen, state=path)
    assert len(calls) == 2


def test_what_was_finished_before_an_error_of_ours_is_kept(tmp_path, monkeypatch):
    path, spy = tmp_path / "state.npz", Spy(monkeypatch, [3], KeyError("ours"))
    with pytest.raises(RuntimeError, match=r"^pgd1-matched linf@0.1: KeyError: 'ours'$"):
        evaluated(parameters(eps=[0.1]), state=path)
    evaluated(parameters(eps=[0.1]), state=path)
    assert spy.rows() == [spec.label for spec in (*ROWS, ROWS[-1])]


def test_the_place_may_be_given_as_text(tmp_path, monkeypatch):
    state = str(tmp_path / "new" / "state.npz")
    evaluated(parameters(), state=state)
    spy = Spy(monkeypatch)
    evaluated(parameters(), state=state)
    assert spy.rows() == []


@pytest.mark.parametrize(("name", "why"), [("folder", "Is a directory"), ("file/state.npz", "can't write there")])
def test_a_place_where_no_row_can_be_kept_is_refused_before_the_first_one(tmp_path, monkeypatch, name, why):
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").touch()
    spy = Spy(monkeypatch)
    with pytest.raises(OSError, match=rf"{why}.*{name}"):
        evaluated(parameters(), state=tmp_path / name)
    assert spy.rows() == []


def test_time_spared_is_that_of_rows_finished_before_and_still_in_the_suite(tmp_path, monkeypatch):
    real = attacks.run
    monkeypatch.setattr(attacks, "run", lambda *a, **n: time.sleep(0.05) or real(*a, **n))
    path = tmp_path / "state.npz"
    evaluated(parameters(rows=ROWS[:2], eps=[0.1]), state=path)
    between = time.time()
    evaluated(parameters(rows=ROWS[1:], eps=[0.1]), state=path)
    assert 0.05 <= state.spent_before(tmp_path, between) < state.spent_before(tmp_path, time.time() + 1)
    assert state.spent_before(tmp_path, between - 3600) == 0
    both = [state.spent_before(tmp_path, moment) for moment in (between, time.time() + 1)]
    assert both[1] >= both[0] + 0.05


def test_a_file_with_a_damaged_directory_holds_no_row(tmp_path):
    """Whichever bit is wrong: zipfile has errors of its own for an archive of a kind that it does not know."""
    path, chosen = tmp_path / "state.npz", parameters(rows=ROWS[:1], eps=[0.1])
    evaluated(chosen, state=path)
    raw, spent = path.read_bytes(), state.spent_before(tmp_path, math.inf)
    start = raw.index(b"PK\x01\x02")
    for place in range(8 * start, 8 * min(start + 120, len(raw))):
        damaged = bytearray(raw)
        damaged[place // 8] ^= 1 << place % 8
        path.write_bytes(damaged)
        assert state.spent_before(tmp_path, math.inf) in (0, spent)
    path.write_bytes(raw[: start + 8] + b"\x01" + raw[start + 9 :])  # as if it were encrypted
    evaluated(chosen, state=path)
    assert state.spent_before(tmp_path, math.inf) > 0


def test_eps_that_records_would_call_the_same_are_refused():
    with pytest.raises(ValueError, match="by six digits, which must tell them apart"):
        AttackParameters(checkpoint="none", suite=Suite(name="s", rows=ROWS), eps=[0.0313725, 8 / 255])
