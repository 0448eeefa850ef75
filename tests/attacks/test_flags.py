"""Each red flag on a network built to raise it, and on a plain one that must not."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
from mean_model import parameters
from tiny import Layers, images, predicted
from torch import nn

from isce.attacks.spec import AttackSpec
from isce.evaluation import Evaluation, Outcome, curve_flags, curves, evaluate, outcome_flags, red_flags
from isce.evaluation import flags as flags_module
from isce.losses import build

ROWS = [
    AttackSpec(attack="pgd", steps=10),
    AttackSpec(attack="matched", objective="margin", steps=10),
]


def flags(target, wrap=lambda classifier: classifier, rows=ROWS, eps=(0.1,)) -> dict[str, str]:
    args = (wrap(target.classifier), build("sce"), target.x, target.y, parameters(rows, eps))
    return red_flags(evaluate(*args, progress=False), *args)


class Wrapped(nn.Module):
    def __init__(self, classifier) -> None:
        super().__init__()
        self.classifier = classifier


class RoundedInput(Wrapped):
    def forward(self, x):
        return self.classifier((6 * x).round() / 6)


class RandomOutput(Wrapped):
    def forward(self, x):
        logits = self.classifier(x)
        return logits + 0.1 * torch.randn_like(logits)


class Saturated(Wrapped):
    """Decides as before; hides from cross-entropy, not from a margin."""

    def forward(self, x):
        return 1e4 * self.classifier(x)


class NotDifferentiable(Wrapped):
    def forward(self, x):
        return (4 * self.classifier(x)).round()


class Detour(Wrapped):
    """Right logits, gradients turned around: what looks like ascent leads away."""

    def forward(self, x):
        logits = self.classifier(x)
        return logits.detach() - (logits - logits.detach())


def test_a_plain_network_raises_none(target):
    assert flags(target, eps=(0.05, 0.1)) == {}


def test_rounded_input(target):
    found = flags(target, RoundedInput)
    assert {"zero-gradient", "black-box-beats-white-box", "not-zero-at-large-eps"} <= set(found)
    assert "training loss: " in found["zero-gradient"]
    assert "matched: " in found["zero-gradient"]


def test_random_output(target):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        assert "random-output" in flags(target, RandomOutput)


class BatchNormalised(nn.Module):
    """Normalises its images, or a part of them, by the batch at hand."""

    def __init__(self, strength: float = 1.0, *, declared: bool = False) -> None:
        super().__init__()
        self.layers, self.strength = Layers((1, 3, 3)), strength
        self.norm = nn.BatchNorm2d(1, track_running_stats=False)
        if declared:
            self.batch_dependent = True

    def forward(self, x):
        return self.layers(self.strength * self.norm(x) + (1 - self.strength) * x)


class Rounds(nn.Module):
    """Rounds otherwise in a batch than alone, by a unit in the last place."""

    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__()
        self.layers, self.dtype = Layers((1, 3, 3)), dtype

    def forward(self, x):
        logits = self.layers(x)
        return (logits * (1 + (len(x) > 1) * torch.finfo(self.dtype).eps)).to(self.dtype)


def batch_flag(model: nn.Module) -> str:
    x = images(20, (1, 3, 3))
    args = (model, build("sce"), x, predicted(model, x), parameters(ROWS[:1], [0.01]))
    return red_flags(evaluate(*args, progress=False), *args).get("depends-on-batch", "")


@pytest.mark.parametrize("strength", [1.0, 0.3])
def test_batch_statistics_that_nobody_declared(strength):
    found = batch_flag(BatchNormalised(strength))
    assert found.startswith("logits of ")
    assert found.endswith("set batch_dependent = True on the classifier and evaluate again")
    assert not batch_flag(BatchNormalised(strength, declared=True))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_the_rounding_of_a_batch_is_no_dependence_on_it(dtype):
    assert not batch_flag(Rounds(dtype))


def test_noise_is_no_dependence_on_the_batch(target):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        assert "depends-on-batch" not in flags(target, RandomOutput)


def test_saturated_logits_hide_from_cross_entropy_only(target):
    found = flags(target, Saturated)
    assert {"zero-gradient", "own-loss-misleads"} <= set(found)
    assert "training loss: " in found["zero-gradient"]
    assert "matched: " not in found["zero-gradient"]
    assert "not-zero-at-large-eps" not in found


def test_a_layer_without_gradient(target):
    assert {"zero-gradient", "not-zero-at-large-eps"} <= set(flags(target, NotDifferentiable))


def test_gradients_that_mislead(target):
    assert {"black-box-beats-white-box", "not-zero-at-large-eps"} <= set(flags(target, Detour))


def test_too_few_steps(target):
    rows = [AttackSpec(attack="bim", steps=2, step_size=0.1)]
    assert "more-steps-lower" in flags(target, rows=rows, eps=[0.15])


def test_a_row_on_the_few_that_others_left_is_tried_for_longer_too(target):
    rows = [
        AttackSpec(attack="bim", steps=1, step_size=0.02),
        AttackSpec(attack="matched", objective="margin", steps=2, step_size=0.1, survivors=True),
    ]
    assert "matched8-margin" in flags(target, rows=rows, eps=[0.15]).get("more-steps-lower", "")


def test_queries_that_find_more_than_gradients_in_a_threat_model_of_their_own(target):
    own = {"norm": "l2", "eps": 2.0}
    rows = [
        *ROWS,
        AttackSpec(attack="simba", steps=200, **own),
        AttackSpec(attack="pgd", steps=1, step_size=0.01, **own),
    ]
    found = flags(target, rows=rows)
    assert found["black-box-beats-white-box"].startswith("l2@2: simba200-margin breaks ")
    rows[-1] = AttackSpec(attack="pgd", steps=20, objective="matched", **own)
    assert flags(target, rows=rows) == {}


def _two_rows(black: np.ndarray, white: np.ndarray, asked: np.ndarray, **more) -> dict[str, Outcome]:
    """A query row on some images and a gradient row on all, with what each broke."""
    every = np.ones_like(asked)
    rows = {
        "simba200-margin": (asked, asked, black, {}),
        "pgd1-training": (every, every & ("error" not in more), white, more),
    }
    plain = np.zeros_like(asked)
    return {
        name: Outcome(a, attacked=d, broken=b, rejected=plain, last_broken=b, hit=plain, first_success=plain - 1, **m)
        for name, (a, d, b, m) in rows.items()
    }


def rival_flags(target, rows: dict[str, Outcome], **query: Any) -> dict[str, str]:
    """The flags of an evaluation with these rows in the l_2 ball of radius 2."""
    own = {"norm": "l2", "eps": 2.0}
    suite = [AttackSpec(attack="simba", steps=200, **query, **own), AttackSpec(attack="pgd", steps=1, **own), *ROWS]
    args = (target.classifier, build("sce"), target.x, target.y, parameters(suite, [0.1]))
    found = evaluate(*args, progress=False)
    found.outcomes["l2@2"] = rows
    return red_flags(found, *args)


@pytest.mark.parametrize(("too", "flagged"), [(6, False), (4, False), (3, True), (0, True)])
def test_rows_are_compared_on_the_images_that_both_are_about(target, too, flagged):
    """Queries broke six of their ten images; gradients some of those, and 25 of the thirty that queries never saw."""
    place = np.arange(40)
    asked, black, white = place < 10, place < 6, (place < too) | (place >= 15)
    found = rival_flags(target, _two_rows(black, white, asked), images=10)
    assert ("black-box-beats-white-box" in found) == flagged


def test_a_gradient_row_that_failed_is_no_rival_to_queries(target):
    asked, none = np.ones(40, dtype=bool), np.zeros(40, dtype=bool)
    rows = _two_rows(asked, none, asked, error="ValueError: no")
    assert "black-box-beats-white-box" not in rival_flags(target, rows)


def test_a_row_with_restarts_is_prolonged_with_restarts():
    """The first start of the matched attack pushes no squares, so one start alone would be blind to what they find."""
    row = AttackSpec(attack="matched", objective="margin", steps=100, restarts=9)
    longer = flags_module._longer(row)
    assert (longer.steps, longer.restarts) == (400, 2)
    assert flags_module._longer(AttackSpec(attack="pgd", steps=10)).restarts == 1


class LowestPixel(nn.Module):
    """Class 1 where every pixel is above 0.5. The gradient shows the lowest pixel alone: one more with each step."""

    def forward(self, x):
        low = x.flatten(1).amin(1) - 0.5
        return torch.stack([-low, low], 1)


@pytest.mark.parametrize("steps", [[2, 50], [50, 100]])
def test_a_curve_that_still_falls(steps, tmp_path):
    """Four pixels must rise; of forty images ten can't rise far enough."""
    plan = {"images": 40, "convergence_eps": 0.1, "convergence_steps": steps}
    x = torch.tensor([0.41, 0.42, 0.43, 0.44]).view(1, 1, 2, 2).repeat(40, 1, 1, 1)
    x[30:] -= 0.1
    y, places = torch.zeros(40, dtype=torch.int64), torch.arange(40)
    given = (LowestPixel(), build("sce"), x, y, parameters(ROWS, [0.1], curves=plan))
    outcome = evaluate(*given, index=places, progress=False)
    found = curves(*given, outcome, index=places, folder=tmp_path, progress=False)
    assert [row["correct"] for row in found["convergence"]] == [40 if n == 2 else 10 for n in steps]
    assert set(curve_flags(found)) == ({"not-converged"} if steps[0] == 2 else set())


def test_no_curve_no_flag():
    assert curve_flags({}) == curve_flags({"convergence": [{"steps": 10, "accuracy": 0.5, "n": 100}]}) == {}


def test_a_curve_that_was_not_evaluated_is_not_converged():
    rows = [{"steps": 10, "accuracy": 0.5, "n": 100}, {"steps": 20, "accuracy": None, "n": 100, "why": "a: no"}]
    detail = "50.0% after 10 steps, not evaluated: a: no after 20 steps"
    assert curve_flags({"convergence": rows}) == {"not-converged": detail}


class Shell(nn.Module):
    """Wrong only where the mean pixel is in (0.5, 0.6), with a gradient that leads there and past it."""

    def __init__(self) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.tensor(50.0))

    def forward(self, x):
        mean = x.flatten(1).mean(1)
        score = self.gain * ((0.05 - (mean - 0.55).abs()).detach() + mean - mean.detach())
        return torch.stack([-score, score], 1)


def shell_flags(row: dict[str, Any], eps: tuple[float, ...]) -> dict[str, str]:
    x, y = torch.linspace(0.3, 0.49, 20).view(-1, 1, 1, 1).repeat(1, 1, 4, 4), torch.zeros(20, dtype=torch.int64)
    given = parameters([AttackSpec(**row)], eps)
    return outcome_flags(evaluate(Shell(), build("sce"), x, y, given, progress=False).results())


def test_a_last_point_that_has_left_the_error_behind():
    found = shell_flags({"attack": "bim", "steps": 40}, (0.4,))
    assert found == {"last-worse-than-best": "bim40-training linf@0.4: 100.0% at the last point, 0.0% at the best"}


def test_one_step_that_jumps_over_the_error():
    assert "rises-with-eps" in shell_flags({"attack": "fgsm"}, (0.1, 0.4))
    assert "rises-with-eps" not in shell_flags({"attack": "bim", "steps": 40}, (0.1, 0.4))


def outcome(n: int, broken: int, last: int | None = None, rejected: int = 0, attacked: int = 100, **more) -> Outcome:
    def first(count: int):
        return np.arange(n) < count

    return Outcome(
        asked=np.ones(n, dtype=bool),
        hit=np.zeros(n, dtype=bool),
        attacked=first(attacked),
        broken=first(broken),
        rejected=first(rejected),
        last_broken=first(broken if last is None else last),
        first_success=np.full(n, -1),
        **more,
    )


def results(**threats: dict[str, Outcome]) -> dict[str, Any]:
    outcomes = {f"linf@0.{name[1:]}": rows for name, rows in threats.items()}
    return Evaluation(np.ones(100, dtype=bool), outcomes, batch_size=100).results()


PLAIN = {"e1": {"a-training": outcome(100, 40)}, "e2": {"a-training": outcome(100, 60)}}


def test_flags_read_off_the_figures():
    assert outcome_flags(results(**PLAIN)) == {}

    def changed(threat, rows):
        return outcome_flags(results(**(copy.deepcopy(PLAIN) | {threat: rows})))

    assert changed("e2", {"a-training": outcome(100, 60, rejected=1)}) == {
        "rejected-points": "a-training linf@0.2: 1 of 100"
    }
    assert changed("e2", {"a-training": outcome(100, 60, last=50)}) == {
        "last-worse-than-best": "a-training linf@0.2: 50.0% at the last point, 40.0% at the best"
    }
    assert changed("e2", {"a-training": outcome(100, 30)})["rises-with-eps"] == "a-training linf@0.2: 70.0%"
    own = changed("e2", {"a-training": outcome(100, 60), "b-margin": outcome(100, 70)})
    assert own == {"own-loss-misleads": "linf@0.2: 40.0% under attacks on the training loss, 30.0% under the suite"}


@pytest.mark.parametrize("step", ["", "-step0.1", "-step1e-05"])
def test_a_row_on_the_training_loss_is_known_by_its_name_also_with_a_step(step):
    rows = {f"pgd40-training{step}": outcome(100, 60), "b-margin": outcome(100, 70)}
    assert outcome_flags(results(e2=rows)) == {
        "own-loss-misleads": "linf@0.2: 40.0% under attacks on the training loss, 30.0% under the suite"
    }


@pytest.mark.parametrize(
    "rows",
    [
        [AttackSpec(attack="fgsm", main_only=True)],
        [AttackSpec(attack="released", steps=2, step_size=0.01)],
        [AttackSpec(attack="fgsm", norm="l2", eps=0.3)],
    ],
)
def test_an_eps_that_no_row_attacks_is_no_reason_to_fail(target, rows):
    assert "attack-failed" not in flags(target, rows=rows, eps=(0.1, 0.2))


def test_a_training_row_on_survivors_alone_is_not_held_against_the_loss():
    rows = {"b-margin": outcome(100, 70), "a-training": outcome(100, 0, survivors=True)}
    assert outcome_flags(results(e1=rows)) == {}


def test_the_last_point_of_a_targeted_row_is_held_against_nobody():
    rows = {"a-training-targeted": outcome(100, 40, last=20, targeted=True)}
    assert outcome_flags(results(e1=rows)) == {}


def test_an_attack_that_failed_is_a_flag():
    rows = {"a-training": outcome(100, 40, attacked=50, error="ValueError: no")}
    found = results(e1=rows, e2=PLAIN["e2"])
    assert (
        found["threats"]["linf@0.1"]["worst"]["why"] == "a-training: ValueError: no (no outcome for 50 of 100 images)"
    )
    assert outcome_flags(found) == {"attack-failed": "a-training linf@0.1: ValueError: no"}


def test_points_that_were_rejected_leave_no_figure_to_compare():
    """Neither with the row's last points, nor with other eps, nor with the worst case."""
    found = results(e1={"a-training": outcome(100, 40, rejected=50)}, e2=PLAIN["e2"])
    assert outcome_flags(found) == {
        "attack-failed": "a-training linf@0.1: no valid point",
        "rejected-points": "a-training linf@0.1: 50 of 100",
    }
    last = results(e1={"a-training": outcome(100, 40, last=0, rejected=1)}, e2=PLAIN["e2"])
    assert outcome_flags(last) == {"rejected-points": "a-training linf@0.1: 1 of 100"}, "its last point is not known"


@pytest.mark.parametrize("share", [1, 2])
def test_small_differences_are_no_flag(share):
    rows = {"a-training": outcome(100, 60, last=60 - share), "b-margin": outcome(100, 60 + share)}
    assert outcome_flags(results(**(PLAIN | {"e2": rows}))) == {}


def test_nothing_classified_right_is_no_reason_to_fail(target):
    wrong = (target.y + 1) % 10
    with torch.no_grad():
        keep = target.classifier(target.x).argmax(1) != wrong
    args = (target.classifier, build("sce"), target.x[keep], wrong[keep], parameters(ROWS[:1], [0.1]))
    assert red_flags(evaluate(*args, progress=False), *args) == {}
