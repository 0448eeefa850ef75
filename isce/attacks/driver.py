"""Any attack on one batch: restarts, the best point of each image, and the check that it lies inside ball and box."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from isce.attacks.base import AttackResult, Found, Problem, Timed, margin, untouched, verify
from isce.attacks.checks import check_call, check_gradient, check_index, check_scores, first_scores
from isce.attacks.keys import random_targets
from isce.attacks.registry import about, load
from isce.attacks.threat import Threat

if TYPE_CHECKING:
    from isce.suites import AttackSpec

#: A classifier and the objective that it was trained with.
Network = tuple[nn.Module, Any]


def run(
    spec: AttackSpec,
    classifier: nn.Module,
    objective: Any,
    x: Tensor,
    y: Tensor,
    threat: Threat,
    *,
    seed: int,
    index: Tensor | None = None,
    source: Network | None = None,
    scores: Tensor | None = None,
    raw: Tensor | None = None,
    deadline: float | None = None,
) -> AttackResult:
    """Attack one batch.

    Images that are misclassified as they stand come back unchanged as successes after 0 steps. Each restart works on
    what the ones before have not broken, a targeted attack's on what they have not brought to its target; of several
    failed points the one with the lowest raw margin is kept. A batch-dependent classifier's batch stays together: the
    restart with most successes is returned whole.

    Args:
        spec: the attack, what it ascends and its budget.
        classifier: maps images (N, C, H, W) in [0, 1] to raw scores (N, K). Left as it was, see ``base.untouched``.
        objective: the training objective; left as it was.
        x: images (N, C, H, W), floating point in [0, 1].
        y: true labels (N,), int64 in [0, K).
        threat: norm and eps.
        seed: keys the randomness together with ``index`` and the restart.
        index: positions of the images in their data set (N,), int64; default 0 to N - 1.
        source: the network that ``transfer`` attacks in this one's stead.
        scores: the classifier's scores of these images (N, K), where they are known: saves a forward pass.
        raw: what ``AttackResult.raw`` of the same attack held at another eps: judged again, without a search; for an
            attack that looks for the smallest change.
        deadline: in seconds of ``time.monotonic``; an attack that calls the classifier after it is stopped.

    Returns:
        The verified result.

    Raises:
        TypeError: images not float32 or float64, labels or index not int64, a classifier that is no module or returns
            anything but scores, an objective that is none of ``isce.losses``.
        ValueError: wrong shape, empty batch, values outside [0, 1], NaN, labels outside [0, K), unusable scores, images
            changed in place, no gradient where the attack needs one, or no source for ``transfer``.
        RuntimeError: inside ``torch.inference_mode()``.
        TimeLimitError: the deadline has passed.
    """
    check_call(classifier, objective, x, y)
    if source is not None:
        check_call(*source, x, y)
    x = x.detach().contiguous()  # packages take images apart with `view`
    x = x.clone() if x.is_inference() else x
    y, index = y.detach(), check_index(index, y)
    timed = classifier if deadline is None else Timed(classifier, deadline)
    with untouched(classifier, objective, *(source or ())):
        if scores is None:
            scores = first_scores(classifier, objective, x, y, gradients=about(spec.attack).gradients)
            check_gradient(scores, [spec])
        check_scores(scores, y)
        problem = Problem(timed, objective, x, y, index, threat, seed, scores.detach(), best=x)
        if spec.targeted:
            problem = replace(problem, target=random_targets(seed, index, y, problem.scores.shape[1]))
        if source is not None:
            theirs = first_scores(*source, x, y, gradients=True)
            if not theirs.requires_grad:
                raise ValueError("the source's scores have no gradient with respect to the images: transfer needs one")
            other = source[0] if deadline is None else Timed(source[0], deadline)
            scores = theirs.detach()
            problem = replace(problem, source=replace(problem, classifier=other, objective=source[1], scores=scores))
        state = _State(problem, minimal=about(spec.attack).minimal)
        attack = load(spec.attack)
        for restart in range(spec.restarts):
            rows = state.open()
            if len(rows) == 0:
                break
            problem = replace(problem, best=state.points)
            part = problem if problem.batch_dependent else problem.take(rows)
            found = attack(spec, part, restart) if raw is None else Found.only(raw[rows])
            state.add(replace(part, classifier=classifier), rows, found, spec.steps, restart)  # judged without a limit
        return state.result()


class _State:
    """The best verified points over the restarts."""

    def __init__(self, problem: Problem, *, minimal: bool) -> None:
        self.whole, self.minimal = problem.batch_dependent, minimal
        self.points, self.raw = problem.x.clone(), problem.x.clone()
        self.wrong = problem.scores.argmax(1) != problem.y
        self.success = self.wrong.clone()
        self.targeted = problem.target is not None
        self.margin = margin(problem.scores, problem.y)
        self.first = torch.where(self.success, 0, -1)
        self.rejected, self.hit = torch.zeros_like(self.success), torch.zeros_like(self.success)
        self.last = self.success.clone()

    def open(self) -> Tensor:
        """Row numbers that the next restart should work on."""
        todo = ~(self.hit | self.wrong) if self.targeted else ~self.success
        if self.whole and bool(todo.any()):
            return torch.arange(len(todo), device=todo.device)
        return todo.nonzero()[:, 0]

    def add(self, part: Problem, rows: Tensor, found: Found, steps: int, restart: int) -> None:
        """Verify what a restart found and keep what is better."""
        points, predicted, margins, rejected = verify(part, found.points, minimal=self.minimal)
        success = predicted != part.y
        last = success
        if found.last is not None:
            last = verify(part, found.last, minimal=self.minimal).predicted != part.y
        first = torch.where(success, restart * steps + torch.where(found.first >= 0, found.first, steps), -1)
        if self.whole:
            better = torch.full_like(success, self._whole_is_better(success, margins))
        else:
            fallen = self.success[rows]
            better = ~fallen & (success | (margins < self.margin[rows]))
            if part.target is not None:
                better |= predicted == part.target
            first = torch.where(fallen, self.first[rows], first)
        chosen = rows[better]
        self.points[chosen] = points[better]
        self.success[chosen] = success[better]
        self.margin[chosen] = margins[better]
        self.first[chosen] = first[better]
        if part.target is not None:
            self.hit[chosen] = (predicted == part.target)[better]
        self.raw[rows] = found.points.to(self.raw)
        self.rejected[rows] |= rejected
        self.last[rows] |= last

    def _whole_is_better(self, success: Tensor, margins: Tensor) -> bool:
        """More successes; at a tie the lower mean margin."""
        more = int(success.sum()) - int(self.success.sum())
        return more > 0 or (more == 0 and float(margins.mean()) < float(self.margin.mean()))

    def result(self) -> AttackResult:
        """The outcome so far."""
        return AttackResult(self.points, self.success, self.first, self.rejected, self.last, hit=self.hit, raw=self.raw)
