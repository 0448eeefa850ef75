"""Any attack on one batch: restarts, the best point of each image, and the check that it lies inside ball and box."""

from __future__ import annotations

import traceback
from dataclasses import replace
from importlib import import_module

import torch
from torch import Tensor, nn

from isce.attacks.base import AttackResult, ForeignError, Found, Problem, margin, shaped, untouched, verify
from isce.attacks.checks import check_call, check_gradient, check_index, check_logits, check_row, first_logits
from isce.attacks.foreign.lent import Lent, Run, cast
from isce.attacks.keys import random_targets
from isce.attacks.rejection import blinded, by_label, check_rejection, rejects
from isce.attacks.spec import AttackSpec, about
from isce.attacks.threat import Threat
from isce.losses import Objective

#: A classifier and the objective that it was trained with.
Network = tuple[nn.Module, Objective]


def run(
    spec: AttackSpec,
    classifier: nn.Module,
    objective: Objective,
    x: Tensor,
    y: Tensor,
    threat: Threat,
    *,
    seed: int,
    index: Tensor | None = None,
    source: Network | None = None,
    logits: Tensor | None = None,
    raw: Tensor | None = None,
    deadline: float | None = None,
) -> AttackResult:
    """Attack one batch.

    Images that are misclassified as they stand come back unchanged as successes after 0 steps. Each restart works on
    what the ones before have not broken, a targeted attack's on what they have not brought to its target; of several
    failed points the one with the lowest raw margin is kept. A batch-dependent classifier's batch stays together: the
    restart with most successes is returned whole. Where the classifier may reject, an attack knows of it, unless its
    row is ``blind``; every point is judged with rejection, see :mod:`isce.attacks.rejection`.

    Args:
        spec: the attack, what it ascends and its budget.
        classifier: maps images (N, C, H, W) in [0, 1] to raw logits (N, K), and to one more for rejection where it has
            ``rejects = True``. Left as it was, see ``base.untouched``.
        objective: the training objective; left as it was.
        x: images (N, C, H, W), floating point in [0, 1].
        y: true labels (N,), int64 in [0, K).
        threat: norm and eps.
        seed: keys the randomness together with ``index`` and the restart.
        index: positions of the images in their data set (N,), int64; default 0 to N - 1.
        source: the network that ``transfer`` attacks in this one's stead.
        logits: the classifier's logits of these images (N, K), where they are known, folded where it may reject: saves
            a forward pass.
        raw: what ``AttackResult.raw`` of the same attack held at another eps: judged again, without a search; for an
            attack that looks for the smallest change.
        deadline: in seconds of ``time.monotonic``; an attack that calls the classifier after it is stopped.

    Returns:
        The verified result.

    Raises:
        TypeError: images not float32 or float64, labels or index not int64, a classifier that is no module or returns
            anything but logits, an objective that is none of ``isce.losses``, or no spec or threat.
        ValueError: wrong shape, empty batch, values outside [0, 1], NaN, labels outside [0, K), unusable logits, images
            changed in place, no gradient where the attack needs one, a threat model that the attack doesn't work in, no
            source for ``transfer``, or a blind row on a classifier that rejects nothing.
        RuntimeError: inside ``torch.inference_mode()``.
        TimeLimitError: the deadline has passed.
        ForeignError: the package that runs the attack failed. What our own code or a network raises, also from inside a
            package, comes through as it is.
    """
    check_call(classifier, objective, x, y)
    check_row(spec, threat)
    check_rejection(classifier, blind=[spec.label] if spec.blind else [])
    if source is not None:
        check_call(*source, x, y)
    x = x.detach().contiguous()  # packages take images apart with `view`
    x = x.clone() if x.is_inference() else x
    y, index = y.detach(), check_index(index, y)
    networks = [network for network in ((classifier, objective), source) if network is not None]
    watched = about(spec.attack).foreign or deadline is not None
    lent = [Lent(network, deadline) for network, _ in networks] if watched else []
    handed = lent or [network for network, _ in networks]
    with untouched(*(part for network in networks for part in network)):
        if logits is None:
            logits = first_logits(classifier, objective, x, y, gradients=about(spec.attack).gradients)
            check_gradient(logits, [spec])
        check_logits(logits, y)
        problem = Problem(handed[0], objective, x, y, index, threat, seed, logits.detach(), best=x)
        if spec.targeted:
            problem = replace(problem, target=random_targets(seed, index, y, problem.logits.shape[1]))
        if source is not None:
            logits = first_logits(*source, x, y, gradients=True)
            if not logits.requires_grad:
                raise ValueError("the source's logits have no gradient with respect to the images: transfer needs one")
            other = replace(problem, classifier=handed[1], objective=source[1], logits=logits.detach())
            problem = replace(problem, source=other)
        state = _State(problem, minimal=about(spec.attack).minimal)
        for restart in range(spec.restarts):
            rows = state.open()
            if len(rows) == 0:
                break
            problem = replace(problem, best=state.points)
            part = problem if problem.batch_dependent else problem.take(rows)
            found = _found(spec, part, restart, lent) if raw is None else Found.only(raw[rows])
            blind = not all(bool(network.sound) for network in lent)
            part = replace(part, classifier=classifier)  # judged without a limit
            state.add(part, rows, found, spec.steps, restart, blind=blind)
        return state.result()


def load(name: str) -> Run:
    """Return the function that runs one restart of an attack; a package's gets images in a precision that it takes."""
    known = about(name)
    attack = getattr(import_module(known.module), name.replace("-", "_"))
    return cast(attack, double=known.double) if known.package else attack


def _found(spec: AttackSpec, part: Problem, restart: int, lent: list[Lent]) -> Found:
    """One restart of an attack; what it hands back has the shapes that were asked for."""
    attack, package = load(spec.attack), about(spec.attack).package
    if rejects(part.classifier) and not spec.blind:
        return _by_label(spec, part, restart, lent)
    if spec.blind:
        part = blinded(part)
    try:
        found = attack(spec, part, restart)
    except Exception as error:
        if package and _raised_by(package, error) and not any(network.error for network in lent):
            raise ForeignError(f"{type(error).__name__}: {error}") from error
        raise
    for network in lent:
        if network.error is not None:  # which the package has kept to itself
            raise network.error
    for name, like in (("points", part.x), ("first", part.y), ("last", part.x)):
        if (value := getattr(found, name)) is not None:
            shaped(f"{name} of {spec.attack}", value, like, ForeignError if package else RuntimeError)
    return found


def _by_label(spec: AttackSpec, part: Problem, restart: int, lent: list[Lent]) -> Found:
    """One restart on a network that may reject: its images by label, see :class:`isce.attacks.rejection.Folded`."""
    points, first, last = part.x.clone(), torch.full_like(part.y, -1), part.x.clone()
    for rows, problem in by_label(part):
        found = _found(spec, problem, restart, lent)
        points[rows], first[rows] = found.points.to(points), found.first
        last[rows] = (found.points if found.last is None else found.last).to(last)
    return Found(points, first, last)


def _raised_by(package: str, error: Exception) -> bool:
    """Whether an error is a package's, or of what it called: of its frames and ours the innermost is its own."""
    tops = [
        frame.f_globals.get("__name__", "").partition(".")[0] for frame, _ in traceback.walk_tb(error.__traceback__)
    ]
    return [top for top in tops if top in ("isce", package)][-1:] == [package]


class _State:
    """The best verified points over the restarts."""

    def __init__(self, problem: Problem, *, minimal: bool) -> None:
        self.whole, self.minimal = problem.batch_dependent, minimal
        self.points, self.raw = problem.x.clone(), problem.x.clone()
        self.wrong = problem.logits.argmax(1) != problem.y
        self.success = self.wrong.clone()
        self.targeted = problem.target is not None
        self.margin = margin(problem.logits, problem.y)
        self.first = torch.where(self.success, 0, -1)
        self.rejected, self.hit = torch.zeros_like(self.success), torch.zeros_like(self.success)
        self.last = self.success.clone()

    def open(self) -> Tensor:
        """Row numbers that the next restart should work on."""
        todo = ~(self.hit | self.wrong) if self.targeted else ~self.success
        if self.whole and bool(todo.any()):
            return torch.arange(len(todo), device=todo.device)
        return todo.nonzero()[:, 0]

    def add(self, part: Problem, rows: Tensor, found: Found, steps: int, restart: int, *, blind: bool) -> None:
        """Verify what a restart found and keep what is better; a ``blind`` restart says nothing by a failure."""
        points, success, predicted, margins, rejected = verify(part, found.points, minimal=self.minimal)
        last = success
        if found.last is not None:
            _, last, _, _, unlike = verify(part, found.last, minimal=self.minimal)
            rejected = rejected | unlike
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
        self.rejected[rows] |= rejected | (~success & blind)
        self.last[rows] |= last

    def _whole_is_better(self, success: Tensor, margins: Tensor) -> bool:
        """More successes; at a tie the lower mean margin."""
        more = int(success.sum()) - int(self.success.sum())
        return more > 0 or (more == 0 and float(margins.mean()) < float(self.margin.mean()))

    def result(self) -> AttackResult:
        """The outcome so far."""
        return AttackResult(self.points, self.success, self.first, self.rejected, self.last, hit=self.hit, raw=self.raw)
