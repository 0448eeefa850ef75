"""The rules that judge the claims: each gives every verdict that it can, and only both intervals make a difference."""

import json

import numpy as np
import pytest
from made_records import record
from scipy.stats import norm

from isce.files import ROOT
from isce.report import claims, verdicts
from isce.report.cells import Cell, Cells
from isce.report.differences import (
    CONTRADICTED,
    FLOOR,
    INCONCLUSIVE,
    SUPPORTED,
    UNTESTABLE,
    VERDICTS,
    difference,
    every,
)
from isce.report.key import Key
from isce.report.paper import CLAIMS
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


def analysed(label, separation=4.0, adversarial=1.0, seed=0, covered=1.0):
    region = {"separation": separation, "adversarial_separation": adversarial}
    threat = {"eps": 0.1, "n": 200, "gap": [{"m": 2.0, "covered": covered}], "region": {"all": region}}
    return label, record("minmax", f"{label}-s{seed}", results={"threats": {"linf@0.1": threat}})


def judged(found, minmax=(), costs=None, masks=None, **changes):
    made = claims.Judge(experiment(**changes), found, list(minmax), masks, *([costs] if costs else []))
    return {(verdict.claim, verdict.label): verdict for verdict in made.verdicts()}


def single(found):
    """The same with one seed."""
    return Cells([cell for cell in found.all if cell.seed == "0"], found.labels)


@pytest.mark.parametrize(
    ("paper", "worst", "verdict"),
    [
        (0.7, 0.6, SUPPORTED),
        (0.5, 0.7, SUPPORTED),
        (0.7, 0.4, CONTRADICTED),
        ([0.4, 0.5, 0.6], 0.5, INCONCLUSIVE),
        (0.7, 0.52, INCONCLUSIVE),  # two points of a thousand images may be chance
        (0.7, [0.9, 0.9, 0.31], INCONCLUSIVE),  # far apart, but not over seeds
        (0.7, [0.1, 0.1, 0.69], INCONCLUSIVE),
    ],
)
def test_c4_asks_for_both_intervals_in_the_worst_case(paper, worst, verdict):
    found = accuracies(sce=network(), isce_m2=network(paper=paper, worst=worst), center=network())
    assert judged(found)["C4", "isce-m2"].verdict == verdict


def test_c4_says_what_the_papers_attack_alone_shows():
    found = accuracies(sce=network(), isce_m2=network(paper=0.7, worst=0.4))
    verdict = judged(found)["C4", "isce-m2"]
    assert verdict.verdict == CONTRADICTED
    assert verdict.ours.endswith("under PGD-50 (supported)")


@pytest.mark.parametrize(("sce", "isce", "verdict"), [(0.0, 0.01, UNTESTABLE), (0.0, 0.011, SUPPORTED)])
def test_where_both_are_at_the_floor_nothing_can_be_tested(sce, isce, verdict):
    found = accuracies(sce=network(worst=sce), isce_m2=network(worst=isce), center=network())
    assert judged(found)["C4", "isce-m2"].verdict == verdict


def test_one_network_of_each_shows_no_difference_between_losses():
    found = single(accuracies(sce=network(worst=0.1), isce_m2=network(worst=0.9), center=network(worst=0.1)))
    verdicts = judged(found, [analysed("sce"), analysed("isce-m2", 9.0)])
    for claim in ("C3", "C4", "C6", "C8"):
        assert verdicts[claim, "isce-m2"].verdict == (UNTESTABLE if claim == "C8" else INCONCLUSIVE), claim
    assert verdicts["C1", "sce"].verdict == SUPPORTED, "about one loss"


def test_images_are_paired_where_the_same_were_attacked():
    """Two points of a thousand images are many where no image changed the other way."""
    place = np.arange(N)
    robust = {"sce": place < 500, "isce-m2": place < 520}
    masks = {f"{label}-s{seed}": {"linf@0.1": mask} for label, mask in robust.items() for seed in range(3)}
    found = accuracies(sce=network(), isce_m2=network(worst=0.52), center=network())
    assert judged(found, masks=masks)["C4", "isce-m2"].verdict == SUPPORTED
    assert judged(found)["C4", "isce-m2"].verdict == INCONCLUSIVE
    for broken in (masks["sce-s1"] | {"linf@0.1": place[:900] < 500}, {}):
        assert judged(found, masks=masks | {"sce-s1": broken})["C4", "isce-m2"].verdict == INCONCLUSIVE


@pytest.mark.parametrize(
    ("isce", "center", "verdict"),
    [
        (0.65, 0.5, SUPPORTED),
        (0.65, [0.3, 0.5, 0.9], INCONCLUSIVE),  # the best other on average may be below, and another not
        (0.65, 0.65, INCONCLUSIVE),
        (0.65, 0.7, CONTRADICTED),
        (0.005, 0.0, UNTESTABLE),
    ],
)
def test_c6_looks_at_the_best_of_the_others(isce, center, verdict):
    sce = 0.0 if isce < 0.1 else 0.55
    found = accuracies(sce=network(worst=sce), isce_m2=network(worst=isce), center=network(worst=center))
    found = judged(found)["C6", "isce-m2"]
    assert (found.verdict, found.first_rule) == (verdict, verdict)


@pytest.mark.parametrize(("worst", "first"), [(0.7, SUPPORTED), (0.3, CONTRADICTED), (0.5, INCONCLUSIVE)])
def test_c6_against_sce_alone_has_no_competitor_and_both_rules_are_shown(worst, first):
    found = accuracies(sce=network(), isce_m2=network(worst=worst))
    two = experiment().objectives[:2]
    verdict = judged(found, objectives=two)["C6", "isce-m2"]
    assert (verdict.first_rule, verdict.verdict) == (first, UNTESTABLE)
    made = verdicts.changed(claims.Judge(experiment(objectives=two), found, []), "evidence.")
    assert made.columns[2:] == ["first rule", "rule now"]
    assert [row[2:] for row in made.rows] == [[first, UNTESTABLE]]


@pytest.mark.parametrize(("worst", "verdict"), [(0.7, INCONCLUSIVE), (0.3, CONTRADICTED)])
def test_c6_is_not_supported_while_a_competitor_was_not_run(worst, verdict):
    objectives = [*experiment().objectives, {"name": "mmc"}]
    found = accuracies(sce=network(), isce_m2=network(worst=worst), center=network())
    found = judged(found, objectives=objectives)["C6", "isce-m2"]
    assert (found.verdict, found.first_rule) == (verdict, verdict)
    assert found.ours.endswith("; without MMC, of which there is no number")


@pytest.mark.parametrize("label", ["sce", "isce_m2", "center"])
def test_a_network_without_the_largest_eps_leaves_what_rests_on_it_untestable(label):
    """One plan's grid may end before another's, and a stale record's may."""
    several = {name: network() for name in ("sce", "isce_m2", "center")}
    del several[label][f"{WORST}@0.3"]
    found = judged(accuracies(**several), [analysed("sce")])
    resting = {claim: one for (claim, _), one in found.items()}["C1" if label == "sce" else "C2"]
    assert (resting.verdict, resting.ours) == (UNTESTABLE, "not evaluated: not run")
    assert ("C4", "isce-m2") in found


@pytest.mark.parametrize(
    ("last", "verdict"), [(0.0, SUPPORTED), (0.49, INCONCLUSIVE), ([0.0, 0.3, 0.6], INCONCLUSIVE), (0.8, CONTRADICTED)]
)
def test_c1_and_c2_ask_for_half_of_the_clean_accuracy_beyond_chance(last, verdict):
    found = accuracies(sce=network(last=last), isce_m2=network(last=0.8), center=network(last=last))
    found = judged(found, [analysed("sce")])
    assert (found["C1", "sce"].verdict, found["C2", "center"].verdict) == (verdict, verdict)


def test_c2_is_not_testable_where_i_sce_is_at_the_floor_too():
    networks = {"sce": network(last=0.6), "center": network(last=0.01)}
    for last, verdict in ((0.01, UNTESTABLE), (0.02, SUPPORTED)):
        found = judged(accuracies(**networks, isce_m2=network(last=last)))
        assert found["C2", "center"].verdict == verdict


def test_scatter_that_could_not_be_measured_is_not_judged():
    """A class with one image has no scatter of its own."""
    found = accuracies(sce=network(), isce_m2=network())
    for sce, own in ((None, 4.0), (4.0, None)):
        verdicts = judged(found, [analysed("sce", sce), analysed("isce-m2", own)])
        assert ("C3", "isce-m2") not in verdicts
        assert (("C1", "sce") in verdicts) == (sce is not None)


@pytest.mark.parametrize(
    ("own", "verdict"),
    [
        ([4.5, 4.6, 4.8], SUPPORTED),
        ([3.5, 3.4, 3.2], CONTRADICTED),
        ([3.5, 4.6, 4.8], INCONCLUSIVE),
        ([4.8], INCONCLUSIVE),
    ],
)
def test_c3_has_an_interval_over_seeds(own, verdict):
    minmax = [analysed("sce", 4.0, seed=seed) for seed in range(3)]
    minmax += [analysed("isce-m2", value, seed=seed) for seed, value in enumerate(own)]
    found = judged(accuracies(sce=network(), isce_m2=network()), minmax)["C3", "isce-m2"]
    assert found.verdict == verdict
    assert (claims.ONE in found.ours) == (len(own) == 1)


def test_c3_by_hand():
    """Differences 0.1, 0.2, 0.3: mean 0.2, and 4.3027 x 0.1 / sqrt(3) = 0.2484 to either side."""
    minmax = [analysed("sce", 4.0, seed=seed) for seed in range(3)]
    minmax += [analysed("isce-m2", 4.1 + seed / 10, seed=seed) for seed in range(3)]
    found = judged(accuracies(sce=network(), isce_m2=network()), minmax)["C3", "isce-m2"]
    assert "scatter 4.20, of SCE 4.00: +0.20 [-0.05, +0.45] over seeds" in found.ours


def test_c5_of_the_released_reading_cant_be_tested():
    objectives = [{"name": "sce"}, {"name": "isce-released"}]
    found = Cells(accuracies(sce=network(), isce_released=network()).all, ["sce", "isce-released"])
    assert judged(found, objectives=objectives)["C5", "isce-released"].verdict == UNTESTABLE


@pytest.mark.parametrize(
    ("covered", "verdict"),
    [([1.0], SUPPORTED), ([0.95], INCONCLUSIVE), ([0.9, 1.0], INCONCLUSIVE), ([0.8], UNTESTABLE), ([0.0], UNTESTABLE)],
)
def test_c5_where_our_stronger_statement_fails_the_papers_is_open(covered, verdict):
    minmax = [analysed("isce-m2", covered=share, seed=seed) for seed, share in enumerate(covered)]
    found = judged(accuracies(sce=network(), isce_m2=network()), minmax)["C5", "isce-m2"]
    assert found.verdict == verdict
    assert found.ours.startswith("our stronger statement is contradicted: ") == (verdict == UNTESTABLE)


def test_c7_reads_the_cost_of_a_step(tmp_path):
    found, file = accuracies(sce=network(), isce_m2=network()), tmp_path / "costs.json"
    assert judged(found, costs=file)["C7", "isce"].verdict == UNTESTABLE, "no measurement"
    for low, high, verdict in ((0.99, 1.04, SUPPORTED), (0.99, 1.06, INCONCLUSIVE), (1.06, 1.1, CONTRADICTED)):
        row = {"shape": "training step (1,)", "loss": "isce", "ratio": 1.0, "low": low, "high": high}
        file.write_text(json.dumps({"rows": [row]}))
        assert judged(found, costs=file)["C7", "isce"].verdict == verdict


@pytest.mark.parametrize(
    ("sce", "isce", "verdict"),
    [
        (0.2, 0.85, SUPPORTED),
        (0.2, 0.7, CONTRADICTED),
        (0.2, [0.6, 0.8, 0.95], INCONCLUSIVE),  # 63 points lie within the interval over seeds
        (0.2, 0.82, INCONCLUSIVE),  # 62 points: 63 lie within the interval over images
        (0.38, 0.38, UNTESTABLE),  # no room
        ([0.1, 0.8, 0.9], 0.9, INCONCLUSIVE),  # one network leaves room, the mean does not
        (0.36, 0.36, CONTRADICTED),
        (0.0, 0.0, UNTESTABLE),  # at the floor
    ],
)
def test_c8_looks_at_every_eps_that_leaves_room(sce, isce, verdict):
    found = accuracies(sce=network(paper=sce), isce_m2=network(paper=isce))
    assert judged(found)["C8", "isce-m2"].verdict == verdict


def test_c1_contradicted_by_scatter_that_does_not_fall():
    found = accuracies(sce=network(), isce_m2=network())
    assert judged(found, [analysed("sce", 4.0, 4.5)])["C1", "sce"].verdict == CONTRADICTED
    several = [analysed("sce", 4.0, lower, seed) for seed, lower in enumerate((3.0, 4.2))]
    assert judged(found, several)["C1", "sce"].verdict == INCONCLUSIVE


def test_adversarially_trained_networks_say_nothing_about_standard_training():
    training = {"dataset": "mnist", "adversarial": {"kind": "pgd", "eps": 0.3, "steps": 1, "step_size": 0.1}}
    verdicts = judged(accuracies(sce=network(), isce_m2=network()), [analysed("sce")], training=training)
    assert {claim for claim, _ in verdicts}.isdisjoint({"C1", "C2", "C8"})
    digits = judged(accuracies(sce=network(), isce_m2=network()), training={"dataset": "digits"})
    assert "C8" not in {claim for claim, _ in digits}, "C8 is about MNIST"


def test_a_claim_with_parts():
    assert every(SUPPORTED, SUPPORTED) == SUPPORTED
    assert every(SUPPORTED, INCONCLUSIVE) == INCONCLUSIVE
    assert every(INCONCLUSIVE, UNTESTABLE, SUPPORTED) == UNTESTABLE
    assert every(UNTESTABLE, CONTRADICTED, SUPPORTED) == CONTRADICTED


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
    pair = difference(found, "isce-m2", "sce", Key("clean"))
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
    pair = difference(found, "isce-m2", "sce", Key("clean"))
    assert pair.value == pytest.approx(0.1)
    assert pair.seeds is None
    assert difference(found, "isce-m2", "sce", Key.at("worst", 0.1)) is None


def test_the_book_knows_every_verdict():
    written = (ROOT / "book" / "_ext" / "isce_tables.py").read_text(encoding="utf-8")
    assert all(f'"{verdict}": ' in written for verdict in VERDICTS)
    page = (ROOT / "book" / "verdict.md").read_text(encoding="utf-8")
    assert all(f"\n*{verdict}*\n: " in page for verdict in VERDICTS)
    assert f"at most {100 * FLOOR:g}% accuracy" in page


def table(found, name="mnist"):
    """Rows of the verdicts' table, as mappings from column to cell, and its caption."""
    made = verdicts.verdicts(claims.Judge(load_experiment(name), found, []), "evidence.")
    return [dict(zip(made.columns, row, strict=True)) for row in made.rows], made.caption


def test_every_claim_is_explained_and_the_table_names_each_row():
    assert list(CLAIMS) == [f"C{i}" for i in range(1, 9)]
    rows, caption = table(accuracies(sce=network(), isce_m2=network(), center=network()))
    assert rows
    assert all(row["claim"][:2] in CLAIMS and all(row.values()) for row in rows)
    assert caption.endswith("evidence.")


def test_the_table_says_where_a_verdict_is_from_what_it_is_about_and_what_was_reported():
    rows, _ = table(accuracies(sce=network(), isce_m2=network(), center=network()))
    found = {row["claim"][:2]: row for row in rows}
    assert found["C4"]["experiment (data)"] == "mnist (MNIST)"
    assert found["C7"]["experiment (data)"].startswith("benchmarks/losses.py")
    assert found["C4"]["of"] == "I-SCE (text, m = 2)"
    assert found["C4"]["verdict"] == INCONCLUSIVE
    assert found["C2"]["of"] == "center loss"
    assert {name: row["reported by the paper"].split(" (")[0] for name, row in found.items()} == {
        name: "+63 points" if name == "C8" else "no number known" for name in found
    }
    assert found["C4"]["deviation"] == CLAIMS["C4"].differs


def test_rows_come_in_the_order_of_the_claims_whatever_the_order_of_the_records():
    every = accuracies(sce=network(), isce_m2=network(paper=0.7), center=network()).all
    first, _ = table(Cells(every, ["sce", "isce-m2", "center"]))
    second, _ = table(Cells(reversed(every), ["sce", "isce-m2", "center"]))
    assert first == second
    assert [row["claim"] for row in first] == sorted(row["claim"] for row in first)


def test_figures_have_an_interval_over_seeds_or_say_that_there_is_one_network():
    """Also where all seeds give the same."""
    several = accuracies(sce=network(), isce_m2=network(paper=[0.6, 0.7, 0.8]), center=network())
    alone = single(several)
    for found in (several, alone):
        for row in table(found)[0]:
            if row["claim"][:2] in ("C2", "C4", "C6", "C8"):
                assert (claims.ONE in row["ours"]) == (found is alone)
                assert ("±" in row["ours"]) == (found is several)
                assert row["ours"].count("±") == (row["ours"].count("[") if found is several else 0)
    (ours,) = (row["ours"] for row in table(several)[0] if row["claim"].startswith("C4"))
    assert "±24.8 under PGD-50" in ours  # t quantile with 2 degrees of freedom, 4.30, times 10 / sqrt(3)
    assert "±0.0 in the worst case" in ours
