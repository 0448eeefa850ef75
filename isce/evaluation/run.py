"""One classifier through a suite: batches, progress, and a state file from which a killed evaluation goes on."""

from __future__ import annotations

import contextlib
import io
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from isce import attacks
from isce.attacks import Threat
from isce.attacks.base import untouched
from isce.attacks.checks import check_images, check_index, check_scores
from isce.evaluation.outcome import Evaluation, Mask, Outcome
from isce.records import canonical, sha256, versions, write_atomic
from isce.sources import closure, essence, module_files

if TYPE_CHECKING:
    from isce.config import AttackParameters, AttackSpec

ROOT = Path(__file__).resolve().parent.parent.parent


def evaluate(
    classifier: nn.Module,
    objective: Any,
    images: Tensor,
    labels: Tensor,
    parameters: AttackParameters,
    *,
    index: Tensor | None = None,
    progress: bool = True,
    state: Path | None = None,
) -> Evaluation:
    """Run a suite against a classifier.

    Args:
        classifier: maps images to raw scores (N, K); runs on the device of its parameters; left as it was.
        objective: the objective it was trained with.
        images: (N, C, H, W), floating point in [0, 1].
        labels: (N,), int64 in [0, K).
        parameters: suite, norm, eps, seed and batch size.
        index: place of each image in its data set (N,), int64, which keys the randomness; default 0 to N - 1.
        progress: show a progress bar.
        state: file that keeps every finished row; an evaluation of the same weights, images, parameters and code that
            was interrupted goes on there. A file of anything else is started over.

    Returns:
        The outcome for every image. It doesn't depend on ``batch_size`` beyond float rounding, unless the classifier is
        batch-dependent.

    Raises:
        TypeError, ValueError: images or labels that can't be used, see ``attacks.run``.
        RuntimeError: out of memory; names the remedy. Finished rows are kept in ``state``.
    """
    check_images(images, labels)
    job = _Job(classifier, objective, images, labels, check_index(index, labels), parameters)
    kept = _State(state, job)
    clean = job.clean()
    left, outcomes = clean.copy(), dict[str, dict[str, Outcome]]()
    rows, survivors_only = parameters.suite.rows, parameters.suite.survivors_only
    with tqdm(total=len(parameters.eps) * len(rows), disable=not progress, unit="attack") as bar:
        for eps in parameters.eps:
            threat = Threat(parameters.norm, eps)
            found = outcomes.setdefault(threat.label, {})
            for spec in rows:
                bar.set_description(f"{spec.label} {threat.label}")
                name = f"{threat.label}/{spec.label}"
                if name not in kept.outcomes:
                    kept.add(name, job.attack(spec, threat, left if survivors_only else clean, bar))
                found[spec.label] = kept.outcomes[name]
                left &= ~found[spec.label].broken
                bar.update()
    return Evaluation(clean, outcomes, survivors_only)


class _Job:
    """A classifier, its images, and how they go through it in batches."""

    def __init__(
        self,
        classifier: nn.Module,
        objective: Any,
        images: Tensor,
        labels: Tensor,
        index: Tensor,
        parameters: AttackParameters,
    ) -> None:
        self.classifier, self.objective = classifier, objective
        self.images, self.labels, self.index, self.parameters = images, labels, index, parameters
        self.device = next((p.device for p in classifier.parameters()), images.device)
        self.whole = bool(getattr(classifier, "batch_dependent", False))

    def batches(self, todo: Mask) -> Iterator[Tensor]:
        """Positions of the images to do, by batches; a batch-dependent classifier keeps its batches of all images."""
        rows = np.arange(len(todo)) if self.whole else np.flatnonzero(todo)
        for batch in torch.from_numpy(rows).split(self.parameters.batch_size):
            if todo[batch.numpy()].any():
                yield batch

    def clean(self) -> Mask:
        """Which images are classified right."""
        correct = np.zeros(len(self.labels), dtype=bool)
        with untouched(self.classifier), torch.no_grad():
            for batch in self.batches(~correct):
                y = self.labels[batch].to(self.device)
                scores = self.classifier(self.images[batch].to(self.device))
                check_scores(scores, y)
                correct[batch.numpy()] = (scores.argmax(1) == y).cpu().numpy()
        return correct

    def attack(self, spec: AttackSpec, threat: Threat, todo: Mask, bar: tqdm[Any]) -> Outcome:
        """One row of the suite on the images to do."""
        n = len(todo)
        masks = {f.name: np.zeros(n, dtype=bool) for f in fields(Outcome) if f.name != "first_success"}
        first = np.full(n, -1)
        done = 0
        for batch in self.batches(todo):
            rows, chosen = batch.numpy(), todo[batch.numpy()]
            try:
                result = attacks.run(
                    spec,
                    self.classifier,
                    self.objective,
                    self.images[batch].to(self.device),
                    self.labels[batch].to(self.device),
                    threat,
                    seed=self.parameters.seed,
                    index=self.index[batch].to(self.device),
                )
            except torch.OutOfMemoryError as error:
                size = self.parameters.batch_size
                raise RuntimeError(f"out of memory with batch_size {size}: lower it and run again ({error})") from error
            masks["attacked"][rows] = chosen
            masks["broken"][rows] = result.success.cpu().numpy() & chosen
            masks["rejected"][rows] = result.rejected.cpu().numpy() & chosen
            masks["last_broken"][rows] = result.last_success.cpu().numpy() & chosen
            first[rows] = np.where(chosen, result.first_success.cpu().numpy(), -1)
            done += int(chosen.sum())
            bar.set_postfix_str(f"{done}/{int(todo.sum())} images, {int(masks['broken'].sum())} broken")
        return Outcome(first_success=first, **masks)

    def key(self) -> str:
        """Hash of everything that decides the outcome: weights, images, labels, parameters, code and packages."""
        objects = {"classifier": self.classifier, "objective": self.objective}
        weights = {f"{o}.{n}": _digest(v) for o, module in objects.items() for n, v in module.state_dict().items()}
        plain = {n: repr(v) for n, v in vars(self.objective).items() if isinstance(v, bool | int | float | str | tuple)}
        families = [f"isce.attacks.{attacks.family(row.attack)}" for row in self.parameters.suite.rows]
        modules = closure([__name__, *families, *(type(o).__module__ for o in objects.values())], ROOT, skip=())
        code = {name: sha256(essence(file.read_text(encoding="utf-8"))) for name, file in module_files(modules, ROOT)}
        parameters = self.parameters.model_dump(mode="json", exclude={"checkpoint"})
        data = [_digest(tensor) for tensor in (self.images, self.labels, self.index)]
        return sha256(canonical([weights, plain, code, parameters, data, versions()]))


def _digest(tensor: Tensor) -> str:
    array = np.ascontiguousarray(tensor.detach().cpu().numpy())
    return sha256(f"{array.dtype} {array.shape}".encode() + array.tobytes())


class _State:
    """Finished rows of one evaluation, kept in a file if there is one."""

    def __init__(self, path: Path | None, job: _Job) -> None:
        self.path = path
        self.outcomes: dict[str, Outcome] = {}
        if path is None:
            return
        self.key = job.key()
        unreadable = (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error)
        with contextlib.suppress(*unreadable), np.load(io.BytesIO(path.read_bytes())) as arrays:
            if str(arrays["key"]) == self.key:
                for name in {stored.rpartition("/")[0] for stored in arrays.files} - {""}:
                    self.outcomes[name] = Outcome(**{f.name: arrays[f"{name}/{f.name}"] for f in fields(Outcome)})

    def add(self, name: str, outcome: Outcome) -> None:
        """Keep a finished row."""
        self.outcomes[name] = outcome
        if self.path is None:
            return
        buffer = io.BytesIO()
        arrays = {f"{n}/{f.name}": getattr(o, f.name) for n, o in self.outcomes.items() for f in fields(Outcome)}
        np.savez_compressed(buffer, allow_pickle=False, key=np.array(self.key), **arrays)
        write_atomic(self.path, buffer.getvalue())
