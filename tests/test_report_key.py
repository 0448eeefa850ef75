"""Keys of numbers are read as they are written, and accuracies have one format."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isce.attacks.spec import Threat
from isce.evaluation import percent
from isce.files import ROOT
from isce.report.key import Key, split_run

words = st.from_regex(r"[a-z][a-z0-9.-]{0,8}[a-z0-9]", fullmatch=True)
sizes = st.floats(1e-6, 1e3).map(lambda eps: f"{eps:g}")
threats = st.one_of(
    st.tuples(st.just(""), sizes | st.just("main")),
    st.tuples(st.sampled_from(["l0", "l2"]), sizes),
    st.tuples(st.sampled_from(["spatial", "released", ""]), st.just("")),
)


@given(st.sampled_from(["attack", "hit", "explain"]), words, threats, words | st.just(""))
def test_a_key_is_read_as_it_is_written(kind, row, threat, label):
    key = Key(kind, row, *threat, label=label)
    assert Key.parse(str(key)) == key


@given(st.text(max_size=20))
def test_whatever_can_be_read_is_written_the_same(text):
    try:
        key = Key.parse(text)
    except ValueError:
        return
    assert str(key) == text


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("clean", Key("clean")),
        ("worst@0.1", Key("worst", eps="0.1")),
        ("attack:pgd50-training@l0@20", Key("attack", "pgd50-training", "l0", "20")),
        ("hit:cw100-targeted@1e-05", Key("hit", "cw100-targeted", eps="1e-05")),
        ("sce.worst@main", Key("worst", eps="main", label="sce")),
        ("lgm-alpha0.1.attack:released50-training-step0.02@released",
         Key("attack", "released50-training-step0.02", "released", label="lgm-alpha0.1")),
        ("isce-m2.explain:adversarial_nearest", Key("explain", "adversarial_nearest", label="isce-m2")),
    ],
)  # fmt: skip
def test_keys_by_hand(text, key):
    assert Key.parse(text) == key
    assert str(key) == text


@pytest.mark.parametrize("text", ["", "n_images", "eps_main", "worst@", "worst@main@0.1", "sce", "attack:@0.1"])
def test_what_is_no_key_is_refused(text):
    with pytest.raises(ValueError, match="expected <objective>"):
        Key.parse(text)


@pytest.mark.parametrize(("norm", "eps"), [("linf", 0.1), ("linf", 8 / 255), ("l0", 20), ("spatial", 1)])
def test_a_threat_of_a_record_is_a_keys(norm, eps):
    threat = Threat(norm, eps).label
    key = Key.under("worst", threat, "linf")
    assert key.threat("linf") == threat
    assert (key.norm == "") == (norm == "linf")
    assert Key.parse(str(key)) == key


@given(words, st.integers(0, 99))
def test_the_name_of_a_run(label, seed):
    assert split_run(f"{label}-s{seed}") == (label, str(seed))


def test_accuracies_as_text():
    assert percent(0.4312) == "43.1"
    assert percent(0.4312, unit="%") == "43.1%"
    assert percent(0.4312, (0.402, 0.46)) == "43.1 [40.2, 46.0]"
    assert percent(0.4312, (0.402, 0.46), 0.0123) == "43.1 [40.2, 46.0] ±1.2"
    assert percent(0.02, (-0.01, 0.05), 0.0, unit=" points", sign="+") == "+2.0 points [-1.0, +5.0] ±0.0"


def test_keys_are_taken_apart_in_one_place():
    """No module of the report or the book splits a key or the name of a run by itself."""
    for folder in ("isce/report", "book/_ext"):
        for path in (ROOT / folder).glob("*.py"):
            text = path.read_text(encoding="utf-8")
            assert path.name == "key.py" or not any(
                split in text for split in ('rsplit("-s"', 'partition(":")', '"attack:"', 'endswith("-training")')
            )
