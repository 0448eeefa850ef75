"""The benchmark of mixup: an attack on some pixels by hand, its table, and that what is committed is what it makes."""

import json
import sys

import pytest
import torch
from torch import nn

from isce import data
from isce.files import ROOT
from isce.runs.experiment import load_experiment

sys.path.insert(0, str(ROOT / "benchmarks"))
import mixup
import shown

FOUND = json.loads((ROOT / "benchmarks" / "results" / "mixup.json").read_text())


class Plane(nn.Module):
    """Logits (w x, 0) of images of four pixels."""

    def __init__(self, weights, bias=0.0):
        super().__init__()
        self.weights, self.bias = torch.tensor(weights), bias

    def forward(self, x):
        lead = x.flatten(1) @ self.weights + self.bias
        return torch.stack([lead, torch.zeros_like(lead)], 1)


# Two black pixels and two that are not. At eps 0.1 moves of the black ones lower the first logit by 0.1, since they go
# up alone and one of the weights is above 0; moves of the others by 0.3.
X = torch.tensor([[[[0.0, 0.0], [0.5, 0.5]]]])
WEIGHTS = [-1.0, 1.0, 2.0, -1.0]
Y = torch.tensor([0])


@pytest.mark.parametrize(
    ("bias", "stands"),
    [(-0.45, {"black": False, "others": False}), (-0.3, {"black": True, "others": False}), (0.0, {})],
)
def test_only_some_pixels_move_and_each_as_far_as_it_may(bias, stands):
    black = X == 0
    for name, moved in {"black": black, "others": ~black}.items():
        assert mixup.stands(Plane(WEIGHTS, bias), X, Y, moved).item() == stands.get(name, True)


def test_a_margin_that_is_not_finite_is_no_outcome():
    with pytest.raises(FloatingPointError):
        mixup.stands(Plane(WEIGHTS, float("nan")), X, Y, X == 0)


def test_row_by_hand():
    second = torch.tensor([[[[1.0, 0.0], [0.0, 0.0]]]])
    x, y = torch.cat([X, second]), torch.tensor([0, 1])
    row = mixup.row(Plane(WEIGHTS), x, y, torch.tensor([1, 0]))
    assert row["clean"] == 2
    assert row["left"] == {"all": 2, "black": 2, "others": 2}
    # All slopes are 1 or 2: 2 of 5 on the first image's black pixels, 4 of 5 on the second's.
    assert row["slope"] == pytest.approx((2 / 5 + 4 / 5) / 2)
    # Mixed with a weight of 0.1 the leads are 0.9 * 0.5 - 0.1 and -0.9 + 0.1 * 0.5; the second label is 1, then 0.
    leads = torch.tensor([-(0.45 - 0.1), -0.9 + 0.05])
    assert row["seen"]["0.1"] == pytest.approx(leads.sigmoid().mean().item())


def test_all_but_alpha_is_as_in_the_experiment():
    runs = dict(load_experiment("mnist-defences").runs())
    assert mixup.parameters(None, 1) == runs["sce-s1"]
    changed, given = mixup.parameters(64.0, 1), runs["sce-mixup-s1"]
    assert changed.defence.params == {"alpha": 64.0}
    assert changed.model_copy(update={"defence": given.defence}) == given


def test_table_by_hand():
    row = {"clean": 10, "left": {"all": 1, "black": 2, "others": 9}, "slope": 0.75, "seen": {"0.1": 0.1, "0.2": 0.25}}
    about = {"images": 10, "steps": 5, "eps": 0.1, "where": {"machine": "hand"}}
    rows = [{"alpha": alpha, "seed": seed} | row for alpha in (None, 64.0) for seed in (0, 1)]
    found = about | {"rows": rows}
    assert shown.TABLES["mixup"](found)["rows"] == [
        [name, *(f"{cell}, {cell}" for cell in ("100.0", "10.0", "20.0", "90.0", "75.0", "10.0", "25.0"))]
        for name in ("SCE", "SCE + mixup, alpha 64")
    ]
    texts, keys = shown.TABLES["mixed"](found), ("sce-black", "64-all", "64-slope", "64-seen")
    assert [texts[key] for key in keys] == ["20.0%", "10.0%", "75%", "25.0%"]


def test_a_training_that_failed_is_no_outcome(tmp_path, monkeypatch):
    digits = data.load("digits")
    monkeypatch.setattr(mixup, "trained", lambda run, folder: {"failed": "loss is nan", "loss": None})
    monkeypatch.setattr(mixup.data, "load", lambda name: digits)
    with pytest.raises(RuntimeError, match="no outcome of sce-s0: loss is nan"):
        mixup.main(["--seeds", "0", "--images", "10", "--out", str(tmp_path / "mixup.json")])
    assert not list(tmp_path.iterdir())


def test_rows_of_other_images_are_not_mixed_with_new_ones(tmp_path, capsys):
    out = tmp_path / "mixup.json"
    out.write_text(json.dumps(FOUND))
    with pytest.raises(SystemExit):
        mixup.main(["--images", "10", "--out", str(out)])
    assert f"{out} holds rows of images {FOUND['images']}: give another file" in capsys.readouterr().err


def test_what_is_committed_is_what_it_makes():
    assert FOUND["shown"] == {"mixup": shown.TABLES["mixup"](FOUND), "numbers": shown.TABLES["mixed"](FOUND)}
    assert {row["alpha"] for row in FOUND["rows"]} == set(mixup.ALPHAS)
    assert (FOUND["steps"], FOUND["eps"]) == (mixup.STEPS, mixup.EPS)
