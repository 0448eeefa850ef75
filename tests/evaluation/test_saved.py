"""Saved adversarial points come back as they were, or not at all."""

from __future__ import annotations

import contextlib
import re

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save

from isce.evaluation.saved import load_points, save_points
from isce.files import RecordError, sha256


def points(n: int, shape=(1, 2, 2), seed: int = 0):
    generator = torch.Generator().manual_seed(seed)
    index = torch.randperm(2 * n + 1, generator=generator)[:n].sort().values
    return index, torch.rand(n, *shape, generator=generator)


def equal(one, two):
    return one.keys() == two.keys() and all(
        torch.equal(a, b) for label in one for a, b in zip(one[label], two[label], strict=True)
    )


LABELS = st.builds("{}@{:g}".format, st.sampled_from(["linf", "l2"]), st.floats(1e-9, 1e9))


@settings(max_examples=50, deadline=None)
@given(counts=st.dictionaries(LABELS, st.integers(0, 4), max_size=4))
def test_round_trip(tmp_path_factory, counts):
    path = tmp_path_factory.mktemp("saved") / "p.safetensors"
    given = {label: points(n, seed=n) for label, n in counts.items()}
    save_points(path, given)
    raw = path.read_bytes()
    assert equal(load_points(path, sha256(raw)), given)
    save_points(path, dict(reversed(given.items())))
    assert path.read_bytes() == raw


def test_threats_come_in_the_order_of_norm_and_eps(tmp_path):
    labels = ["linf@1", "linf@0.2", "l2@10", "linf@1e-05", "l2@2"]
    save_points(tmp_path / "p", {label: points(1) for label in labels})
    assert list(load_points(tmp_path / "p")) == ["l2@2", "l2@10", "linf@1e-05", "linf@0.2", "linf@1"]


def test_points_in_another_memory_layout_come_back_as_they_were(tmp_path):
    index, adversarial = points(3, (2, 4, 4))
    save_points(tmp_path / "p", {"l2@1": (index, adversarial.contiguous(memory_format=torch.channels_last))})
    assert torch.equal(load_points(tmp_path / "p")["l2@1"][1], adversarial)


INDEX, POINTS = points(2)
BAD = {
    "name": ({"linf 0.1": (INDEX, POINTS)}, "a threat is named like linf@0.1, l2@1.5 or spatial, got 'linf 0.1'"),
    "norm": ({"l1@0.1": (INDEX, POINTS)}, "got 'l1@0.1'"),
    "index type": ({"l2@1": (INDEX.int(), POINTS)}, "index of l2@1 must be int64"),
    "negative": ({"l2@1": (INDEX - 9, POINTS)}, "at least 0"),
    "twice": ({"l2@1": (INDEX * 0, POINTS)}, "rising strictly"),
    "points type": ({"l2@1": (INDEX, POINTS.double())}, "points of l2@1 must be float32"),
    "count": ({"l2@1": (INDEX[:1], POINTS)}, "must be float32 (1, C, H, W), got torch.float32 (2, 1, 2, 2)"),
    "shape": ({"l2@1": (INDEX, POINTS.flatten(1))}, "must be float32 (2, C, H, W)"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_is_no_set_of_points_is_neither_written_nor_read(tmp_path, case):
    given, message = BAD[case]
    with pytest.raises(ValueError, match=re.escape(message)):
        save_points(tmp_path / "p", given)
    assert not (tmp_path / "p").exists()
    arrays = {f"{label}/{part}": t for label, pair in given.items() for part, t in zip(("index", "points"), pair)}  # noqa: B905
    (tmp_path / "p").write_bytes(save(arrays))
    with pytest.raises(RecordError, match=re.escape(message)):
        load_points(tmp_path / "p")


@pytest.mark.parametrize("names", [["l2@1/index"], ["l2@1/points"], ["l2@1/index", "l2@1/points", "l2@1/more"], ["x"]])
def test_other_names_are_refused(tmp_path, names):
    (tmp_path / "p").write_bytes(save({name: POINTS.clone() for name in names}))
    with pytest.raises(RecordError, match="must hold <threat>/index and <threat>/points, it holds"):
        load_points(tmp_path / "p")


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(RecordError, match=r"can't read .*absent: No such file"):
        load_points(tmp_path / "absent")


@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_a_damaged_file_is_noticed_by_its_hash_and_never_ends_in_anything_but_a_clear_error(tmp_path_factory, data):
    path = tmp_path_factory.mktemp("damaged") / "p.safetensors"
    save_points(path, {"linf@0.1": points(2), "l2@1": points(0)})
    raw = bytearray(path.read_bytes())
    digest = sha256(bytes(raw))
    place = data.draw(st.integers(0, len(raw) - 1))
    if data.draw(st.booleans()):
        raw[place] ^= 1 << data.draw(st.integers(0, 7))
    else:
        del raw[place:]
    path.write_bytes(bytes(raw))
    with pytest.raises(RecordError, match="is damaged: its SHA-256 is"):
        load_points(path, digest)
    with contextlib.suppress(RecordError):  # a pixel may have changed unnoticed, without the hash
        load_points(path)
