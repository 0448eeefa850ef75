"""What holds for every defence: it goes with an objective or refuses it by name, and draws from the run alone."""

from __future__ import annotations

import pytest
import torch
from defence_batches import digits_batch
from short_training import KilledError, contents, few, run

from isce import defences, losses
from isce.parameters.training import TrainParameters

every = pytest.mark.parametrize("name", defences.names())


def begun(name, batch, objective="sce"):
    """A defence that has taken over what it needs, and drawn."""
    defence = defences.build(name)
    if defence.before() is not None:
        defence.begin(batch.classifier, digits_batch(objective).classifier)
    defence.draw(batch.classifier, batch.draws)
    return defence


def fits(name, objective):
    try:
        defences.build(name).check(losses.build(objective))
    except ValueError:
        return False
    return True


@every
@pytest.mark.parametrize("objective", losses.names())
def test_it_gives_every_weight_a_finite_gradient_or_refuses_the_objective(name, objective):
    if not fits(name, objective):
        with pytest.raises(ValueError, match=f"{name}.*{objective}"):
            TrainParameters.model_validate({"defence": {"name": name}, "objective": {"name": objective}})
        return
    batch = digits_batch(objective, defence=name)
    defence = begun(name, batch, objective)
    loss, logits = defence.loss(batch)
    assert loss.shape == ()
    assert (len(logits), logits.shape[1] - 10) in ((len(batch.y), 0), (len(batch.y), 1))  # and rejection
    learnt = [p for p in defence.learnt(batch.classifier, batch.objective) if p.requires_grad]
    learnt = [p for p in learnt if any(p is own for own in batch.classifier.parameters())]
    for slope in torch.autograd.grad(loss, learnt):
        assert slope.isfinite().all()
        assert slope.abs().sum() > 0


@every
def test_the_same_draws_give_the_same_loss_whatever_the_global_generator_holds(name):
    found = []
    for seed in (0, 1):
        batch = digits_batch(seed=5, defence=name)
        defence = begun(name, batch)
        torch.manual_seed(seed)
        before = torch.random.get_rng_state()
        found.append(defence.loss(batch)[0].item())
        assert torch.equal(before, torch.random.get_rng_state())
    assert found[0] == found[1]


@pytest.mark.parametrize("name", ["augmix", "mixup", "noisy-softmax", "one-step", "vat"])
def test_other_draws_give_another_loss(name):
    first, second = (defences.build(name).loss(digits_batch(seed=seed))[0] for seed in (0, 1))
    assert first != second


@every
def test_images_are_left_as_they_were(name):
    batch = digits_batch(defence=name)
    x = batch.x.clone()
    begun(name, batch).loss(batch)
    assert torch.equal(batch.x, x)
    assert not batch.x.requires_grad
    assert all(p.grad is None for p in batch.classifier.parameters())


@every
def test_a_batch_of_one_image_will_do(name):
    batch = digits_batch(n=1, defence=name)
    loss, logits = begun(name, batch).loss(batch)
    assert loss.isfinite()
    assert len(logits) == 1


@every
def test_it_trains_and_a_killed_run_goes_on_to_the_same_bits(name, tmp_path):
    small, changes = few(70, 20), {"defence": {"name": name}, "optimizer": {"lr": 0.01}}
    whole = run(tmp_path / "whole", small, **changes)
    assert whole.diverged is None
    assert len(whole.history) == 2
    with pytest.raises(KilledError):
        run(tmp_path / "killed", small, kill=1, **changes)
    rest = run(tmp_path / "killed", small, **changes)
    assert (rest.resumed, rest.history) == (1, whole.history)
    assert contents(tmp_path / "killed") == contents(tmp_path / "whole")
