"""Data sets as uint8 tensors: digits (embedded in scikit-learn), MNIST and CIFAR-10 (through torchvision).

Files are checked against the MD5 sums that torchvision knows before anything in them is read; CIFAR-10's batches are
the only pickles ever opened, and only after that check.
"""

from __future__ import annotations

import gzip
import hashlib
import os
import tarfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from isce.compat import import_torchvision
from isce.data.download import download_file, require
from isce.losses.checks import known

SPLIT_SEED = 0  # one split for everybody: it isn't a parameter of a run
VALIDATION_IMAGES = 5000
DIGITS_TEST, DIGITS_VALIDATION = 449, 180  # 25% and 10% of 1,797


@dataclass(frozen=True)
class Split:
    """Images and labels of one split.

    Attributes:
        images: uint8 (N, C, H, W), values 0 to ``peak``.
        labels: int64 (N,).
        peak: value of full white: 16 for digits, else 255.
        index: int64 (N,), place of each image in the published set; default: 0 to N - 1.

    Raises:
        TypeError, ValueError: wrong dtype, shape, length or range.
    """

    images: Tensor
    labels: Tensor
    peak: int
    index: Tensor = field(default_factory=lambda: torch.empty(0, dtype=torch.int64))

    def __post_init__(self) -> None:
        for name, dtype, dim in (("images", torch.uint8, 4), ("labels", torch.int64, 1), ("index", torch.int64, 1)):
            value = getattr(self, name)
            if value.dtype != dtype:
                raise TypeError(f"{name} must be {dtype}, got {value.dtype}")
            if value.dim() != dim:
                raise ValueError(f"{name} must have {dim} dimensions, got shape {tuple(value.shape)}")
        if not len(self.index):
            object.__setattr__(self, "index", torch.arange(len(self.labels)))
        if not len(self.images) == len(self.labels) == len(self.index):
            raise ValueError(f"{len(self.images)} images, {len(self.labels)} labels and {len(self.index)} indices")
        if len(self.labels) and int(self.labels.min()) < 0:
            raise ValueError(f"labels must be at least 0, got {int(self.labels.min())}")
        if len(self.images) and int(self.images.max()) > self.peak:
            raise ValueError(f"images must be at most {self.peak}, got {int(self.images.max())}")

    def __len__(self) -> int:
        return len(self.labels)

    def unit(self, index: Tensor | slice | None = None, device: torch.device | str | None = None) -> Tensor:
        """Images as float32 in [0, 1], all or those at ``index``, moved to ``device`` (as bytes) first."""
        images = self.images if index is None else self.images[index]
        return images.to(device).to(torch.float32) / self.peak

    def select(self, index: Tensor) -> Split:
        """The split made of the images at ``index`` (int64), in that order."""
        return Split(self.images[index], self.labels[index], self.peak, self.index[index])

    def subset(self, n: int, seed: int = SPLIT_SEED) -> Split:
        """A stratified subset of ``n`` images in their former order; the same ``n`` and ``seed``, the same images.

        Raises:
            ValueError: ``n`` isn't in 1 to len(self).
        """
        return self.select(stratified(self.labels, n, seed))


@dataclass(frozen=True)
class Data:
    """A data set in three splits.

    Attributes:
        name: registry name.
        train: training split.
        validation: validation split, drawn from the published training set.
        test: published test set (digits: a fixed stratified quarter).
        num_classes: number of classes.
        input_shape: channels, height, width.
        mean: mean of each channel over the training split, images in [0, 1].
        std: standard deviation of each channel over the training split, images in [0, 1].
        sha256: hash of images and labels of the three splits.
        class_names: one for each label.
    """

    name: str
    train: Split
    validation: Split
    test: Split
    num_classes: int
    input_shape: tuple[int, int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    sha256: str
    class_names: tuple[str, ...]


@dataclass(frozen=True)
class DataSet:
    """What is known of a data set before it is loaded.

    Attributes:
        title: its name in a sentence.
        shape: channels, height, width.
        sizes: images of the training, validation and test split.
        sha256: ``Data.sha256``, content and splits; part of a run's key, and checked by :func:`load`.
        loader: reads it from a folder, and downloads missing files if told to.
    """

    title: str
    shape: tuple[int, int, int]
    sizes: tuple[int, int, int]
    sha256: str
    loader: Callable[[Path, bool], Data]


def names() -> list[str]:
    """Names that :func:`load` knows, sorted."""
    return sorted(SETS)


def load(name: str, root: Path | str | None = None, download: bool = True) -> Data:
    """Load a data set.

    Args:
        name: one of :func:`names`.
        root: folder of the downloaded files; None: ``$ISCE_DATA``, or ``data`` where that isn't set.
        download: fetch missing files, with a progress bar.

    Raises:
        ValueError: unknown name, a file is damaged, or content or splits differ from those of the records.
        FileNotFoundError: files are missing and can't be, or are not to be, downloaded.
        OSError: ``root`` can't be written.
    """
    known_set = known("data set", name, SETS)
    loaded = known_set.loader(Path(root or os.environ.get("ISCE_DATA") or "data"), download)
    if loaded.sha256 != (expected := known_set.sha256):
        raise ValueError(f"data set {name!r}: content or splits differ; SHA-256 {loaded.sha256}, expected {expected}")
    return loaded


def stratified(labels: Tensor, n: int, seed: int = SPLIT_SEED) -> Tensor:
    """Places of ``n`` labels, drawn so that each class has its share (largest remainders; ties: lower class).

    Args:
        labels: int64 (N,).
        n: how many, 1 to N.
        seed: of the draw within each class.

    Returns:
        int64 (n,), rising.

    Raises:
        ValueError: ``n`` out of range.
    """
    total = len(labels)
    if not 1 <= n <= total:
        raise ValueError(f"a subset must have 1 to {total} images, got {n}")
    counts: list[int] = torch.bincount(labels).tolist()
    quotas = [n * count // total for count in counts]
    by_remainder = sorted(range(len(counts)), key=lambda k: (-(n * counts[k] % total), k))
    for k in by_remainder[: n - sum(quotas)]:
        quotas[k] += 1
    generator = torch.Generator().manual_seed(seed)
    parts: list[Tensor] = []
    for k, quota in enumerate(quotas):
        members = torch.nonzero(labels == k).flatten()
        parts.append(members[torch.randperm(len(members), generator=generator)[:quota]])
    return torch.cat(parts).sort().values


def _take(pool: Split, n: int) -> tuple[Split, Split]:
    """A stratified part of ``n`` images, and the rest."""
    taken = stratified(pool.labels, n)
    rest = torch.ones(len(pool), dtype=torch.bool)
    rest[taken] = False
    return pool.select(taken), pool.select(torch.nonzero(rest).flatten())


def _assemble(name: str, pool: Split, validation_images: int, test: Split, class_names: tuple[str, ...]) -> Data:
    validation, train = _take(pool, validation_images)
    mean, std = _statistics(train)
    _, channels, height, width = train.images.shape
    return Data(
        name=name,
        train=train,
        validation=validation,
        test=test,
        num_classes=len(class_names),
        input_shape=(channels, height, width),
        mean=mean,
        std=std,
        sha256=_digest(train, validation, test),
        class_names=class_names,
    )


def _statistics(split: Split) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of each channel of the images in [0, 1]; from counts, so exact and ordered."""
    values = torch.arange(split.peak + 1, dtype=torch.float64) / split.peak
    means: list[float] = []
    stds: list[float] = []
    for channel in split.images.unbind(1):
        share = torch.bincount(channel.flatten(), minlength=split.peak + 1).double() / channel.numel()
        mean = float((share * values).sum())
        means.append(mean)
        stds.append(float((share * (values - mean) ** 2).sum().sqrt()))
    return tuple(means), tuple(stds)


def _digest(*splits: Split) -> str:
    """SHA-256 over shape and bytes of images and labels, split by split."""
    digest = hashlib.sha256()
    for split in splits:
        for tensor in (split.images, split.labels):
            digest.update(f"{tensor.dtype} {tuple(tensor.shape)} peak {split.peak};".encode())
            digest.update(tensor.contiguous().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _digits(root: Path, download: bool) -> Data:
    from sklearn.datasets import load_digits  # pyright: ignore[reportUnknownVariableType]

    bunch: Any = load_digits()
    whole = Split(
        torch.from_numpy(bunch.images).to(torch.uint8).unsqueeze(1), torch.from_numpy(bunch.target).long(), peak=16
    )
    test, pool = _take(whole, DIGITS_TEST)
    return _assemble("digits", pool, DIGITS_VALIDATION, test, tuple(str(k) for k in range(10)))


def _mnist(root: Path, download: bool) -> Data:
    mnist = import_torchvision().datasets.MNIST
    files = {f"MNIST/raw/{name}": md5 for name, md5 in mnist.resources}

    def fetch(staging: Path, missing: Mapping[str, str]) -> None:
        for path, md5 in missing.items():
            download_file([mirror + Path(path).name for mirror in mnist.mirrors], staging / path, md5)

    require("MNIST", root, files, fetch if download else None)
    pool, test = (
        Split(_idx(root, f"{part}-images-idx3-ubyte").unsqueeze(1), _idx(root, f"{part}-labels-idx1-ubyte").long(), 255)
        for part in ("train", "t10k")
    )
    return _assemble("mnist", pool, VALIDATION_IMAGES, test, tuple(str(k) for k in range(10)))


def _idx(root: Path, name: str) -> Tensor:
    """Decode one file of MNIST: 4 bytes whose last is the number of dimensions, their sizes, then bytes."""
    raw = gzip.decompress((root / "MNIST" / "raw" / f"{name}.gz").read_bytes())
    start = 4 + 4 * raw[3]
    shape = [int.from_bytes(raw[i : i + 4]) for i in range(4, start, 4)]
    return torch.frombuffer(bytearray(raw), dtype=torch.uint8, offset=start).reshape(shape)


def _cifar10(root: Path, download: bool) -> Data:
    cifar10 = import_torchvision().datasets.CIFAR10
    listed = [*cifar10.train_list, *cifar10.test_list, (cifar10.meta["filename"], cifar10.meta["md5"])]
    files = {f"{cifar10.base_folder}/{name}": md5 for name, md5 in listed}

    def fetch(staging: Path, missing: Mapping[str, str]) -> None:
        archive = staging / cifar10.filename
        download_file([cifar10.url], archive, cifar10.tgz_md5)
        with tarfile.open(archive) as tar:
            for path in missing:
                member = tar.extractfile(path)
                assert member is not None, f"{path} is a folder in {archive.name}"
                (staging / path).parent.mkdir(exist_ok=True)
                (staging / path).write_bytes(member.read())

    require("CIFAR-10", root, files, fetch if download else None)
    published = [cifar10(root, train=train) for train in (True, False)]  # checks the MD5 sums again, then unpickles
    pool, test = (
        Split(torch.from_numpy(p.data).permute(0, 3, 1, 2).contiguous(), torch.tensor(p.targets), 255)
        for p in published
    )
    return _assemble("cifar10", pool, VALIDATION_IMAGES, test, tuple(published[0].classes))


#: The data sets, by name: to add one, add its loader above and a row here.
SETS = {
    "cifar10": DataSet(
        "CIFAR-10",
        (3, 32, 32),
        (45_000, 5_000, 10_000),
        "fcc1e91e6e125fde1184aef97473387dd2646a2ab594fb3d78b8a896c6f9036d",
        _cifar10,
    ),
    "digits": DataSet(
        "scikit-learn's digits",
        (1, 8, 8),
        (1168, 180, 449),
        "64e9a885f58f070cb7ea137d1bfeccddedcdde6577bf3d767a5574a82d69b340",
        _digits,
    ),
    "mnist": DataSet(
        "MNIST",
        (1, 28, 28),
        (55_000, 5_000, 10_000),
        "07079a626619ddf3751cc82d9510c37dde3f4bd419c704a9832c1478da8696ec",
        _mnist,
    ),
}
