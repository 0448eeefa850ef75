"""torch.compile makes one graph of every objective. The fast tests take one objective of each family."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Any

import pytest
import torch
from loss_cases import CASES, make
from loss_problems import SOFT, VARIANTS, N, mixed, problem

from isce import losses


def family(name: str) -> str:
    return type(losses.build(name)).__module__


# Of each family the objective with the most variants; of these the last one.
FAST = {
    module: max((n for n in CASES if family(n) == module), key=lambda n: len(CASES[n].variants))
    for module in map(family, CASES)
}


def _marked(name: str, params: dict[str, Any], identity: str, of: Collection[str] = FAST.values()) -> Any:
    fast = name in of and params == CASES[name].variants[-1]
    return pytest.param(name, params, id=identity, marks=() if fast else pytest.mark.full)


@pytest.fixture(autouse=True)
def fresh_compiler() -> Iterator[None]:
    """Each objective is compiled anew, so that none counts towards another's limit of recompilations."""
    torch.compiler.reset()
    yield
    torch.compiler.reset()


def compiled(function: Any) -> Any:
    # This backend runs the whole tracer (forward and backward in one graph each) and needs no C++ compiler.
    return torch.compile(function, backend="aot_eager", fullgraph=True)


def agree(eager: Any, traced: Any, *batch: torch.Tensor) -> None:
    """Values and gradients of two functions by the logits and the embedding."""
    results = []
    for function in (eager, traced):
        logits, target, embedding = batch
        inputs = (logits.clone().requires_grad_(), embedding.clone().requires_grad_())
        loss = function(inputs[0], target, inputs[1])
        gradients = torch.autograd.grad(loss.sum(), inputs, allow_unused=True)
        results.append([loss.detach(), *(torch.zeros(()) if g is None else g for g in gradients)])
    torch.testing.assert_close(*results)


@pytest.mark.parametrize(("name", "params"), [_marked(*v.values, v.id) for v in VARIANTS])
def test_compiles_as_one_graph(name, params):
    objective = make(name, **params)
    agree(objective, compiled(objective), *problem(name, dtype=torch.float32))


@pytest.mark.parametrize(
    ("name", "params"), [_marked(*v.values, v.id, of=["lgm"]) for v in VARIANTS if v.values[0] in SOFT]
)
def test_soft_targets_compile_as_one_graph(name, params):
    logits, _, embedding = problem(name, dtype=torch.float32)
    smoothing = {} if "label_smoothing" in losses.build(name).exempt else {"label_smoothing": 0.2}
    objective = make(name, **params | smoothing)
    agree(objective, compiled(objective), logits, mixed(logits.shape, dtype=torch.float32), embedding)


@pytest.mark.parametrize("name", [n if n == "isce" else pytest.param(n, marks=pytest.mark.full) for n in CASES])
def test_compiles_as_one_graph_when_numbers_and_batches_change(name):
    """The tracer turns a number that has changed once into an unknown: then nothing may depend on its value."""
    logits, target, embedding = problem(name, dtype=torch.float32)
    for step in range(2):
        objective = make(name)
        for key, value in [item for item in vars(objective).items() if type(item[1]) is float]:
            setattr(objective, key, value * (1 - 0.1 * step))
        batch = logits[: N - step], target[: N - step], embedding[: N - step]
        torch.testing.assert_close(compiled(objective)(*batch), objective(*batch))


@pytest.mark.parametrize("name", [n if n == "sce" else pytest.param(n, marks=pytest.mark.full) for n in CASES])
def test_matched_compiles_as_one_graph(name):
    objective = make(name)
    agree(objective.matched, compiled(objective.matched), *problem(name, dtype=torch.float32))


@pytest.mark.full
def test_center_moves_in_a_compiled_step():
    h, y, z = torch.randn(5, 3).bfloat16(), torch.tensor([0, 1, 2, -100, 0]), torch.zeros(5, 4)
    plain, traced = (make("center").train() for _ in range(2))
    plain(z, y, h.float())
    compiled(traced)(z, y, h)
    torch.testing.assert_close(traced.centres, plain.centres)
