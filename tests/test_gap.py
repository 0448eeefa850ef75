"""The benchmark behind "Where could +63 come from?": its attack step by step, its comparisons, its tables."""

import json
import math
import sys

import pytest
import torch
from torch import nn
from trained import trained

from isce import losses
from isce.files import ROOT
from isce.parameters.training import TrainParameters
from isce.training.checkpoint import LoadedCheckpoint

sys.path.insert(0, str(ROOT / "benchmarks"))
import gap
import shown

COMMITTED = ROOT / "benchmarks" / "results" / "gap.json"


class OnePixel(nn.Module):
    """Logits scale (pixel - 7/16) and minus that: class 0 above the threshold of 7/16. All is exact in binary."""

    def __init__(self, scale=1.0):
        super().__init__()
        self.scale = scale

    def forward(self, x):
        above = self.scale * (x.flatten(1) - 0.4375)
        return torch.cat([above, -above], dim=1)


def ce(logits, y):
    return nn.functional.cross_entropy(logits, y, reduction="none")


def walk(way, *, loss=ce, start=0.875, scale=1.0, steps=(5, 50)):
    """What is left of one image of class 0: by the last point, by every point; and whether it stood still."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gap, "STEPS", steps)
        x = torch.full((1, 1, 1, 1), start)
        found = gap.walk(OnePixel(scale), loss, way, x, torch.tensor([0]))
    return [bool(v) for v in found["last"]], [bool(v) for v in found["all"]], bool(found["still"][0])


@pytest.mark.parametrize("double", [False, True])
@pytest.mark.parametrize("loss", [ce, gap.negative_margin, gap.clipped])
def test_steps_for_the_true_label_go_down_to_the_edge_of_the_box(loss, double):
    way = gap.Way("any", "true", None, 0.125, double=double)  # 0.875, 0.75, 0.625, 0.5, 0.375, 0.25, ... 0
    assert walk(way, loss=loss, steps=(3, 4, 50)) == ([True, False, False], [True, False, False], False)


@pytest.mark.parametrize("loss", [ce, gap.negative_margin, gap.clipped])
def test_steps_for_the_predicted_label_turn_back_at_the_boundary(loss):
    """0.5, 0.375 (now class 1, so up again), 0.5, 0.375, ...: the last point says robust or not by its parity."""
    way = gap.Way("any", "predicted", None, 0.125)
    last, every, _ = walk(way, loss=loss, steps=(4, 5, 49, 50))
    assert last == [False, True, True, False]
    assert every == [False] * 4


@pytest.mark.parametrize(("eps", "right"), [(0.25, True), (0.375, True), (0.5, False)])
def test_projection_keeps_the_points_in_the_ball(eps, right):
    last, every, _ = walk(gap.Way("any", "true", eps, 0.125))
    assert last[-1] is every[-1] is right


def test_clipped_probabilities_stand_still_where_cross_entropy_does_not():
    way = gap.Way("any", "true", None, 0.125)
    assert walk(way, loss=gap.clipped, scale=32.0) == ([True, True], [True, True], True)  # a margin of 28
    assert walk(way, loss=ce, scale=32.0) == ([False, False], [False, False], False)
    logits = torch.tensor([[16.0, 0.0], [17.0, 0.0]], requires_grad=True)
    gap.clipped(logits, torch.tensor([0, 0])).sum().backward()
    assert logits.grad is not None
    assert logits.grad.any(1).tolist() == [True, False]  # ln 1e7 is 16.1


def test_loss_of_the_script_s_outputs_by_hand():
    logits, y = torch.tensor([[3.0, 4.0]], dtype=torch.float64), torch.tensor([0])  # 0.6, 0.8; class 1 is predicted
    for m, s, clip, out in (
        (0.1, 1.0, True, 0.9),
        (0.5, 1.0, True, 1.0),
        (0.5, 1.0, False, 1.3),
        (0.1, 10.0, False, 9.0),
    ):
        expected = math.log(1 + math.exp(out - 0.6))
        assert gap.of_outputs(m, s, clip)(logits, y).item() == pytest.approx(expected, rel=1e-12)


def test_script_s_map_as_the_network_was_trained_is_its_training_loss():
    logits, y = torch.randn(8, 10), torch.arange(8)
    assert torch.equal(
        gap.of_outputs(*gap.MAPS[0])(logits, y), losses.build("isce-released").per_example(logits, y, None)
    )


def test_nothing_that_is_not_finite_counts_as_robust():
    with pytest.raises(FloatingPointError, match="not finite at step 0"):
        walk(gap.Way("any", "true", None, 0.125), loss=lambda logits, y: ce(logits, y) * math.inf)


def test_reach():
    for bound, steps, reach in (((None, 0.005), 50, 0.25), ((None, 0.02), 100, 1), ((0.1, 0.01), 5, 0.05)):
        assert gap.Way("any", "true", *bound).reach(steps) == reach
    assert gap.Way("any", "true", 0.1, 0.01).reach(50) == 0.1


def test_worst_case_is_exact_on_one_pixel():
    x = torch.tensor([0.4, 0.5, 0.6, 0.7]).view(4, 1, 1, 1)
    loaded = LoadedCheckpoint(OnePixel(), losses.build("sce"), TrainParameters(dataset="digits"), {})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gap, "WORST", gap.WORST[:1])
        found = gap.worst(loaded, x, torch.zeros(4, dtype=torch.int64), [0.2, 0.1])
    assert {radius: stands.tolist() for radius, stands in found.items()} == {
        0.1: [False, False, True, True],
        0.2: [False, False, False, True],
    }


@pytest.fixture(scope="module")
def rows(digits_target):
    """The rows of two small networks on a few images of digits, with a few steps."""
    x, y, _ = digits_target
    found = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gap, "STEPS", (1, 3))
        patch.setattr(gap, "WORST", [gap.AttackSpec(attack="matched", objective="margin", steps=3)])
        for name in ("sce", "isce-released"):
            classifier, objective = trained(name)
            loaded = LoadedCheckpoint(
                classifier.requires_grad_(False), objective, TrainParameters(dataset="digits"), {}
            )
            found += gap.judge(name, loaded, 0, x[:20], y[:20], first=True)
            found += gap.judge(name, loaded, 1, x[:20], y[:20], first=False)
    return found


def test_no_way_leaves_less_than_the_worst_case(rows):
    for row in rows:
        assert 0 <= row["all"] <= row["last"] <= 20
        if row["worst"] is not None:
            assert row["worst"] <= row["all"]
    assert any(row["last"] > row["all"] for row in rows)
    assert {row["worst"] is None for row in rows} == {True, False}


def test_gap_is_against_sce_attacked_alike(rows):
    found = gap.gaps(rows, 20)
    of_sce = [row for row in rows if row["network"] == "sce"]
    key = ("seed", "eps", "size", "double", "steps")
    assert len({json.dumps({k: v for k, v in each.items() if k != "gap"}) for each in found}) == len(found)
    for each in found:
        label = "true" if "true" in each["labels"] else "predicted"
        loss = "margin" if each["loss"] == "margin" else "training"
        (sce,) = [r for r in of_sce if (r["loss"], r["label"]) == (loss, label) and all(r[k] == each[k] for k in key)]
        assert each["sce"] == 5 * sce[each["judged"]]
        assert each["gap"] == each["isce"] - each["sce"]
        if each["left"] is not None:
            assert each["left"] == each["worst isce"] - each["worst sce"]
    assert {each["labels"] for each in found} == {"true", "predicted", "predicted, SCE true"}


def test_missing_networks_are_named_with_the_command_that_trains_them(tmp_path, capsys):
    with pytest.raises(SystemExit):
        gap.main(["--runs", str(tmp_path), "--out", str(tmp_path / "gap.json")])
    assert "make reproduce EXPERIMENT=mnist-long UNTIL=train" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_committed_tables_follow_from_the_committed_rows():
    found = json.loads(COMMITTED.read_text(encoding="utf-8"))
    assert found["gaps"] == gap.gaps(found["rows"], found["images"])
    for name, table in found["shown"].items():
        assert shown.TABLES[name](found) == table
    assert set(found["networks"]) == {f"{row['network']}-s{row['seed']}" for row in found["rows"]}
    for row in found["rows"]:
        assert row["all"] <= row["last"] <= found["images"]
        assert row["worst"] is None or row["worst"] <= row["all"]
