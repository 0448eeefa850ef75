"""The rules that judge the claims: each verdict can come out either way, and only both intervals make a difference."""

import json

import pytest
from made_records import record
from scipy.stats import norm

from isce.files import ROOT
from isce.report import claims
from isce.report.cells import Cell, Cells
from isce.report.key import Key
from isce.runs.experiment import Experiment, load_experiment

N = 1000
PAPER, WORST = f"attack:{claims.PAPER}", "worst"


def experiment(**changes):
    values = {
        "name": "made-up",
        "title": "Made up",
        "objectives": [{"name": "sce"}, {"name": "isce", "params": {"inference": 2.0}}, {"name": "center"}],
        "seeds": [0, 1, 2],
        "training": {"dataset": "mnist"},
        "attack": {"suite": "full", "eps": [0.1, 0.3], "main_eps": 0.1},
    }
    return Experiment.model_validate(values | changes)


def accuracies(**by_label):
    """Cells of three seeds: for each label a mapping from key to one share, or to one share for each seed."""
    every = []
    for label, values in by_label.items():
        for key, share in values.items():
            shares = share if isinstance(share, list) else [share] * 3
            every += [
                Cell(label.replace("_", "-"), Key.parse(key), str(seed), value, N, "record")
                for seed, value in enumerate(shares)
            ]
    return Cells(every, ["sce", "isce-m2", "center"])


def network(clean=0.99, paper=0.5, worst=0.5, last=0.0):
    return {
        "clean": clean,
        f"{PAPER}@0.1": paper,
        f"{PAPER}@0.3": 0.0,
        f"{WORST}@0.1": worst,
        f"{WORST}@0.3": last,
    }


def analysed(label, separation=4.0, adversarial=1.0, covered=1.0):
    region = {"separation": separation, "adversarial_separation": adversarial}
    threat = {"eps": 0.1, "n": 200, "gap": [{"m": 2.0, "covered": covered}], "region": {"all": region}}
    return label, record("minmax", f"{label}-s0", results={"threats": {"linf@0.1": threat}})


def judged(found, minmax=(), costs=None, **changes):
    made = claims.Judge(experiment(**changes), found, list(minmax), *([costs] if costs else []))
    return {(verdict.claim, verdict.label): verdict for verdict in made.verdicts()}


@pytest.mark.parametrize(
    ("paper", "worst", "verdict"),
    [
        (0.7, 0.6, claims.HOLDS),
        (0.7, 0.5, claims.ONLY),
        (0.7, 0.4, claims.ONLY),
        (0.5, 0.7, claims.NOT),
        (0.52, 0.7, claims.NOT),  # two points of a thousand images may be chance
        ([0.9, 0.9, 0.31], 0.7, claims.NOT),  # far apart, but not over seeds
    ],
)
def test_c4_asks_for_both_attacks_and_both_intervals(paper, worst, verdict):
    found = accuracies(sce=network(), isce_m2=network(paper=paper, worst=worst), center=network())
    assert judged(found)["C4", "isce-m2"].verdict == verdict


@pytest.mark.parametrize(
    ("center", "verdict"), [((0.5, 0.5), claims.HOLDS), ((0.5, 0.65), claims.ONLY), ((0.7, 0.65), claims.NOT)]
)
def test_c6_looks_at_the_best_of_the_others(center, verdict):
    paper, worst = center
    found = accuracies(sce=network(), isce_m2=network(paper=0.7, worst=0.65), center=network(paper=paper, worst=worst))
    assert judged(found)["C6", "isce-m2"].verdict == verdict


@pytest.mark.parametrize(("last", "verdict"), [(0.0, claims.HOLDS), (0.49, claims.NOT), (0.8, claims.NOT)])
def test_c1_and_c2_ask_for_half_of_the_clean_accuracy_beyond_chance(last, verdict):
    found = accuracies(sce=network(last=last), isce_m2=network(), center=network(last=last))
    verdicts = judged(found, [analysed("sce")])
    assert (verdicts["C1", "sce"].verdict, verdicts["C2", "center"].verdict) == (verdict, verdict)


def test_scatter_that_could_not_be_measured_is_not_judged():
    """A class with one image has no scatter of its own."""
    found = accuracies(sce=network(), isce_m2=network())
    for sce, own in ((None, 4.0), (4.0, None)):
        verdicts = judged(found, [analysed("sce", sce), analysed("isce-m2", own)])
        assert ("C3", "isce-m2") not in verdicts
        assert (("C1", "sce") in verdicts) == (sce is not None)


def test_c5_of_the_released_reading_cant_be_tested():
    objectives = [{"name": "sce"}, {"name": "isce-released"}]
    found = Cells(accuracies(sce=network(), isce_released=network()).all, ["sce", "isce-released"])
    assert judged(found, objectives=objectives)["C5", "isce-released"].verdict == claims.CANT


def test_c7_reads_the_cost_of_a_step(tmp_path):
    found, file = accuracies(sce=network(), isce_m2=network()), tmp_path / "costs.json"
    for high, verdict in ((1.04, claims.HOLDS), (1.06, claims.NOT)):
        row = {"shape": "training step (1,)", "loss": "isce", "ratio": 1.0, "low": 0.99, "high": high}
        file.write_text(json.dumps({"rows": [row]}))
        assert judged(found, costs=file)["C7", "isce"].verdict == verdict
    assert ("C7", "isce") not in judged(found, costs=tmp_path / "none.json")


HALF = {"sce": network(), "isce_m2": network()}


@pytest.mark.parametrize(
    ("claim", "networks", "minmax", "verdict"),
    [
        ("C1 sce", HALF, [analysed("sce", 4.0, 4.5)], claims.NOT),
        ("C3 isce-m2", HALF, [analysed("sce", 4.0), analysed("isce-m2", 4.1)], claims.HOLDS),
        ("C3 isce-m2", HALF, [analysed("sce", 4.0), analysed("isce-m2", 3.9)], claims.NOT),
        ("C5 isce-m2", HALF, [analysed("isce-m2", covered=0.95)], claims.HOLDS),
        ("C5 isce-m2", HALF, [analysed("isce-m2", covered=0.9)], claims.NOT),
        ("C5 isce-m2", HALF, [analysed("isce-m2", covered=0.0)], claims.NOT),
        ("C6 isce-m2", {"sce": network(), "isce_m2": network(paper=0.7, worst=0.7)}, [], claims.CANT),  # C4 once more
        ("C8 isce-m2", {"sce": network(paper=0.2), "isce_m2": network(paper=0.85)}, [], claims.HOLDS),
        ("C8 isce-m2", {"sce": network(paper=0.2), "isce_m2": network(paper=0.7)}, [], claims.NOT),
    ],
)
def test_a_measured_value_on_either_side_of_a_rule(claim, networks, minmax, verdict):
    name, label = claim.split(" ")
    assert judged(accuracies(**networks), minmax)[name, label].verdict == verdict


def test_adversarially_trained_networks_say_nothing_about_standard_training():
    training = {"dataset": "mnist", "adversarial": {"kind": "pgd", "eps": 0.3, "steps": 1, "step_size": 0.1}}
    verdicts = judged(accuracies(sce=network(), isce_m2=network()), [analysed("sce")], training=training)
    assert {claim for claim, _ in verdicts}.isdisjoint({"C1", "C2", "C8"})
    digits = judged(accuracies(sce=network(), isce_m2=network()), training={"dataset": "digits"})
    assert "C8" not in {claim for claim, _ in digits}, "C8 is about MNIST"


def test_nothing_is_judged_without_softmax_cross_entropy():
    assert judged(accuracies(isce_m2=network(), center=network())) == {}


def test_a_row_that_was_not_run_gives_no_verdict():
    own = {key: share for key, share in network().items() if key != f"{WORST}@0.1"}
    assert ("C4", "isce-m2") not in judged(accuracies(sce=network(), isce_m2=own))


def test_difference_against_hand_computed_intervals():
    """Newcombe's interval is built from the two Wilson intervals, here by their closed form."""

    def wilson(p):
        z = norm.ppf(0.975)
        middle, half = p + z * z / (2 * N), z * (p * (1 - p) / N + z * z / (4 * N * N)) ** 0.5
        return (middle - half) / (1 + z * z / N), (middle + half) / (1 + z * z / N)

    found = accuracies(sce={"clean": 0.4}, isce_m2={"clean": [0.5, 0.6, 0.7]})
    pair = claims.difference(found, "isce-m2", "sce", Key("clean"))
    (low, high), (base_low, base_high) = wilson(0.6), wilson(0.4)
    assert pair.value == pytest.approx(0.2)
    assert pair.images[0] == pytest.approx(0.2 - ((0.6 - low) ** 2 + (base_high - 0.4) ** 2) ** 0.5, abs=1e-6)
    assert pair.images[1] == pytest.approx(0.2 + ((high - 0.6) ** 2 + (0.4 - base_low) ** 2) ** 0.5, abs=1e-6)
    half = 4.302652729911275 * 0.1 / 3**0.5  # t quantile with 2 degrees of freedom, standard deviation 0.1
    assert pair.seeds == pytest.approx((0.2 - half, 0.2 + half))


def test_only_shared_seeds_are_compared():
    found = Cells(
        [Cell("sce", Key("clean"), s, a, N, "") for s, a in (("0", 0.4), ("1", 0.9))]
        + [Cell("isce-m2", Key("clean"), s, a, N, "") for s, a in (("0", 0.5), ("2", 0.1))],
        ["sce", "isce-m2"],
    )
    pair = claims.difference(found, "isce-m2", "sce", Key("clean"))
    assert pair.value == pytest.approx(0.1)
    assert pair.seeds is None
    assert claims.difference(found, "isce-m2", "sce", Key.at("worst", 0.1)) is None


def test_the_book_knows_every_verdict():
    written = (ROOT / "book" / "_ext" / "isce_tables.py").read_text(encoding="utf-8")
    assert all(f'"{verdict}": ' in written for verdict in (claims.HOLDS, claims.ONLY, claims.NOT, claims.CANT))


def table(found, name="mnist"):
    """Rows of the verdicts' table, as mappings from column to cell, and its caption."""
    made = claims.table(claims.Judge(load_experiment(name), found, []), "evidence.")
    return [dict(zip(made.columns, row, strict=True)) for row in made.rows], made.caption


def test_every_claim_is_explained_and_the_table_names_each_row():
    assert list(claims.CLAIMS) == [f"C{i}" for i in range(1, 9)]
    rows, caption = table(accuracies(sce=network(), isce_m2=network(), center=network()))
    assert rows
    assert all(row["claim"][:2] in claims.CLAIMS and all(row.values()) for row in rows)
    assert caption.endswith("evidence.")


def test_the_table_says_where_a_verdict_is_from_what_it_is_about_and_what_was_reported():
    rows, _ = table(accuracies(sce=network(), isce_m2=network(), center=network()))
    found = {row["claim"][:2]: row for row in rows}
    assert found["C4"]["experiment (data)"] == "mnist (MNIST)"
    assert found["C7"]["experiment (data)"].startswith("benchmarks/losses.py")
    assert found["C4"]["of"] == "I-SCE (text, m = 2)"
    assert found["C2"]["of"] == "center loss"
    assert {name: row["reported by the paper"].split(" (")[0] for name, row in found.items()} == {
        name: "+63 points" if name == "C8" else "no number known" for name in found
    }
    assert found["C4"]["deviation"] == claims.CLAIMS["C4"].differs


def test_rows_come_in_the_order_of_the_claims_whatever_the_order_of_the_records():
    every = accuracies(sce=network(), isce_m2=network(paper=0.7), center=network()).all
    first, _ = table(Cells(every, ["sce", "isce-m2", "center"]))
    second, _ = table(Cells(reversed(every), ["sce", "isce-m2", "center"]))
    assert first == second
    assert [row["claim"] for row in first] == sorted(row["claim"] for row in first)


def test_figures_have_an_interval_over_seeds_or_say_that_there_is_one_network():
    """Also where all seeds give the same."""
    several = accuracies(sce=network(), isce_m2=network(paper=[0.6, 0.7, 0.8]), center=network())
    single = Cells([cell for cell in several.all if cell.seed == "0"], several.labels)
    for found in (several, single):
        for row in table(found)[0]:
            if row["claim"][:2] in ("C2", "C4", "C6", "C8"):
                assert (claims.ONE in row["ours"]) == (found is single)
                assert ("±" in row["ours"]) == (found is several)
                assert row["ours"].count("±") == (row["ours"].count("[") if found is several else 0)
    (ours,) = (row["ours"] for row in table(several)[0] if row["claim"].startswith("C4"))
    assert "±24.8 under PGD-50" in ours  # t quantile with 2 degrees of freedom, 4.30, times 10 / sqrt(3)
    assert ours.endswith("±0.0 in the worst case")
