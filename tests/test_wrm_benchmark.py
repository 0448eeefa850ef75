"""The benchmark behind WRM's certificate: its parts where all is known, its check, its table and figure."""

import json
import math
import sys

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from isce import losses
from isce.defences.wrm import certificate
from isce.files import ROOT
from isce.models import Backbone, Classifier
from isce.report.plots import tables

sys.path.insert(0, str(ROOT / "benchmarks"))
import networks
import shown
import wrm

COMMITTED = ROOT / "benchmarks" / "results" / "wrm.json"
#: Two logits +-pixel a: the loss log(1 + exp(-2 a x)) of class 0 has slope 2 a / (1 + exp(2 a x)), curvature <= a^2.
A = 1.5


class Chain(Backbone):
    """Layers on images (1, 1, size), in pixel units."""

    def __init__(self, size, *layers, std=1.0):
        super().__init__((1, 1, size), [0.0], [std])
        self._set_layers([*layers, nn.Flatten()], size, None)


def chain(weight, *layers, std=1.0):
    weight = torch.tensor(weight)
    score_map = nn.Linear(weight.shape[1], weight.shape[0])
    with torch.no_grad():
        score_map.weight.copy_(weight)
        score_map.bias.zero_()
    return Classifier(Chain(weight.shape[1], *layers, std=std), score_map).double().eval().requires_grad_(False)


def of_class(classifier, label=0):
    return lambda z: F.cross_entropy(classifier(z), torch.full((len(z),), label), reduction="none")


@pytest.fixture
def one_pixel():
    """Loss on one pixel, which is concave for 2 gamma > a^2, and 40 images."""
    return of_class(chain([[A], [-A]])), torch.linspace(0, 1, 40, dtype=torch.float64).view(-1, 1, 1, 1)


def test_curvature_by_hand(one_pixel):
    loss, x = one_pixel
    share = torch.sigmoid(-2 * A * x.flatten())
    torch.testing.assert_close(wrm.curvature(loss, x), 4 * A**2 * share * (1 - share))


def test_curvature_is_the_largest_eigenvalue_and_may_be_negative():
    matrix = torch.tensor([[1.0, 2.0], [2.0, 1.0]], dtype=torch.float64)  # eigenvalues 3 and -1
    x = torch.rand(4, 2, dtype=torch.float64)
    torch.testing.assert_close(
        wrm.curvature(lambda z: ((z @ matrix) * z).sum(1) / 2, x), torch.full((4,), 3.0).double()
    )
    assert (wrm.curvature(lambda z: -z.square().sum(1), x) == -2).all()


def test_constants_by_hand():
    """Logits W x / std with ||W|| = 5, so slope 5 / std: sqrt(2) * 10 and 100 / 2; with ELU before W: b = a^2 = 4."""
    assert wrm.constants(chain([[3.0, 4.0], [0.0, 0.0]], std=0.5)) == pytest.approx((math.sqrt(2) * 10, 50))
    found = wrm.constants(chain([[3.0, 4.0], [0.0, 0.0]], nn.ELU(), std=0.5))
    assert found == pytest.approx((math.sqrt(2) * 10, 50 + math.sqrt(2) * 5 * 4))


@pytest.mark.parametrize("seed", range(3))
def test_constants_bound_what_is_measured(seed):
    torch.manual_seed(seed)
    layers = (nn.Linear(4, 4), nn.ELU(), nn.Linear(4, 4), nn.ELU())
    classifier = chain(torch.randn(3, 4).tolist(), *layers, std=0.3)
    loss, x = of_class(classifier), torch.rand(50, 1, 1, 4, dtype=torch.float64)
    slope, bend = wrm.constants(classifier)
    assert 0 < float(wrm.curvature(loss, x).max()) <= bend
    assert 0 < float(wrm.slope(loss, x).flatten(1).norm(dim=1).max()) <= slope


@pytest.mark.parametrize("layer", [nn.ReLU(), nn.ELU(alpha=2.0), nn.MaxPool2d(1)])
def test_layers_without_a_bound_are_refused(layer):
    with pytest.raises(ValueError, match="no bound of the curvature for"):
        wrm.constants(chain([[1.0], [0.0]], layer))


def test_certificates_are_those_of_the_library_and_equal_the_worst_on_a_grid(one_pixel):
    loss, x = one_pixel
    classifier, y = chain([[A], [-A]]), torch.zeros(len(x), dtype=torch.int64)
    moves = torch.linspace(-3, 3, 60001, dtype=torch.float64)
    for made, seen in wrm.certificates(loss, x, (8.0, 2.0)):
        again = certificate(classifier, losses.build("sce"), x, y, gamma=made.gamma, steps=wrm.STEPS)
        assert made == pytest.approx(again)
        values = F.softplus(-2 * A * (x.flatten()[:, None] + moves)) - made.gamma * moves.square()
        assert made.value == pytest.approx(float(values.amax(1).mean()), abs=1e-7)
        assert 0 < seen <= A**2


def test_attacks_touch_the_exact_bound_and_never_cross_it(one_pixel):
    loss, x = one_pixel
    made = [row for row, _ in wrm.certificates(loss, x, [gamma / 2**0.5 for gamma in (16.0, 8.0, 4.0, 2.0)])]
    pairs = wrm.attack(loss, x)
    assert pairs[0] == (0, pytest.approx(float(loss(x).mean())))
    assert len(pairs) == 1 + 2 * len(wrm.GAMMAS) + len(wrm.RHOS)
    wrm.check(pairs, {"exact": lambda rho: min(row.bound(rho) for row in made)})
    slope, bend = math.sqrt(2) * A * math.sqrt(2), A**2
    clean, squares = float(loss(x).mean()), float(wrm.slope(loss, x).square().mean())
    wrm.check(pairs, {"proof": lambda rho: wrm.proved(clean, squares, slope, bend, rho)})
    for row in made:  # at the penalties of the attacks the bound is exact
        assert wrm.reached(pairs, row.cost) == pytest.approx(row.bound(row.cost), rel=1e-6)


def test_an_attack_above_a_bound_or_not_a_number_raises():
    wrm.check([(0.5, 1.0)], {"line": lambda rho: 2 * rho})
    for loss in (1.1, math.nan):
        with pytest.raises(ArithmeticError, match=r"at 0\.5; line says 1"):
            wrm.check([(0.0, 0.0), (0.5, loss)], {"line": lambda rho: 2 * rho})


def test_what_attacks_reach_is_mixed_by_hand():
    pairs = [(0.0, 1.0), (1.0, 2.0), (4.0, 8.0), (2.0, 0.5)]
    assert [wrm.reached(pairs, rho) for rho in (0, 1, 2, 4, 9)] == [1, 2.75, 4.5, 8, 8]


def test_proved_is_the_least_over_the_penalties():
    clean, squares, bend, rho = 0.25, 3.0, 5.0, 0.04
    gammas = torch.linspace(bend / 2 + 0.01, 100, 200001, dtype=torch.float64)
    least = clean + (gammas * rho + squares / (2 * (2 * gammas - bend))).min()
    assert wrm.proved(clean, squares, 1e9, bend, rho) == pytest.approx(float(least), abs=1e-6)
    assert wrm.proved(clean, squares, 0.5, bend, rho) == pytest.approx(0.25 + 0.5 * 0.2)


def test_sphere_keeps_its_distance(one_pixel):
    loss, x = one_pixel
    torch.testing.assert_close(wrm.sphere(loss, x, 0.3), x - 0.3)  # the loss of class 0 falls with the pixel


@pytest.fixture(scope="module")
def committed():
    return json.loads(COMMITTED.read_text(encoding="utf-8"))


def test_committed_tables_follow_from_the_committed_rows(committed):
    assert set(committed["shown"]) == {"wrm", "transport"}
    for name, table in committed["shown"].items():
        assert shown.TABLES[name](committed) == table


def test_committed_bounds_lie_above_the_committed_attacks(committed):
    assert [row["network"] for row in committed["rows"]] == list(wrm.NETWORKS)
    for row in committed["rows"]:
        held = [each for each in row["gammas"] if each["holds"]]
        assert held
        assert all(each["holds"] == (each["seen"] <= 2 * each["gamma"]) for each in row["gammas"])
        for each in row["rhos"]:
            assert each["bound"] == min(of["gamma"] * each["rho"] + of["value"] for of in held)
            assert row["clean"] <= each["attack"] == wrm.reached(row["pairs"], each["rho"])
            assert each["attack"] <= min(each["bound"], each["proved"]) + wrm.ROUNDING


def test_figure_draws_what_the_table_says():
    columns = ["network", "mean squared distance", "attacks", "estimated bound", "proved bound"]
    rows = [["A", "0.1", "1", "2", "3"], ["A", "0.2", "4", "none", "6"], ["B", "0.1", "7", "8", "9"]]
    figure = tables.transport(columns, rows)
    first, second = figure.axes
    drawn = {line.get_label(): np.column_stack(line.get_data()).tolist() for line in first.lines}
    assert drawn == {
        "attacks": [[0.1, 1], [0.2, 4]],
        "estimated bound": [[0.1, 2]],
        "proved bound": [[0.1, 3], [0.2, 6]],
    }
    assert [ax.get_title() for ax in (first, second)] == ["A", "B"]
    assert [np.asarray(line.get_ydata()).tolist() for line in second.lines] == [[9], [8], [7]]


def test_tables_by_hand():
    gammas = [
        {"gamma": gamma, "value": 0.5, "cost": 0.25, "seen": 9.0, "holds": gamma > 4, "attack": 0.75}
        for gamma in (8.0, 3.0, 2.0)
    ]
    rhos = [
        {"rho": 0.1, "attack": 0.5, "bound": 1.25, "proved": 20.0},
        {"rho": 1.0, "attack": 1, "bound": None, "proved": 90},
    ]
    row = {"network": "SCE", "bend": 3000.0, "gammas": gammas, "rhos": rhos}
    found = {"where": {}, "images": 7, "steps": 5, "rows": [row]}
    made = networks.wrm(found)
    assert made["rows"] == [
        ["SCE", "8", "9.0", "yes", "0.5", "0.25", "2.5", "0.75"],
        ["SCE", "2", "9.0", "no", "0.5", "0.25", "1", "0.75"],
    ]
    assert "only these penalties: SCE 1,500." in made["caption"]
    assert networks.transport(found)["rows"] == [["SCE", "0.1", "0.5", "1.25", "20"], ["SCE", "1", "1", "none", "90"]]
    for table in (made, networks.transport(found)):
        assert {len(cells) for cells in table["rows"]} == {len(table["columns"])}
        assert len(table["caption"].partition(". ")[0].split()) <= 25
