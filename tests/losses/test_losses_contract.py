"""Every registered objective behaves as torch's cross-entropy does; an exemption must be declared by it, and real."""

from __future__ import annotations

import math

import pytest
import torch
from loss_cases import CASES, make
from loss_problems import C, D, N, every, every_variant, problem
from torch import Tensor, nn

from isce import losses


def test_every_registered_objective_is_covered():
    assert set(CASES) == set(losses.names())


@every
def test_exemptions_come_with_a_reason(name):
    exempt = losses.build(name).exempt
    # Each of them is looked at below, "soft" in test_losses_soft.
    assert set(exempt) <= {"vmap", "trailing", "label_smoothing", "soft"}
    assert all(len(reason.split()) > 3 for reason in exempt.values())


@every
@pytest.mark.parametrize("ignored", [False, True])
def test_reductions_are_those_of_torch(name, ignored):
    logits, target, embedding = problem(name)
    target = target.clone()
    if ignored:
        target[[1, 4]] = -7
    for weight in (None, torch.tensor([1.0, 2.0, 0.5, 0.0], dtype=torch.float64)):

        def run(reduction: str, weight: Tensor | None = weight) -> Tensor:
            return make(name, weight=weight, ignore_index=-7, reduction=reduction)(logits, target, embedding)

        each = run("none")
        assert each.shape == target.shape
        assert torch.equal(each, make(name, weight=weight, ignore_index=-7).per_example(logits, target, embedding))
        # torch's own cross-entropy says how a mean is weighted: of a loss of 1 for each example it must be 1.
        share = torch.nn.functional.cross_entropy(
            torch.zeros(N, C).double(), target, weight=weight, ignore_index=-7, reduction="none"
        ) / math.log(C)
        torch.testing.assert_close(run("sum"), each.sum())
        torch.testing.assert_close(run("mean"), each.sum() / share.sum())


@every
def test_class_weight_multiplies_an_examples_whole_loss(name):
    logits, target, embedding = problem(name)
    weight = torch.tensor([3.0, 0.5, 0.0, 2.0], dtype=torch.float64)
    plain = make(name, label_smoothing=0.0).per_example(logits, target, embedding)
    heavy = make(name, label_smoothing=0.0, weight=weight).per_example(logits, target, embedding)
    torch.testing.assert_close(heavy, plain * weight[target])


@every_variant
@pytest.mark.parametrize("held", [math.nan, math.inf])
def test_ignoring_an_example_is_leaving_it_out_whatever_it_holds(name, params, held):
    """Loss and gradients of the others are those without it; its own are 0 (torch's own gradient there is NaN)."""
    logits, target, embedding = problem(name)
    target[2], target[4] = -100, -100
    kept = target != -100
    for values in (logits, embedding):
        values[2], values[4, 1] = held, held
    options = {"weight": [1.0, 2.0, 0.5, 1.5]}
    if "label_smoothing" not in losses.build(name).exempt:
        options["label_smoothing"] = 0.2
    for reduction in ("none", "mean", "sum"):
        objective = make(name, **params | options, reduction=reduction)
        for function in (objective, objective.matched):
            found, expected = [], []
            for result, mask in ((found, torch.ones(N, dtype=torch.bool)), (expected, kept)):
                inputs = (logits.clone().requires_grad_(), embedding.clone().requires_grad_())
                value = function(inputs[0][mask], target[mask], inputs[1][mask])
                gradients = torch.autograd.grad(value.sum(), inputs, allow_unused=True)
                if value.dim() and mask.all():
                    assert (value[~kept] == 0).all()
                    value = value[kept]
                result += [value.detach(), *(torch.zeros(()) if g is None else g for g in gradients)]
            torch.testing.assert_close(found, expected)
            assert all(bool(part.isfinite().all()) for part in found)


@every
def test_ignored_label_can_be_a_class(name):
    logits, target, embedding = problem(name)
    kept = target != 2
    objective = make(name, ignore_index=2)
    expected = objective.per_example(logits[kept], target[kept], embedding[kept])
    torch.testing.assert_close(objective(logits, target, embedding), expected.mean())
    assert (objective.per_example(logits, target, embedding)[~kept] == 0).all()
    assert (objective.matched(logits, target, embedding)[~kept] == 0).all()


@every
def test_mean_over_ignored_examples_alone_is_nan_as_in_torch(name):
    logits, _, embedding = problem(name)
    assert make(name)(logits, torch.full((N,), -100), embedding).isnan()


@every
def test_trailing_dimensions(name):
    objective = make(name)
    generator = torch.Generator().manual_seed(0)
    logits = (2 * torch.rand(2, C, 3, 2, generator=generator) - 1) * CASES[name].bound
    target = torch.randint(C, (2, 3, 2), generator=generator)
    target[1, 1, 1] = -100
    if "trailing" in objective.exempt:
        with pytest.raises(ValueError, match="labels must be"):
            objective(logits, target, torch.zeros(2, D))
        return
    flat = logits.movedim(1, -1).reshape(-1, C)
    for function in (objective.per_example, objective.matched):
        expected = function(flat, target.reshape(-1)).reshape(target.shape)
        torch.testing.assert_close(function(logits, target), expected)
    torch.testing.assert_close(objective(logits, target), objective(flat, target.reshape(-1)))


@every_variant
def test_vmap_over_the_batch(name, params):
    logits, target, embedding = problem(name)
    target[1] = -100
    objective = make(name, **params, weight=[1.0, 2.0, 0.5, 1.5])
    together = objective.per_example(logits, target, embedding)
    if "vmap" in objective.exempt:
        with pytest.raises(ValueError, match="labels must be"):
            torch.func.vmap(objective.per_example)(logits, target, embedding)
        return
    torch.testing.assert_close(torch.func.vmap(objective.per_example)(logits, target, embedding), together)
    torch.testing.assert_close(
        torch.func.vmap(objective.matched)(logits, target, embedding), objective.matched(logits, target, embedding)
    )
    one_by_one = torch.func.vmap(torch.func.grad(objective.per_example))(logits, target, embedding)
    logits.requires_grad_()
    (at_once,) = torch.autograd.grad(objective.per_example(logits, target, embedding).sum(), logits)
    torch.testing.assert_close(one_by_one, at_once)


@every
def test_vmap_over_an_ensemble(name):
    """A batch of batches, for every objective: examples of one batch stay together."""
    problems = [problem(name, seed) for seed in range(3)]
    logits, target, embedding = (torch.stack(parts) for parts in zip(*problems, strict=True))
    objective = make(name)
    expected = torch.stack([objective(*p) for p in problems])
    torch.testing.assert_close(torch.func.vmap(objective)(logits, target, embedding), expected)


@every_variant
def test_state_dict_round_trip(name, params):
    weight = torch.tensor([1.0, 2.0, 0.5, 1.5])
    saved = make(name, **params, weight=weight)
    inference = params.get("inference")
    other = {"inference": torch.zeros_like(saved.inference)} if isinstance(inference, list) else {}
    fresh = losses.build(name, **params | other, weight=[1.0] * C)
    torch.manual_seed(1)
    maps = saved.score_map(D, C), fresh.score_map(D, C)
    for old, new in ((saved, fresh), maps):
        if isinstance(old, losses.CenterLoss):
            old.centres = torch.randn(C, D)
        state = {key: value.clone() for key, value in old.state_dict().items()}
        new.load_state_dict(state, strict=True)
        assert all(torch.equal(value, state[key]) for key, value in new.state_dict().items())
    embedding, target = torch.randn(N, D), torch.tensor([0, 1, 2, 3, 0, 1])
    results = [o.eval()(m(embedding), target, embedding) for o, m in zip((saved, fresh), maps, strict=True)]
    assert torch.equal(*results)


@every
def test_matched_is_the_decision(name):
    logits, target, embedding = problem(name)
    objective = make(name)
    expected = [
        max(v for k, v in enumerate(row) if k != y) - row[y]
        for row, y in zip(logits.tolist(), target.tolist(), strict=True)
    ]
    value = objective.matched(logits, target, embedding)
    torch.testing.assert_close(value, torch.tensor(expected).double())
    assert torch.equal(value > 0, logits.argmax(1) != target)


@every
def test_training_with_its_own_logits_learns(name):
    """Loss and decision agree: descent on the loss gives a classifier that is right by the arg-max of the logits."""
    torch.manual_seed(0)
    target = torch.arange(60) % 3
    points = torch.tensor([[2.0, 0], [-1, 1.7], [-1, -1.7]])[target] + 0.3 * torch.randn(60, 2)
    objective = losses.build(name)
    backbone = nn.Sequential(nn.Linear(2, 16), nn.Tanh(), nn.Linear(16, 4))
    logits = objective.score_map(4, 3)
    weights = [p for module in (backbone, logits, objective) for p in module.parameters()]
    optimizer = torch.optim.Adam(weights, lr=0.05)
    for _ in range(30):
        embedding = backbone(points)
        loss = objective(logits(embedding), target, embedding)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        embedding = backbone(points)
        outputs = logits(embedding)
    assert (outputs.argmax(1) == target).double().mean() >= 0.95
    assert (objective.matched(outputs, target, embedding) < 0).double().mean() >= 0.95
