"""What one row of a suite does to the images of one evaluation: batches, and what happens when one fails."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from isce import attacks
from isce.attacks import ForeignError, Threat, TimeLimitError
from isce.attacks.base import untouched
from isce.attacks.checks import check_gradient, check_logits, first_logits, logits_of
from isce.attacks.rejection import check_rejection, judged, refused
from isce.attacks.spec import AttackSpec
from isce.data.sets import stratified
from isce.evaluation import memory
from isce.evaluation.outcome import Mask, Outcome
from isce.files import ROOT
from isce.losses import Objective
from isce.minmax.certificates import Method, certified
from isce.models import Classifier, Guarded
from isce.parameters.attack import AttackParameters
from isce.training.checkpoint import load_checkpoint

BATCH = 256  # of a batch-dependent classifier, as the released script has it
FEW = 8  # images that show whether a classifier can be attacked
LIMITED = 10  # images at once of a row with a time limit: the batch that is cut off is lost


class Job:
    """A classifier, its images, and how they go through it in batches."""

    def __init__(
        self,
        classifier: nn.Module,
        objective: Objective,
        images: Tensor,
        labels: Tensor,
        index: Tensor,
        parameters: AttackParameters,
    ) -> None:
        self.classifier, self.objective = classifier, objective
        self.images, self.labels, self.index, self.parameters = images.detach(), labels, index, parameters
        self.device = memory.device_of(classifier, images)
        self.whole = bool(getattr(classifier, "batch_dependent", False))
        self.batch_size = parameters.batch_size or BATCH
        self._check_classifier()
        if parameters.batch_size is None and not self.whole:
            self.batch_size = memory.batch_size(classifier, images)
        self.sources = {
            row.source: load_checkpoint(ROOT / row.source, self.device) for row in parameters.suite.rows if row.source
        }
        # Points of attacks that look for the smallest change: found once, judged at every eps.
        self.raw: dict[str, Tensor] = {}
        self.logits, self.refused = self._logits()
        check_logits(self.logits, labels.to(self.device))

    def batches(self, todo: Mask, *, limited: bool = False) -> Iterator[Tensor]:
        """Positions of the images to do, by batches; a batch-dependent classifier keeps its batches of all images."""
        rows = np.arange(len(todo)) if self.whole else np.flatnonzero(todo)
        size = min(LIMITED, self.batch_size) if limited and not self.whole else self.batch_size
        for batch in torch.from_numpy(rows).split(size):
            if todo[batch.numpy()].any():
                yield batch

    def clean(self) -> Mask:
        """Which images are classified right, or rejected where the classifier may reject."""
        return (self.logits.argmax(1) == self.labels.to(self.device)).cpu().numpy()

    def certified(self, threat: Threat, method: Method, known: Mask) -> Mask:
        """Which images bounds prove in a ball; those that are ``known`` to be proved, in a larger one, need no more."""
        if not isinstance(self.classifier, Classifier):
            raise ValueError(f"no bounds for {type(self.classifier).__name__}: certify needs an isce.models.Classifier")
        # What is proved right is handled, whatever its detector says.
        network = self.classifier.unguarded if isinstance(self.classifier, Guarded) else self.classifier
        with untouched(network):
            todo, proved = torch.from_numpy(~known), known.copy()
            if todo.any():
                x, y = self.images[todo].to(self.device), self.labels[todo].to(self.device)
                proved[~known] = certified(network, x, y, threat, method).cpu().numpy()
            return proved

    def upheld(self, threat: Threat, method: Method, proved: Mask, stands: Mask) -> Mask:
        """What stays proved beside the attacks' points, which may lie beyond eps by a tolerance.

        An image that was broken there alone is not proved for the tolerated radius, and is taken out. One that is
        proved for that, too, stays: proof and point contradict each other.
        """
        doubtful = proved & ~stands
        if not doubtful.any():
            return proved
        reach = min(threat.reach, 1.0) if threat.norm == "linf" else threat.reach
        wider = self.certified(dataclasses.replace(threat, eps=reach), method, ~doubtful)
        return proved & (stands | wider)

    def _check_classifier(self) -> None:
        """Refuse a classifier that the suite can't be run on, seen on a few images."""
        few, rows = slice(min(FEW, self.batch_size)), self.parameters.suite.rows
        x, y = self.images[few].to(self.device), self.labels[few].to(self.device)
        wanted = any(attacks.about(row.attack).gradients for row in rows)
        check_rejection(self.classifier, blind=[row.label for row in rows if row.blind])
        try:
            with untouched(self.classifier, self.objective):
                logits = first_logits(self.classifier, self.objective, x, y, gradients=wanted)
        except Exception as error:
            self.stop_if_out_of_memory(error)
            raise
        check_gradient(logits, rows)

    def _logits(self) -> tuple[Tensor, Mask]:
        """Of all images as they stand (N, K), folded, with which every row begins; and which images are rejected."""
        parts: list[Tensor] = []
        rejected: list[Tensor] = []
        with untouched(self.classifier), torch.no_grad():
            for batch in self.batches(np.ones(len(self.labels), dtype=bool)):
                y = self.labels[batch].to(self.device)
                try:
                    logits = logits_of(self.classifier, self.images[batch].to(self.device))
                except Exception as error:
                    self.stop_if_out_of_memory(error)
                    raise
                parts.append(judged(self.classifier, logits, y).clone())  # a network may hand out one buffer again
                check_logits(parts[-1], y)
                rejected.append(refused(self.classifier, logits))
        return torch.cat(parts), torch.cat(rejected).cpu().numpy()

    def attack(self, spec: AttackSpec, threat: Threat, standing: Mask, spared: Mask, bar: tqdm[Any]) -> Outcome:
        """One row of the suite on those of its images that stand and are not spared.

        Raises:
            RuntimeError: out of memory, with the remedy; or our own code or the network failed, with the row and the
                error. Only a failure of the package that runs the attack is a matter of its row.
        """
        try:
            return self._attack(spec, threat, standing, spared, bar)
        except Exception as error:
            self.stop_if_out_of_memory(error)
            raise RuntimeError(f"{spec.label} {threat.label}: {type(error).__name__}: {error}") from error

    def _attack(self, spec: AttackSpec, threat: Threat, standing: Mask, spared: Mask, bar: tqdm[Any]) -> Outcome:
        asked = np.ones(len(self.labels), dtype=bool)
        if spec.images is not None and spec.images < len(asked):
            asked[:] = False
            asked[stratified(self.labels.cpu(), spec.images).numpy()] = True
            if int(asked.sum()) != spec.images:
                raise RuntimeError(f"the subset must have {spec.images} images, got {int(asked.sum())}")
        todo = standing & asked & ~spared
        tally = _Tally(asked, spared & asked, threat, self.images, keep_points=self.parameters.keep_points)
        raw = self.raw.get(spec.label) if spec.threat is None else None
        deadline = None if spec.seconds is None else time.monotonic() + spec.seconds
        for batch in self.batches(todo, limited=deadline is not None):
            try:
                with _counted(self.classifier, tally):
                    result = self._run(spec, threat, batch, None if raw is None else raw[batch], deadline)
                    nearest = self._nearest(threat, batch, result.raw) if attacks.about(spec.attack).minimal else None
            except TimeLimitError:
                tally.errors[f"stopped after {spec.seconds:g} s"] = None
                break
            except ForeignError as error:
                if _out_of_memory(error):
                    raise
                tally.errors[str(error)] = None
                continue
            tally.add(batch, todo[batch.numpy()], result, nearest)
            done, broken = (int(tally.masks[name].sum()) for name in ("attacked", "broken"))
            bar.set_postfix_str(f"{done}/{int(todo.sum())} images, {broken} broken")
        if raw is None and spec.threat is None and attacks.about(spec.attack).minimal and not tally.errors:
            self.raw[spec.label] = tally.raw
        return tally.outcome(spec)

    def _nearest(self, threat: Threat, batch: Tensor, points: Tensor) -> Tensor:
        """Distance of what an attack for the smallest change found in the box, whatever eps is; inf where nothing."""
        x, y = self.images[batch].to(points), self.labels[batch].to(self.device)
        held = points.nan_to_num().clamp(0, 1)
        with untouched(self.classifier), torch.no_grad():
            logits = judged(self.classifier, self.classifier(held), y)
        found = torch.isfinite(logits).all(1) & torch.isfinite(points).flatten(1).all(1) & (logits.argmax(1) != y)
        return threat.distance(held, x).masked_fill(~found, math.inf)

    def stop_if_out_of_memory(self, error: Exception) -> None:
        """Raise a :class:`RuntimeError` with the remedy if memory ran out."""
        if _out_of_memory(error):
            advice = f"out of memory with batch_size {self.batch_size}: lower it and run again ({error})"
            raise RuntimeError(advice) from error

    def _run(
        self, spec: AttackSpec, threat: Threat, batch: Tensor, raw: Tensor | None, deadline: float | None
    ) -> attacks.AttackResult:
        source = self.sources[spec.source] if spec.source else None
        return attacks.run(
            spec,
            self.classifier,
            self.objective,
            self.images[batch].to(self.device),
            self.labels[batch].to(self.device),
            threat,
            seed=self.parameters.seed,
            index=self.index[batch].to(self.device),
            source=(source.classifier, source.objective) if source else None,
            logits=self.logits[batch.to(self.device)],
            raw=None if raw is None else raw.to(self.device),
            deadline=deadline,
        )


class _Tally:
    """What a row has done so far, batch by batch."""

    def __init__(self, asked: Mask, spared: Mask, threat: Threat, images: Tensor, *, keep_points: bool) -> None:
        self.asked, self.spared, self.threat, self.images, self.keep_points = asked, spared, threat, images, keep_points
        self.masks = {name: np.zeros_like(asked) for name in ("attacked", "broken", "rejected", "last_broken", "hit")}
        self.first, self.distance = np.full(len(asked), -1), np.full(len(asked), math.inf)
        self.forwards = self.gradients = 0
        self.raw = images.clone()
        self.points: dict[int, Any] = {}
        self.errors: dict[str, None] = {}  # an ordered set

    def add(self, batch: Tensor, chosen: Mask, result: attacks.AttackResult, nearest: Tensor | None) -> None:
        """Count one batch, of which only the chosen images are to be; ``nearest``: distances beyond eps, if known.

        Raises:
            RuntimeError: the result is not one of this batch.
        """
        for name in (field.name for field in dataclasses.fields(result)):
            shape = (len(batch), *(self.raw.shape[1:] if name in ("adversarial", "raw") else ()))
            if (got := tuple(getattr(result, name).shape)) != shape:
                raise RuntimeError(f"{name} of a result must have shape {shape}, got {got}")
        rows, broken = batch.numpy(), result.success.cpu().numpy() & chosen
        found = {"rejected": result.rejected, "last_broken": result.last_success, "hit": result.hit & result.success}
        self.masks["attacked"][rows], self.masks["broken"][rows] = chosen, broken
        for name, mask in found.items():
            self.masks[name][rows] = mask.cpu().numpy() & chosen
        self.first[rows] = np.where(chosen, result.first_success.cpu().numpy(), -1)
        distance = self.threat.distance(result.adversarial, self.images[batch].to(result.adversarial))
        distance = np.where(broken, distance.cpu().numpy(), math.inf)
        self.distance[rows] = distance if nearest is None else np.minimum(distance, nearest.cpu().numpy())
        self.raw[batch] = result.raw.to(self.raw)
        if self.keep_points:
            points = result.adversarial.float().cpu().numpy()[broken]
            self.points |= zip(rows[broken].tolist(), points, strict=True)

    def outcome(self, spec: AttackSpec) -> Outcome:
        """The row's outcome."""
        kept = {"points": np.stack([self.points[i] for i in sorted(self.points)])} if self.points else {}
        return Outcome(
            self.asked,
            **self.masks,
            first_success=self.first,
            survivors=bool(spec.survivors),
            targeted=spec.targeted,
            spared=self.spared,
            distance=self.distance,
            forwards=self.forwards,
            gradients=self.gradients,
            error="; ".join(self.errors),
            **kept,
        )


@contextmanager
def _counted(classifier: nn.Module, tally: _Tally) -> Generator[None]:
    """Count what a row asks of the network."""

    def count(_: nn.Module, given: tuple[Any, ...]) -> None:
        tally.forwards += len(given[0])
        tally.gradients += len(given[0]) * (torch.is_grad_enabled() and given[0].requires_grad)

    hook = classifier.register_forward_pre_hook(count)
    try:
        yield
    finally:
        hook.remove()


def _out_of_memory(error: BaseException) -> bool:
    """On a GPU torch has a class for it; on the CPU only a text, one for each system."""
    error = error.__cause__ if isinstance(error, ForeignError) and error.__cause__ else error
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return any(text in str(error) for text in ("not enough memory", "can't allocate memory", "Cannot allocate memory"))
