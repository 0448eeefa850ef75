"""Which key each draw has, and whose index keys it."""

from __future__ import annotations

import sys

import pytest
import torch
from mean_model import parameters
from spying import Spy
from tiny import ROWS, Layers, Mean, attack, flat, images, predicted
from torch import nn

from isce import attacks
from isce.attacks import Threat, keys
from isce.attacks.keys import keyed_noise
from isce.attacks.spec import AttackSpec
from isce.evaluation import evaluate, examples, red_flags
from isce.losses import build


def test_no_two_purposes_share_a_key(monkeypatch):
    """Every draw of every attack, by the function that asks for it."""
    asked, real = {}, keys._key
    within = {"keyed_noise", "seeded", "<listcomp>", "__enter__"}

    def spy(*parts, size=4):
        frame = sys._getframe(1)
        while frame.f_code.co_name in within:
            frame = frame.f_back
        asked.setdefault(real(*parts), set()).add(frame.f_code.co_name)
        return real(*parts)

    monkeypatch.setattr(keys, "_key", spy)
    model, x = Layers(), images(2)
    rows = [row for name, row in ROWS.items() if name in ("local-search", "matched", "search", "simba", "single-pixel")]
    rows += [AttackSpec(attack=name, steps=2, restarts=3) for name in ("pgd", "search")]
    rows += [ROWS["spsa"], AttackSpec(attack="bim", steps=2, targeted=True)]
    for row in rows:
        norm = "linf" if "linf" in attacks.about(row.attack).norms else "l2"
        attack(row, model, x, predicted(model, x), row.threat or Threat(norm, 0.01))
    purposes = {name for names in asked.values() for name in names}
    assert {"random_start", "search", "squares", "simba", "random_targets"} < purposes
    assert all(len(names) == 1 for names in asked.values())


def test_draws_for_two_purposes_are_independent():
    given = 0, torch.arange(200), 1, torch.Size([4]), "linf"
    start, squares = keyed_noise(*given), keyed_noise(*given, "squares")
    assert abs(float((start * squares).mean() * 3)) < 0.15  # correlation of 800 draws: five standard errors
    assert torch.equal(squares, keyed_noise(*given, "squares"))


INDEX = torch.tensor([7, 5, 3, 11])


@pytest.fixture
def keyed(monkeypatch):
    return Spy(monkeypatch).calls


def given(*values: float, index=INDEX):
    evaluation = parameters([AttackSpec(attack="pgd", steps=4)], [0.1])
    return (Mean(), build("sce"), *flat(*values), evaluation), {"index": index}


def test_flags_attack_with_the_draws_of_the_evaluation(keyed):
    values, named = given(0.2, 0.6, 0.3, 0.35)  # the second is a clean mistake, the others survive
    found = evaluate(*values, **named, progress=False)
    keyed.clear()
    red_flags(found, *values, **named)
    assert len(keyed) > 2
    assert {tuple(index) for _, _, index in keyed} == {(7, 3, 11)}
    keyed.clear()
    red_flags(found, *values)
    assert {tuple(index) for _, _, index in keyed} == {(0, 2, 3)}


def test_examples_are_those_of_the_evaluation(keyed):
    (model, objective, x, y, _), named = given(0.45, 0.48, 0.46, 0.47)
    shown = examples(
        model, objective, x, y, AttackSpec(attack="pgd", steps=4), Threat("linf", 0.1), batch_size=3, **named
    )
    assert [index for _, _, index in keyed] == [[7, 5, 3], [11]]
    assert shown.index.tolist() == [0, 1, 2, 3]  # positions among the images, whatever keys the draws


@pytest.mark.parametrize(
    ("index", "error", "words"),
    [
        (INDEX[:3], ValueError, "index must hold one position"),
        (INDEX.float(), TypeError, "index must be int64"),
        (-INDEX, ValueError, "index must hold one position"),
    ],
)
def test_an_index_that_fits_no_images_is_refused(index, error, words):
    values, _ = given(0.2, 0.3, 0.45, 0.48)
    found, spec, threat = evaluate(*values, progress=False), AttackSpec(attack="pgd"), Threat("linf", 0.1)
    for call in (
        lambda: attacks.run(spec, *values[:4], threat, seed=0, index=index),
        lambda: evaluate(*values, index=index, progress=False),
        lambda: red_flags(found, *values, index=index),
        lambda: examples(*values[:4], spec, threat, index=index),
    ):
        with pytest.raises(error, match=words):
            call()


class Waves(nn.Module):
    """Logits that rise and fall along the way, with a lead of class 0 that nothing breaks; notes margins of batches."""

    def __init__(self, dtype=torch.float64) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(4)
        self.weight = 30 * torch.randn(4, 5, generator=generator, dtype=dtype)
        self.lowest = torch.full((6,), torch.inf, dtype=dtype)

    def forward(self, x):
        logits = torch.sin(x.flatten(1) @ self.weight) + 3 * (torch.arange(5) == 0)
        if len(x) == len(self.lowest):
            reached = logits.detach()[:, 0] - logits.detach()[:, 1:].amax(1)
            self.lowest = torch.minimum(self.lowest, reached)
        return logits


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("objective", attacks.about("matched").objectives)
@pytest.mark.parametrize("restarts", [1, 2, 3])
def test_the_best_point_that_was_seen_is_handed_back(norm, objective, restarts):
    model, x = Waves(), images(6, (1, 2, 2)).double()
    spec = AttackSpec(attack="matched", objective=objective, steps=7, restarts=restarts)
    found = attack(spec, model, x, torch.zeros(6, dtype=torch.int64), Threat(norm, 0.3)).adversarial
    seen, logits = model.lowest, model(found)
    reached = logits[:, 0] - logits[:, 1:].amax(1)
    assert (reached <= seen + 1e-12).all()


@pytest.mark.parametrize("name", ["search", "simba"])
def test_the_best_point_that_queries_saw_is_handed_back(name):
    model, x = Waves(), images(6, (1, 2, 2)).double()
    found = attack(ROWS[name], model, x, torch.zeros(6, dtype=torch.int64)).adversarial
    seen, logits = model.lowest, model(found)
    assert (logits[:, 0] - logits[:, 1:].amax(1) <= seen + 1e-12).all()


@pytest.mark.parametrize(("name", "rejected"), [("matched", [True, False]), ("fmn", [True, True])])
def test_a_point_without_finite_logits_is_handed_back_to_be_rejected(name, rejected):
    """It might hide an error, so it must not pass for an image that stood; fmn looks beyond eps too."""

    class Gap(nn.Module):
        def forward(self, x):
            mean = 10 * (x.flatten(1).mean(1) - 0.5)
            return torch.stack([1 - mean, mean - 1], 1).masked_fill((mean > 0)[:, None], torch.nan)

    x, y = flat(0.45, 0.2)
    found = attack(AttackSpec(attack=name, steps=60), Gap(), x, y, Threat("linf", 0.1))
    assert found.rejected.tolist() == rejected
    assert not found.success.any()
    assert torch.equal(found.adversarial[0], x[0])
