"""Saved adversarial points judged anew: by a fresh load of the checkpoint, the data set and the record."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from isce import data
from isce.attacks import Threat
from isce.attacks.rejection import judged
from isce.data.sets import Split
from isce.evaluation.saved import load_arrays, load_points
from isce.files import ROOT, RecordError, sha256
from isce.parameters.attack import AttackParameters
from isce.runs.records import EXAMPLES, POINTS, Record, read
from isce.strict import ConfigError, validate
from isce.training.checkpoint import CheckpointError, LoadedCheckpoint, load_checkpoint

BATCH = 256


@dataclass(frozen=True)
class Verdict:
    """What became of the points of one threat; images are named by their place among those attacked.

    Attributes:
        name: the side file's short name and the threat, such as ``adversarial linf@0.1``.
        n: number of points.
        outside: images whose point lies outside ball or box, or is not finite.
        right: images whose point is classified right, or rejected, or gets logits that are not finite.
        foreign: places in the side file whose image or label is none of the data set's.
        farthest: largest distance of a point from its image, in the threat's norm; 0 without points.
    """

    name: str
    n: int
    outside: tuple[int, ...]
    right: tuple[int, ...]
    foreign: tuple[int, ...]
    farthest: float

    @property
    def holds(self) -> bool:
        """Whether every point is what the record says."""
        return not (self.outside or self.right or self.foreign)

    def lines(self) -> list[str]:
        """One line, and one more for each kind of failure with the images that fail."""
        judged = self.n - len(self.foreign)
        inside, misclassified = (f"{judged - len(bad)}/{self.n}" for bad in (self.outside, self.right))
        text = f"{self.name}: inside {inside}, misclassified {misclassified}, largest distance {self.farthest:.7g}"
        failures = {
            "outside ball or box": self.outside,
            "classified right": self.right,
            "image or label not in the data set": self.foreign,
        }
        found = [f"  {what}: {', '.join(map(str, places))}" for what, places in failures.items() if places]
        return [text, *found]


def verify_run(folder: Path, root: Path = ROOT) -> list[Verdict]:
    """Judge the side files of an attack run.

    The images come from the data set, not from the run, and the network runs on the CPU. A point that lies within float
    rounding of a decision boundary may be judged the other way there than on the machine of the run.

    Args:
        folder: holds the run's ``record.json`` and side files.
        root: folder that the checkpoint's path is relative to.

    Returns:
        One verdict for each threat of each side file.

    Raises:
        RecordError: record or side file missing, damaged or of another format; another checkpoint or data set than the
            record's.
        ConfigError: no attack run, a checkpoint that can't be read, or a batch-dependent network, whose points mean
            nothing without the rest of their batches.
    """
    record = read(folder / "record.json")
    if record.kind != "attack":
        raise ConfigError(f"{folder} holds a {record.kind} run; only an attack run has adversarial points to verify")
    parameters = validate(AttackParameters, record.parameters, f"record of {folder}")
    listed = [name for name in (EXAMPLES, POINTS) if name in record.files]
    if not listed:
        raise ConfigError(f"the record of {folder} lists no adversarial points: neither {EXAMPLES} nor {POINTS}")
    loaded = _checkpoint(root / parameters.checkpoint, folder, record)
    judge = _Judge(loaded, _images(loaded, record, parameters), parameters)
    judge.check_clean(record)
    verdicts: list[Verdict] = []
    if EXAMPLES in listed:
        verdicts.append(judge.examples(load_arrays(folder / EXAMPLES, record.files[EXAMPLES]), folder / EXAMPLES))
    if POINTS in listed:
        points = load_points(folder / POINTS, record.files[POINTS])
        verdicts += [judge.points(*pair, label, folder / POINTS) for label, pair in points.items()]
    return verdicts


def _checkpoint(path: Path, folder: Path, record: Record) -> LoadedCheckpoint:
    """The network that was attacked; compared with the record of its training where that stands beside the run."""
    training = folder.resolve().parent.parent / "train" / record.run / "record.json"
    try:
        loaded = load_checkpoint(path)
    except CheckpointError as error:
        raise ConfigError(str(error)) from None
    if training.is_file():
        expected = read(training).files.get(path.name)
        if expected not in (None, sha256(path)):
            raise RecordError(f"{path} is another checkpoint than {training} names: its SHA-256 is not {expected}")
    if loaded.classifier.batch_dependent:
        raise ConfigError(f"the network of {path} depends on the batch: its points can't be judged one by one")
    return loaded


def _images(loaded: LoadedCheckpoint, record: Record, parameters: AttackParameters) -> Split:
    """The images that were attacked."""
    try:
        splits = data.load(loaded.parameters.dataset)
    except ValueError as error:
        raise ConfigError(str(error)) from None
    if splits.sha256 != record.data_sha256:
        raise RecordError(f"{splits.name} is another data set now than the record's: its SHA-256 is {splits.sha256}")
    return splits.test if parameters.images is None else splits.test.subset(parameters.images)


class _Judge:
    """A network, the images that were attacked, and what the adversary was allowed."""

    def __init__(self, loaded: LoadedCheckpoint, test: Split, parameters: AttackParameters) -> None:
        self.classifier, self.labels, self.images = loaded.classifier, test.labels, test.unit()
        own = [row.threat for row in parameters.suite.rows if row.threat is not None]
        self.threats = {t.label: t for t in [*own, *(Threat(parameters.norm, eps) for eps in parameters.eps)]}
        self.parameters = parameters

    def check_clean(self, record: Record) -> None:
        """Refuse a network that does not decide on the clean images as the record says."""
        right, clean = int((~self._wrong(self.images, self.labels)).sum()), record.results["clean"]
        if (right, len(self.labels)) != (clean["correct"], clean["n"]):
            raise RecordError(
                f"{self.parameters.checkpoint} gets {right} of {len(self.labels)} clean images right, the record says "
                f"{clean['correct']} of {clean['n']}: it is not the network that was attacked"
            )

    def points(self, index: Tensor, adversarial: Tensor, label: str, path: Path) -> Verdict:
        """Points of one threat."""
        if label not in self.threats:
            raise RecordError(f"{path} holds points of {label}; the record's threats: {', '.join(self.threats)}")
        if len(index) and int(index[-1]) >= len(self.images):
            raise RecordError(f"{path}, {label}: image {int(index[-1])} is none of the {len(self.images)} attacked")
        return self._judge(f"adversarial {label}", index, adversarial, self.threats[label], path)

    def examples(self, arrays: dict[str, Tensor], path: Path) -> Verdict:
        """The few examples of the run, found at its largest eps; each is looked up among the images by its pixels."""
        if not {"clean", "adversarial", "labels"} <= set(arrays):
            raise RecordError(f"{path} must hold clean, adversarial and labels, it holds {', '.join(sorted(arrays))}")
        clean, adversarial, labels = arrays["clean"], arrays["adversarial"], arrays["labels"]
        if clean.shape[1:] != self.images.shape[1:] or not len(clean) == len(adversarial) == len(labels):
            shapes = f"{tuple(clean.shape)}, {tuple(adversarial.shape)}, {tuple(labels.shape)}"
            raise RecordError(f"{path}: clean, adversarial and labels don't fit the images, got {shapes}")
        found = [self._place(image, int(label)) for image, label in zip(clean, labels, strict=True)]
        known = torch.tensor([place is not None for place in found], dtype=torch.bool)
        index = torch.tensor([place for place in found if place is not None], dtype=torch.int64)
        threat = Threat(self.parameters.norm, self.parameters.eps[-1])
        foreign = tuple((~known).nonzero()[:, 0].tolist())
        return self._judge(f"examples {threat.label}", index, adversarial[known], threat, path, foreign)

    def _place(self, image: Tensor, label: int) -> int | None:
        """Where an image stands among those attacked; None if it is none of them, or of another label."""
        same = (self.images == image).flatten(1).all(1) & (self.labels == label)
        return int(same.nonzero()[0]) if bool(same.any()) else None

    def _judge(
        self,
        name: str,
        index: Tensor,
        adversarial: Tensor,
        threat: Threat,
        path: Path,
        foreign: tuple[int, ...] = (),
    ) -> Verdict:
        clean, labels = self.images[index], self.labels[index]
        if adversarial.shape != clean.shape:
            want, got = tuple(clean.shape), tuple(adversarial.shape)
            raise RecordError(f"{path}, {name}: points must have shape {want}, got {got}")
        inside, wrong = threat.inside(adversarial, clean), self._wrong(adversarial, labels)
        farthest = float(threat.distance(adversarial, clean).max()) if len(index) else 0.0
        outside, right = (tuple(index[~good].tolist()) for good in (inside, wrong))
        return Verdict(name, len(index) + len(foreign), outside, right, foreign, farthest)

    def _wrong(self, images: Tensor, labels: Tensor) -> Tensor:
        """Which images the network accepts and misclassifies, with finite logits, bool (N,)."""
        parts = [torch.zeros(0, dtype=torch.bool)]
        size = self.parameters.batch_size or BATCH
        with torch.no_grad():
            for x, y in zip(images.split(size), labels.split(size), strict=True):
                logits = judged(self.classifier, self.classifier(x), y)
                parts.append((logits.argmax(1) != y) & logits.isfinite().all(1))
        return torch.cat(parts)
