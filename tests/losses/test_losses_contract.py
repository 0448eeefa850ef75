"""Every registered objective behaves as torch's cross-entropy does; an exemption must be declared by it, and real."""

from __future__ import annotations

import math
from collections.abc import Iterator

import pytest
import torch
from loss_cases import CASES, make
from loss_problems import C, D, N, every, every_variant, problem
from torch import Tensor, nn

from isce import losses


@pytest.fixture
def fresh_compiler() -> Iterator[None]:
    """Each objective is compiled anew, so that none counts towards another's limit of recompilations."""
    torch.compiler.reset()
    yield
    torch.compiler.reset()


def test_every_registered_objective_is_covered():
    assert set(CASES) == set(losses.names())


@every
def test_exemptions_come_with_a_reason(name):
    exempt = losses.build(name).exempt
    assert set(exempt) <= {"vmap", "trailing", "label_smoothing"}  # each of them is looked at below
    assert all(len(reason.split()) > 3 for reason in exempt.values())


@every
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("ignored", [False, True])
def test_reductions_are_those_of_torch(name, weighted, ignored):
    scores, target, embedding = problem(name)
    target = target.clone()
    if ignored:
        target[[1, 4]] = -7
    weight = torch.tensor([1.0, 2.0, 0.5, 0.0], dtype=torch.float64) if weighted else None

    def run(reduction: str) -> Tensor:
        return make(name, weight=weight, ignore_index=-7, reduction=reduction)(scores, target, embedding)

    each = run("none")
    assert each.shape == target.shape
    assert torch.equal(each, make(name, weight=weight, ignore_index=-7).per_example(scores, target, embedding))
    # torch's own cross-entropy says how a mean is weighted: of a loss of 1 for each example it must be 1.
    share = torch.nn.functional.cross_entropy(
        torch.zeros(N, C).double(), target, weight=weight, ignore_index=-7, reduction="none"
    ) / math.log(C)
    torch.testing.assert_close(run("sum"), each.sum())
    torch.testing.assert_close(run("mean"), each.sum() / share.sum())


@every
def test_class_weight_multiplies_an_examples_whole_loss(name):
    scores, target, embedding = problem(name)
    weight = torch.tensor([3.0, 0.5, 0.0, 2.0], dtype=torch.float64)
    plain = make(name, label_smoothing=0.0).per_example(scores, target, embedding)
    heavy = make(name, label_smoothing=0.0, weight=weight).per_example(scores, target, embedding)
    torch.testing.assert_close(heavy, plain * weight[target])


@every
@pytest.mark.parametrize("label", [-100, 2])
def test_ignoring_an_example_is_leaving_it_out(name, label):
    scores, target, embedding = problem(name)
    target = torch.where(torch.tensor([0, 0, 1, 0, 1, 0]).bool(), label, target)
    kept = target != label
    objective = make(name, ignore_index=label)
    inputs = (scores.requires_grad_(), embedding.requires_grad_())
    expected = objective.per_example(scores[kept], target[kept], embedding[kept])
    for function in (objective.per_example, objective.matched):
        value = function(scores, target, embedding)
        gradients = torch.autograd.grad(value.sum(), inputs, allow_unused=True)
        assert (value[~kept] == 0).all()
        assert all(g is None or bool((g[~kept] == 0).all()) for g in gradients)
    torch.testing.assert_close(objective.per_example(scores, target, embedding)[kept], expected)
    torch.testing.assert_close(objective(scores, target, embedding), expected.mean())


@every
def test_mean_over_ignored_examples_alone_is_nan_as_in_torch(name):
    scores, _, embedding = problem(name)
    assert make(name)(scores, torch.full((N,), -100), embedding).isnan()


@every
def test_trailing_dimensions(name):
    objective = make(name)
    generator = torch.Generator().manual_seed(0)
    scores = (2 * torch.rand(2, C, 3, 2, generator=generator) - 1) * CASES[name].bound
    target = torch.randint(C, (2, 3, 2), generator=generator)
    if "trailing" in objective.exempt:
        with pytest.raises(ValueError, match="labels must be"):
            objective(scores, target, torch.zeros(2, D))
        return
    flat = scores.movedim(1, -1).reshape(-1, C)
    for function in (objective.per_example, objective.matched):
        expected = function(flat, target.reshape(-1)).reshape(target.shape)
        torch.testing.assert_close(function(scores, target), expected)
    torch.testing.assert_close(objective(scores, target), objective(flat, target.reshape(-1)))


@pytest.mark.usefixtures("fresh_compiler")
@every_variant
def test_compiles_as_one_graph(name, params):
    scores, target, embedding = problem(name, dtype=torch.float32)
    objective = make(name, **params)
    # This backend runs the whole tracer (forward and backward in one graph each) and needs no C++ compiler.
    compiled = torch.compile(objective, backend="aot_eager", fullgraph=True)
    results = []
    for function in (objective, compiled):
        inputs = (scores.clone().requires_grad_(), embedding.clone().requires_grad_())
        loss = function(inputs[0], target, inputs[1])
        results.append((loss.detach(), *torch.autograd.grad(loss, inputs, allow_unused=True)))
    for eager, traced in zip(*results, strict=True):
        assert (eager is None) == (traced is None)
        if eager is not None:
            torch.testing.assert_close(eager, traced)


@pytest.mark.usefixtures("fresh_compiler")
@every
def test_compiles_as_one_graph_when_numbers_and_batches_change(name):
    """The tracer turns a number that has changed once into an unknown: then nothing may depend on its value."""
    scores, target, embedding = problem(name, dtype=torch.float32)
    for step in range(3):
        objective = make(name)
        for key, value in [item for item in vars(objective).items() if type(item[1]) is float]:
            setattr(objective, key, value * (1 - 0.1 * step))
        batch = scores[: N - step], target[: N - step], embedding[: N - step]
        compiled = torch.compile(objective, backend="aot_eager", fullgraph=True)
        torch.testing.assert_close(compiled(*batch), objective(*batch))


@pytest.mark.usefixtures("fresh_compiler")
@every
def test_matched_compiles_as_one_graph(name):
    scores, target, embedding = problem(name, dtype=torch.float32)
    objective = make(name)
    compiled = torch.compile(objective.matched, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(compiled(scores, target, embedding), objective.matched(scores, target, embedding))


@every_variant
def test_vmap_over_the_batch(name, params):
    scores, target, embedding = problem(name)
    objective = make(name, **params, weight=[1.0, 2.0, 0.5, 1.5])
    together = objective.per_example(scores, target, embedding)
    if "vmap" in objective.exempt:
        with pytest.raises(ValueError, match="labels must be"):
            torch.func.vmap(objective.per_example)(scores, target, embedding)
        return
    torch.testing.assert_close(torch.func.vmap(objective.per_example)(scores, target, embedding), together)
    torch.testing.assert_close(
        torch.func.vmap(objective.matched)(scores, target, embedding), objective.matched(scores, target, embedding)
    )
    one_by_one = torch.func.vmap(torch.func.grad(objective.per_example))(scores, target, embedding)
    scores.requires_grad_()
    (at_once,) = torch.autograd.grad(objective.per_example(scores, target, embedding).sum(), scores)
    torch.testing.assert_close(one_by_one, at_once)


@every
def test_vmap_over_an_ensemble(name):
    """A batch of batches, for every objective: examples of one batch stay together."""
    problems = [problem(name, seed) for seed in range(3)]
    scores, target, embedding = (torch.stack(parts) for parts in zip(*problems, strict=True))
    objective = make(name)
    expected = torch.stack([objective(*p) for p in problems])
    torch.testing.assert_close(torch.func.vmap(objective)(scores, target, embedding), expected)


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
    scores, target, embedding = problem(name)
    objective = make(name)
    expected = [
        max(v for k, v in enumerate(row) if k != y) - row[y]
        for row, y in zip(scores.tolist(), target.tolist(), strict=True)
    ]
    value = objective.matched(scores, target, embedding)
    torch.testing.assert_close(value, torch.tensor(expected).double())
    assert torch.equal(value > 0, scores.argmax(1) != target)


@every
def test_training_with_its_own_scores_learns(name):
    """Loss and decision agree: descent on the loss gives a classifier that is right by the arg-max of the scores."""
    torch.manual_seed(0)
    target = torch.arange(60) % 3
    points = torch.tensor([[2.0, 0], [-1, 1.7], [-1, -1.7]])[target] + 0.3 * torch.randn(60, 2)
    objective = losses.build(name)
    backbone = nn.Sequential(nn.Linear(2, 16), nn.Tanh(), nn.Linear(16, 4))
    scores = objective.score_map(4, 3)
    weights = [p for module in (backbone, scores, objective) for p in module.parameters()]
    optimizer = torch.optim.Adam(weights, lr=0.05)
    for _ in range(60):
        embedding = backbone(points)
        loss = objective(scores(embedding), target, embedding)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        embedding = backbone(points)
        outputs = scores(embedding)
    assert (outputs.argmax(1) == target).double().mean() >= 0.95
    assert (objective.matched(outputs, target, embedding) < 0).double().mean() >= 0.95
