"""AugMix: the divergence in closed form, the loss written out, and what the mixtures are."""

from __future__ import annotations

import math

import pytest
import torch
from defence_batches import batch_of, digits_batch
from pixels import linear
from scipy.spatial.distance import jensenshannon

from isce.compat import import_transforms
from isce.defences import augmix
from isce.defences.augmix import AugMix
from isce.defences.base import seeded

divergence = augmix._divergence  # pyright: ignore[reportPrivateUsage]


def test_the_divergence_in_closed_form():
    sure = 200 * torch.eye(3)
    same, apart = [sure[:1]] * 3, [sure[k : k + 1] for k in range(3)]
    torch.testing.assert_close(divergence(same), torch.tensor(0.0))
    torch.testing.assert_close(divergence(apart), torch.tensor(math.log(3)))


def test_the_divergence_of_two_is_scipys():
    draws = torch.Generator().manual_seed(0)
    first, second = torch.randn(2, 5, 4, generator=draws, dtype=torch.float64)
    expected = jensenshannon(first.softmax(1).numpy(), second.softmax(1).numpy(), axis=1) ** 2
    assert divergence([first, second]).item() == pytest.approx(expected.mean())


def test_its_gradient_is_finite_where_float32_holds_no_probability():
    logits = [torch.tensor([[300.0, 0.0]]), torch.tensor([[0.0, 300.0]]), torch.tensor([[0.0, 0.0]])]
    leaves = [one.requires_grad_() for one in logits]
    slopes = torch.autograd.grad(divergence(leaves), leaves)
    assert all(slope.isfinite().all() for slope in slopes)


def test_is_the_loss_written_out():
    batch = digits_batch(n=20, seed=4)
    loss, logits = AugMix(lam=5.0).loss(batch)
    again = digits_batch(n=20, seed=4)
    with seeded(again.seed()):
        views = [again.x, *(AugMix().augmented(again.x) for _ in range(2))]
    p = [again.outputs(view)[0].softmax(1) for view in views]
    mean = sum(p) / 3
    between = torch.stack([(one * (one / mean).log()).sum(1) for one in p]).mean(0)
    plain = again.objective(again.outputs(again.x)[0], again.y)
    torch.testing.assert_close(loss, plain + 5.0 * between.mean(), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(logits, again.outputs(again.x)[0], rtol=1e-4, atol=1e-5)


def test_mixtures_are_whole_bytes_in_the_box_and_differ_from_draw_to_draw():
    x = digits_batch(n=40).x
    with seeded(0):
        first, second = AugMix().augmented(x), AugMix().augmented(x)
    assert first.shape == x.shape
    assert first.dtype == x.dtype
    assert 0 <= first.min() < first.max() <= 1
    torch.testing.assert_close(first * 255, (first * 255).round())
    changed = ((first - x).flatten(1).abs().amax(1) > 2 / 255) & ((first - second).flatten(1).abs().amax(1) > 2 / 255)
    assert changed.float().mean() > 0.7


def test_groups_have_operations_of_their_own(monkeypatch):
    seen = []
    kind = import_transforms().AugMix
    apply = kind._apply_image_or_video_transform

    def spy(self, image, transform_id, magnitude, **more):
        seen.append((len(image), transform_id))
        return apply(self, image, transform_id, magnitude, **more)

    monkeypatch.setattr(kind, "_apply_image_or_video_transform", spy)
    x = digits_batch(n=40).x
    with seeded(0):
        AugMix().augmented(x)
    assert [n for n, _ in seen] == sorted((n for n, _ in seen), reverse=True)  # 16, 16, then 8 images
    assert {n for n, _ in seen} == {16, 8}
    assert 3 * 3 <= len(seen) <= 3 * 9  # three groups of three chains of one to three operations
    assert not {name for _, name in seen} & {"Brightness", "Color", "Contrast", "Sharpness"}


def test_with_weight_0_only_the_images_as_they_are_count():
    batch = digits_batch()
    plain = batch.objective(batch.outputs(batch.x)[0], batch.y)
    torch.testing.assert_close(AugMix(lam=0.0).loss(batch)[0], plain)


def test_colour_images_too():
    x = torch.rand(3, 3, 8, 8, generator=torch.Generator().manual_seed(0)).double()
    loss, _ = AugMix().loss(batch_of(linear(torch.eye(192)[:4].tolist(), shape=(3, 8, 8)), x, [0, 1, 2]))
    assert loss.isfinite()
