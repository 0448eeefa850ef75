"""Embeddings against class means, by hand and by invariance."""

import pytest
import torch

from isce.explain import embeddings_seen

MEANS = torch.tensor([[0.0, 0, 0], [4, 0, 0], [0, 2, 0]])
LABELS = torch.tensor([0, 0, 1, 1, 2, 2])
OFFSET = torch.tensor([[0.0, 0, 0.5], [0, 0, -0.5]]).repeat(3, 1)


def clean():
    return MEANS[LABELS] + OFFSET


def test_standing_still_moves_nothing():
    found = embeddings_seen(clean(), clean(), LABELS)
    assert found.moved.tolist() == [0.0] * 6
    assert found.nearest == (1.0, 1.0)
    assert found.separation == pytest.approx(found.adversarial_separation)
    assert found.shown == pytest.approx(1), "three means lie in a plane"


def test_half_way_to_the_nearest_mean_is_1():
    moved = clean()
    moved[0] += torch.tensor([0.0, 1, 0])  # the means of 0 and 2 are 2 apart
    moved[2] += torch.tensor([-4.0, 0, 0])  # 1 and 0 are 4 apart
    found = embeddings_seen(clean(), moved, LABELS)
    assert found.moved[0] == pytest.approx(1)
    assert found.moved[2] == pytest.approx(2)
    assert found.nearest == (1.0, pytest.approx(4 / 6)), "the first is on the line between, the third at another mean"
    own, other = found.distances[1, 0]
    assert own == pytest.approx(other)


def test_plane_keeps_distances_up_to_one_factor_and_turns_with_the_embedding():
    found = embeddings_seen(clean(), clean(), LABELS)
    means = torch.stack([found.plane[0, k == LABELS].mean(0) for k in range(3)])
    ratio = torch.cdist(means, means) / torch.cdist(MEANS.double(), MEANS.double()).fill_diagonal_(1)
    off = ratio[~torch.eye(3, dtype=torch.bool)]
    assert torch.allclose(off, off[0].expand(6))
    turn, _ = torch.linalg.qr(torch.randn(3, 3, generator=torch.Generator().manual_seed(0)))
    turned = embeddings_seen(clean() @ turn * 5, clean() @ turn * 5, LABELS)
    assert torch.allclose(turned.distances, found.distances, atol=1e-5)
    assert torch.allclose(turned.plane.abs(), found.plane.abs(), atol=1e-5)


def test_two_classes_are_refused():
    with pytest.raises(ValueError, match="at least 3 classes are needed, got 2"):
        embeddings_seen(clean()[:4], clean()[:4], LABELS[:4])
