"""One pass over all eps from the largest down, against evaluations of one eps each; who is spared; rows at one eps."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from mean_model import ROWS, VALUES, BatchMean, evaluated, flat, parameters
from safetensors.torch import load_file
from spying import KilledError, Spy
from torch import nn

from isce.attacks import ForeignError
from isce.attacks.spec import AttackSpec
from isce.evaluation import Evaluation, Examples, Outcome, evaluate, sweep
from isce.losses import build
from isce.parameters.attack import AttackParameters
from isce.runs import session
from isce.runs.records import DISTANCES, Record, read

PGD, FGSM = AttackSpec(attack="pgd", steps=3), ROWS[0]
FMN = AttackSpec(attack="fmn", steps=20)
MATCHED = AttackSpec(attack="matched", objective="margin", steps=15, restarts=2, survivors=True)
STAGED = AttackSpec(attack="staged", steps=20, survivors=True)
GRIDS = {"linf": [0.05, 0.1, 0.2, 0.3], "l2": [0.2, 0.5, 0.9, 1.4]}


class Small(nn.Module):
    """Two layers drawn from a seed, over 16 pixels and four classes."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        draws = torch.Generator().manual_seed(seed)
        self.first = nn.Parameter(torch.randn(16, 12, generator=draws, dtype=torch.float64) / 4)
        self.second = nn.Parameter(torch.randn(12, 4, generator=draws, dtype=torch.float64))

    def forward(self, x):
        return torch.relu((2 * x - 1).flatten(1) @ self.first) @ self.second


def small(seed: int) -> tuple[Small, torch.Tensor, torch.Tensor]:
    """A network, images, and the classes that it gives them, but for two."""
    model = Small(seed)
    x = torch.rand(16, 1, 4, 4, generator=torch.Generator().manual_seed(seed + 100), dtype=torch.float64)
    with torch.no_grad():
        y = model(x).argmax(1)
    y[:2] = (y[:2] + 1) % 4
    return model, x, y


def found(seed: int, norm: str, eps: list[float], rows: list[AttackSpec], **more) -> Evaluation:
    model, x, y = small(seed)
    return evaluate(model, build("sce"), x, y, parameters(rows=rows, norm=norm, eps=eps), progress=False, **more)


def gradients(evaluation: Evaluation) -> int:
    return sum(outcome.gradients for rows in evaluation.outcomes.values() for outcome in rows.values())


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("seed", range(4))
def test_at_no_eps_one_pass_leaves_what_each_eps_by_itself_breaks(seed, norm):
    rows, grid = [PGD, FMN, MATCHED, STAGED], GRIDS[norm]
    together, alone = found(seed, norm, grid, rows), [found(seed, norm, [eps], rows) for eps in grid]
    left = []
    for label, one in zip(together.outcomes, alone, strict=True):
        assert not (together.robust(label) & ~one.robust(label)).any(), label
        assert not together.unknown(label).any()
        left.append(int(together.robust(label).sum()))
    assert left == sorted(left, reverse=True)
    assert left[0] > left[-1]
    assert gradients(together) < sum(map(gradients, alone))


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("rows", [[PGD, MATCHED], [FMN, PGD, STAGED]], ids=["eps", "minimal"])
def test_the_curve_is_the_worst_case_where_that_is_known_and_never_rises(norm, rows):
    grid = GRIDS[norm] if FMN in rows else [eps / 10 for eps in GRIDS[norm]]
    given, evaluation = parameters(rows=rows, norm=norm, eps=grid), found(5, norm, grid, rows)
    curve = sweep(given, evaluation, 16)
    worst = [threat["worst"]["correct"] for threat in evaluation.results()["threats"].values()]
    assert [row["correct"] for row in evaluation.curve(norm, grid)] == worst
    at = {row["eps"]: row["correct"] for row in curve}
    assert [at[eps] for eps in grid if eps in at] == [left for eps, left in zip(grid, worst, strict=True) if eps in at]
    correct = list(at.values())
    assert correct == sorted(correct, reverse=True)
    assert correct[0] > 0
    if FMN in rows:
        assert correct[-1] == 0
    else:
        assert curve[-1]["eps"] == grid[-1]
        assert correct[0] > correct[-1] > 0


def test_the_nearest_points_are_those_of_the_closed_form():
    evaluation = evaluated(parameters(rows=[AttackSpec(attack="fmn", steps=60), MATCHED]))
    distance = evaluation.distance("linf")
    assert distance[:6] == pytest.approx([0.5 - value for value in VALUES[:6]], rel=1e-3)
    assert (distance[:6] > [0.5 - value for value in VALUES[:6]]).all()
    assert distance[6:].tolist() == [0, 0], "misclassified as they stand"
    assert np.isinf(evaluated(parameters(rows=[FGSM])).distance("linf")[:2]).all(), "0.2 is the largest eps"


def test_a_point_of_a_larger_eps_counts_where_it_lies_within_a_smaller():
    """An attack that stops the step it falls, sent after nothing at the smaller eps."""
    stays = AttackSpec(attack="pgd", steps=1, step_size=1e-6)
    at = {"linf@0.1": stays, "linf@0.2": AttackSpec(attack="matched", objective="margin", steps=20, step_size=0.05)}
    one = {eps: evaluated(parameters(rows=[row], eps=[eps])) for eps, row in zip((0.1, 0.2), at.values(), strict=True)}
    outcomes = {label: e.outcomes[label] for label, e in zip(at, one.values(), strict=True)}
    merged = Evaluation(one[0.1].clean, outcomes, 256)
    assert one[0.1].robust("linf@0.1").sum() == 6
    assert merged.robust("linf@0.1").tolist() == [True] * 4 + [False] * 4  # distances .45 .25 .15 .12, and .08 .05
    assert merged.results()["threats"]["linf@0.1"]["worst"]["correct"] == 4


def test_what_stands_at_a_larger_eps_is_not_attacked_at_a_smaller_and_robust_there(monkeypatch):
    spy = Spy(monkeypatch)
    evaluation = evaluated(parameters(rows=[FGSM, MATCHED]))
    assert spy.calls == [
        (FGSM.label, "linf@0.1", [0, 1, 2, 3, 4, 5]),
        (FGSM.label, "linf@0.2", [0, 1, 2, 3, 4, 5]),
        (MATCHED.label, "linf@0.2", [0, 1]),
        (MATCHED.label, "linf@0.1", [2, 3]),
    ]
    outcome = evaluation.outcomes["linf@0.1"][MATCHED.label]
    assert outcome.spared.tolist() == [True, True] + [False] * 6
    assert not (outcome.spared & (outcome.attacked | outcome.broken)).any()
    assert evaluation.robust("linf@0.1").tolist() == [True] * 4 + [False] * 4
    assert evaluation.robust("linf@0.1", MATCHED.label)[:2].all()
    assert not evaluation.unknown("linf@0.1").any()
    row = evaluation.results()["threats"]["linf@0.1"]["attacks"][MATCHED.label]
    assert (row["correct"], row["attacked"], row["spared"]) == (4, 2, 2)
    assert "spared" not in evaluation.results()["threats"]["linf@0.2"]["attacks"][MATCHED.label]


def test_where_a_row_failed_at_the_larger_eps_nothing_is_spared(monkeypatch):
    spy = Spy(monkeypatch, [f"{MATCHED.label} linf@0.2"], ForeignError("planted"))
    evaluation = evaluated(parameters(rows=[FGSM, MATCHED]))
    assert spy.calls[-1] == (MATCHED.label, "linf@0.1", [0, 1, 2, 3])
    assert not evaluation.outcomes["linf@0.1"][MATCHED.label].spared.any()
    assert evaluation.unknown("linf@0.2").tolist() == [True, True] + [False] * 6
    worst = [threat["worst"]["accuracy"] for threat in evaluation.results()["threats"].values()]
    assert worst == [0.5, None]


def test_where_another_row_failed_at_the_larger_eps_nothing_is_spared_either(monkeypatch):
    spy = Spy(monkeypatch, [f"{PGD.label} linf@0.2"], ForeignError("planted"))
    evaluation = evaluated(parameters(rows=[FGSM, PGD, MATCHED]))
    assert (MATCHED.label, "linf@0.1", [0, 1, 2, 3]) in spy.calls
    assert evaluation.results()["threats"]["linf@0.1"]["worst"]["accuracy"] == 0.5


def test_images_that_a_row_was_not_about_are_not_spared(monkeypatch):
    """At the larger eps nothing is said of them."""
    spy = Spy(monkeypatch)
    few = MATCHED.model_copy(update={"images": 4})
    evaluation = evaluated(parameters(rows=[FGSM, few]))
    asked = evaluation.outcomes["linf@0.2"][few.label].asked
    assert asked.sum() == 4
    assert (evaluation.outcomes["linf@0.1"][few.label].spared <= asked).all()
    assert all(asked[index].all() for label, _, index in spy.calls if label == few.label)


def test_of_a_batch_that_stays_together_nothing_is_spared():
    """There an attack hands back the points with most images fallen: another one falls in a smaller ball."""
    x, y = flat([0.1, 0.2, 0.3, 0.4, 0.5])[0], torch.tensor([0, 1, 0, 1, 0])
    given = parameters(rows=[FGSM, MATCHED], eps=[0.02, 0.04], batch_size=2)
    evaluation = evaluate(BatchMean(), build("sce"), x, y, given, progress=False)
    assert evaluation.robust("linf@0.04").any()
    assert not any(rows[MATCHED.label].spared.any() for rows in evaluation.outcomes.values())


def test_a_curve_is_about_the_images_that_were_attacked():
    few = PGD.model_copy(update={"images": 4})
    given = parameters(rows=[few])
    evaluation = evaluated(given)
    worst = [threat["worst"] for threat in evaluation.results()["threats"].values()]
    assert [(row["correct"], row["n"]) for row in evaluation.curve("linf", [0.1, 0.2])] == [
        (one["correct"], one["n"]) for one in worst
    ]
    with pytest.raises(KeyError, match="l2"):
        evaluation.curve("l2", [0.1])


@pytest.mark.parametrize(("main", "at"), [(None, "linf@0.2"), (0.1, "linf@0.1")])
def test_a_row_may_be_run_at_the_main_eps_alone(main, at):
    once = MATCHED.model_copy(update={"main_only": True})
    evaluation = evaluated(parameters(rows=[FGSM, once], main_eps=main))
    assert {label for label, rows in evaluation.outcomes.items() if once.label in rows} == {at}
    assert all(FGSM.label in rows for rows in evaluation.outcomes.values())
    assert not evaluation.outcomes[at][once.label].spared.any(), "at no other eps it left anything standing"


def test_where_every_row_is_run_at_the_main_eps_alone_the_curve_ends_there():
    once = FGSM.model_copy(update={"main_only": True})
    given = parameters(rows=[once], main_eps=0.1)
    evaluation = evaluated(given)
    assert list(evaluation.outcomes) == ["linf@0.1"]
    assert sweep(given, evaluation, 4)[-1]["eps"] == 0.1
    elsewhere = parameters(rows=[FGSM.model_copy(update={"norm": "l2", "eps": 0.2})])
    assert sweep(elsewhere, evaluated(elsewhere), 4) == []


def test_a_main_eps_outside_the_grid_and_a_row_with_its_own_eps_are_refused():
    with pytest.raises(ValueError, match=r"main_eps must be one of eps \[0.1, 0.2\], got 0.3"):
        parameters(main_eps=0.3)
    with pytest.raises(ValueError, match="leave out norm and eps, or main_only"):
        AttackSpec(attack="fgsm", norm="l2", eps=0.1, main_only=True)


@pytest.mark.parametrize("at", range(1, 9))
def test_killed_at_any_batch_it_ends_in_the_same_outcome_with_the_same_images_spared(tmp_path, monkeypatch, at):
    given = parameters(rows=[FGSM, MATCHED, STAGED], batch_size=4)
    expected = evaluated(given)
    Spy(monkeypatch, [at])
    with pytest.raises(KilledError):
        evaluated(given, state=tmp_path / "state.npz")
    resumed = evaluated(given, state=tmp_path / "state.npz")
    assert resumed.outcomes["linf@0.1"][STAGED.label].spared.sum() == 2
    for threat, outcomes in expected.outcomes.items():
        for row, outcome in outcomes.items():
            for field in fields(Outcome):
                one, other = (getattr(o, field.name) for o in (outcome, resumed.outcomes[threat][row]))
                assert np.array_equal(one, other), (threat, row, field.name)
    assert resumed.results() == expected.results()


def written(folder: Path, given: AttackParameters, evaluation: Evaluation) -> Record:
    """The record of an evaluation, read back."""
    none = torch.zeros(0, 1, 2, 2)
    shown = Examples(torch.arange(0), none, none, torch.arange(0), torch.zeros(0, 4))
    context = session.Context(folder=str(folder), device="cpu")
    return read(session.write_attack_record(given, context, evaluation, SimpleNamespace(sha256=""), shown, {}, {}))


def test_a_record_says_what_each_row_cost_and_how_far_each_image_is(tmp_path):
    given = parameters(rows=[FGSM, MATCHED], batch_size=4)
    evaluation = evaluated(given)
    record = written(tmp_path, given, evaluation)
    rows = record.provenance.rows or {}
    assert list(rows) == ["linf@0.1", "linf@0.2"]
    assert all(list(costs) == [FGSM.label, MATCHED.label] for costs in rows.values())
    assert [rows[threat][FGSM.label].gradients for threat in rows] == [6, 6], "of what is classified right"
    # 2 images stand, for 15 steps and, after 8 of a restart, for 7; the smaller eps spares them and has 2 of its own.
    assert [rows[threat][MATCHED.label].gradients for threat in rows] == [60, 60]
    assert all(
        cost.forwards > cost.gradients and cost.seconds >= 0 for costs in rows.values() for cost in costs.values()
    )
    distances = load_file(tmp_path / DISTANCES)
    assert set(distances) == {"linf"}
    assert torch.equal(distances["linf"], torch.from_numpy(evaluation.distance("linf")).float())
    assert set(record.files) == {DISTANCES, "robust.safetensors", "examples.safetensors"}


def test_a_row_without_outcome_leaves_no_distances(tmp_path, monkeypatch):
    """An infinite distance means that nothing broke an image, not that nobody tried."""
    Spy(monkeypatch, [f"{MATCHED.label} linf@0.2"], ForeignError("planted"))
    given = parameters(rows=[FGSM, MATCHED])
    written(tmp_path, given, evaluated(given))
    assert load_file(tmp_path / DISTANCES) == {}
