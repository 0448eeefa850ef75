"""Data sets: splits, hashes, missing and damaged files, on made-up files of the published form (real ones if there)."""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import pickle
import subprocess
import sys
import tarfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from isce.compat import import_torchvision
from isce.data import sets as data
from isce.data.sets import Split, stratified


def split(labels, peak=255):
    labels = torch.as_tensor(labels)
    return Split(torch.arange(len(labels)).reshape(-1, 1, 1, 1).to(torch.uint8), labels, peak)


# --- splits


@pytest.mark.parametrize(
    ("error", "words", "changes"),
    [
        (TypeError, r"images must be torch\.uint8, got torch\.float32", {"images": torch.zeros(3, 1, 2, 2)}),
        (TypeError, r"labels must be torch\.int64", {"labels": torch.arange(3, dtype=torch.int32)}),
        (ValueError, "images must have 4 dimensions", {"images": torch.zeros(3, 2, 2, dtype=torch.uint8)}),
        (ValueError, "3 images, 2 labels", {"labels": torch.arange(2)}),
        (ValueError, "at least 0, got -1", {"labels": torch.arange(3) - 1}),
        (ValueError, "at most 16, got 17", {"images": torch.full((3, 1, 2, 2), 17, dtype=torch.uint8)}),
    ],
)
def test_split_checks_what_it_is_given(error, words, changes):
    given = {"images": torch.zeros(3, 1, 2, 2, dtype=torch.uint8), "labels": torch.arange(3)}
    assert Split(**given, peak=16).index.tolist() == [0, 1, 2]
    with pytest.raises(error, match=words):
        Split(**given | changes, peak=16)


def test_unit_is_in_unit_interval_and_picks():
    part = split([0, 1, 1, 0, 2], peak=4)
    assert torch.equal(part.unit().flatten(), torch.tensor([0, 0.25, 0.5, 0.75, 1]))
    assert part.unit().dtype == torch.float32
    assert torch.equal(part.unit(torch.tensor([4, 0]), device="cpu").flatten(), torch.tensor([1.0, 0.0]))
    assert part.unit(slice(1, 2)).shape == (1, 1, 1, 1)


@given(st.lists(st.integers(0, 4), min_size=1, max_size=60), st.data(), st.integers(0, 5))
def test_stratified_gives_each_class_its_share(labels, draw, seed):
    n = draw.draw(st.integers(1, len(labels)))
    places = stratified(torch.tensor(labels), n, seed)
    assert len(places) == n
    assert places.tolist() == sorted(set(places.tolist()))
    chosen = torch.tensor(labels)[places]
    for k in set(labels):
        exact = n * labels.count(k) / len(labels)
        assert exact - 1 < int((chosen == k).sum()) < exact + 1
    assert torch.equal(places, stratified(torch.tensor(labels), n, seed))


def test_subset_keeps_index_and_depends_on_seed():
    part = split([0, 1] * 50)
    small = part.subset(10)
    assert small.labels.bincount().tolist() == [5, 5]
    assert torch.equal(small.images.flatten().long(), small.index)
    assert torch.equal(small.index, part.subset(10).index)
    assert not torch.equal(small.index, part.subset(10, seed=1).index)
    assert torch.equal(small.subset(4).index.sort().values, small.subset(4).index)
    assert set(small.subset(4).index.tolist()) <= set(small.index.tolist())
    assert torch.equal(part.subset(100).index, part.index)


@pytest.mark.parametrize("n", [0, -1, 101])
def test_subset_out_of_range(n):
    with pytest.raises(ValueError, match=f"1 to 100 images, got {n}"):
        split([0, 1] * 50).subset(n)


# --- digits


@pytest.fixture(scope="module")
def digits():
    return data.load("digits")


def agrees_with_the_table(loaded):
    row = data.SETS[loaded.name]
    assert (len(loaded.train), len(loaded.validation), len(loaded.test)) == row.sizes
    assert loaded.input_shape == row.shape == tuple(loaded.train.images.shape[1:])


def test_digits(digits):
    agrees_with_the_table(digits)
    assert (digits.num_classes, digits.train.peak, len(digits.class_names)) == (10, 16, 10)
    everywhere = torch.cat([s.index for s in (digits.train, digits.validation, digits.test)])
    assert torch.equal(everywhere.sort().values, torch.arange(1797))
    for part in (digits.train, digits.validation, digits.test):
        shares = part.labels.bincount(minlength=10) / len(part)
        assert shares.min() > 0.09
        assert shares.max() < 0.11


def test_digits_statistics_are_of_the_training_split_in_unit_interval(digits):
    unit = digits.train.images.double() / 16
    assert digits.mean == pytest.approx([unit.mean().item()], rel=1e-12)
    assert digits.std == pytest.approx([unit.std(correction=0).item()], rel=1e-12)


def test_hash_follows_content(digits):
    labels = digits.test.labels.clone()
    labels[0] = (labels[0] + 1) % 10
    changed = Split(digits.test.images, labels, 16)
    assert data._digest(digits.train, digits.validation, changed) != digits.sha256
    assert data._digest(digits.train, digits.validation, digits.test) == digits.sha256


def test_other_content_than_that_of_the_records_is_refused(monkeypatch):
    monkeypatch.setattr(data.stratified, "__defaults__", (1,))
    with pytest.raises(ValueError, match="data set 'digits': content or splits differ; SHA-256"):
        data.load("digits")


def test_unknown_name():
    assert data.names() == ["cifar10", "digits", "mnist"]
    with pytest.raises(ValueError, match="unknown data set 'mnits'; known: cifar10, digits, mnist"):
        data.load("mnits")


# --- made-up MNIST and CIFAR-10


def idx(values):
    values = np.asarray(values, np.uint8)
    header = bytes([0, 0, 8, values.ndim]) + b"".join(n.to_bytes(4) for n in values.shape)
    return gzip.compress(header + values.tobytes(), mtime=0)


def md5(content):
    return hashlib.md5(content).hexdigest()


def accepted(monkeypatch, name, folder):
    """The folder, whose content becomes what the table of data sets says."""
    monkeypatch.setattr(data, "VALIDATION_IMAGES", 10)
    row = data.SETS[name]
    monkeypatch.setitem(data.SETS, name, replace(row, sha256=row.loader(folder, False).sha256))
    return folder


@pytest.fixture
def mnist(tmp_path, monkeypatch):
    """A folder with a tiny MNIST: 40 training and 20 test images; torchvision told of its MD5 sums."""
    generator = np.random.default_rng(0)
    files = {}
    for part, n in (("train", 40), ("t10k", 20)):
        files[f"{part}-images-idx3-ubyte.gz"] = idx(generator.integers(0, 256, (n, 28, 28)))
        files[f"{part}-labels-idx1-ubyte.gz"] = idx(np.arange(n) % 10)
    folder = tmp_path / "MNIST" / "raw"
    folder.mkdir(parents=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)
    published = import_torchvision().datasets.MNIST
    monkeypatch.setattr(published, "resources", [(name, md5(content)) for name, content in files.items()])
    monkeypatch.setattr(published, "mirrors", ["http://127.0.0.1:9/"])
    return accepted(monkeypatch, "mnist", tmp_path)


@pytest.fixture
def cifar10(tmp_path, monkeypatch):
    """A folder with a tiny CIFAR-10: five batches of 20 and a test batch of 20."""
    generator = np.random.default_rng(0)
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    published = import_torchvision().datasets.CIFAR10
    names = [f"data_batch_{i}" for i in range(1, 6)] + ["test_batch"]
    contents = [
        {"data": generator.integers(0, 256, (20, 3072), np.uint8), "labels": [k % 10 for k in range(20)]} for _ in names
    ]
    listed = []
    for name, content in zip(names, contents, strict=True):
        (folder / name).write_bytes(pickle.dumps(content))
        listed.append([name, md5((folder / name).read_bytes())])
    (folder / "batches.meta").write_bytes(pickle.dumps({"label_names": [f"class {k}" for k in range(10)]}))
    monkeypatch.setattr(published, "train_list", listed[:5])
    monkeypatch.setattr(published, "test_list", listed[5:])
    meta = {"filename": "batches.meta", "key": "label_names", "md5": md5((folder / "batches.meta").read_bytes())}
    monkeypatch.setattr(published, "meta", meta)
    monkeypatch.setattr(published, "url", "http://127.0.0.1:9/cifar-10-python.tar.gz")
    return accepted(monkeypatch, "cifar10", tmp_path)


def test_mnist(mnist):
    loaded = data.load("mnist", mnist, download=False)
    assert (len(loaded.train), len(loaded.validation), len(loaded.test)) == (30, 10, 20)
    assert loaded.input_shape == (1, 28, 28)
    assert loaded.validation.labels.bincount().tolist() == [1] * 10
    assert torch.equal(loaded.test.labels, torch.arange(20) % 10)
    pool = np.random.default_rng(0).integers(0, 256, (40, 28, 28))
    for part in (loaded.train, loaded.validation):
        assert np.array_equal(part.images[:, 0].numpy(), pool[part.index])
    assert torch.equal(torch.cat([loaded.train.index, loaded.validation.index]).sort().values, torch.arange(40))
    assert data.load("mnist", mnist).sha256 == loaded.sha256


def test_cifar10(cifar10, monkeypatch):
    monkeypatch.setenv("ISCE_DATA", str(cifar10))
    loaded = data.load("cifar10", download=False)
    assert (len(loaded.train), len(loaded.validation), len(loaded.test)) == (90, 10, 20)
    assert loaded.input_shape == (3, 32, 32)
    assert loaded.class_names == tuple(f"class {k}" for k in range(10))
    first = np.random.default_rng(0).integers(0, 256, (20, 3072), np.uint8)[0].reshape(3, 32, 32)
    pool = torch.cat([loaded.train.images, loaded.validation.images])
    places = torch.cat([loaded.train.index, loaded.validation.index])
    assert np.array_equal(pool[places == 0][0].numpy(), first)
    unit = loaded.train.images.double() / 255
    assert loaded.mean == pytest.approx(unit.mean((0, 2, 3)).tolist(), rel=1e-12)
    assert loaded.std == pytest.approx(unit.std((0, 2, 3), correction=0).tolist(), rel=1e-12)


@pytest.mark.parametrize("download", [True, False])
def test_missing_files_are_named(mnist, download):
    path = mnist / "MNIST" / "raw" / "t10k-labels-idx1-ubyte.gz"
    path.unlink()
    reason = "download failed" if download else "download is off"
    with pytest.raises(FileNotFoundError, match=reason) as caught:
        data.load("mnist", mnist, download)
    message = str(caught.value)
    assert "MNIST/raw/t10k-labels-idx1-ubyte.gz below" in message
    assert str(mnist) in message
    assert "ISCE_DATA" in message
    assert "train-images" not in message.split("put ")[1]
    assert not list(mnist.glob(".download-*"))


def test_nothing_there_at_all(cifar10, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"CIFAR-10 is not complete.*data_batch_1.*test_batch.*batches\.meta"):
        data.load("cifar10", tmp_path / "elsewhere")


@pytest.mark.parametrize("position", [0, 30, -1])
def test_a_flipped_bit_is_noticed(mnist, position):
    path = mnist / "MNIST" / "raw" / "train-labels-idx1-ubyte.gz"
    content = bytearray(path.read_bytes())
    expected = md5(content)
    content[position] ^= 1
    path.write_bytes(content)
    with pytest.raises(ValueError, match="is damaged") as caught:
        data.load("mnist", mnist)
    for part in (str(path), expected, md5(content)):
        assert part in str(caught.value)


class Trap:
    """Unpickling it writes a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


@pytest.mark.parametrize("name", ["data_batch_3", "test_batch", "batches.meta"])
def test_no_pickle_is_opened_before_its_hash_is_checked(cifar10, name):
    sprung = cifar10 / "sprung"
    trap = pickle.dumps(Trap(sprung))
    pickle.loads(trap)
    assert sprung.exists()  # the trap works
    sprung.unlink()
    (cifar10 / "cifar-10-batches-py" / name).write_bytes(trap)
    with pytest.raises(ValueError, match=f"CIFAR-10 is damaged.*{name}"):
        data.load("cifar10", cifar10)
    assert not sprung.exists()


@pytest.fixture
def server(monkeypatch):
    """Serve made-up addresses from memory in place of the network; returns the dictionary of what is served."""
    served = {}
    utils = import_torchvision().datasets.utils

    def retrieve(url, filename, chunk_size=0):
        if url not in served:
            raise OSError(f"no {url}")
        Path(filename).write_bytes(served[url])

    monkeypatch.setattr(utils, "_get_redirect_url", lambda url, max_hops: url)
    monkeypatch.setattr(utils, "_urlretrieve", retrieve)
    return served


def test_missing_mnist_is_fetched_from_the_second_mirror(mnist, server, monkeypatch):
    before = data.load("mnist", mnist).sha256
    monkeypatch.setattr(import_torchvision().datasets.MNIST, "mirrors", ["http://a/", "http://b/"])
    for path in (mnist / "MNIST" / "raw").iterdir():
        server[f"http://b/{path.name}"] = path.read_bytes()
        if path.name.startswith("train"):
            path.unlink()
    server["http://a/train-images-idx3-ubyte.gz"] = b"an error page"
    assert data.load("mnist", mnist).sha256 == before
    assert not list(mnist.glob(".download-*"))
    assert len(list((mnist / "MNIST" / "raw").iterdir())) == 4


def test_missing_cifar10_is_fetched_and_unpacked(cifar10, server, monkeypatch, tmp_path):
    before = data.load("cifar10", cifar10).sha256
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as tar:
        tar.add(cifar10 / "cifar-10-batches-py", "cifar-10-batches-py")
    published = import_torchvision().datasets.CIFAR10
    server[published.url] = packed.getvalue()
    monkeypatch.setattr(published, "tgz_md5", md5(packed.getvalue()))
    fresh = tmp_path / "fresh"
    assert data.load("cifar10", fresh).sha256 == before
    assert [path.name for path in fresh.iterdir()] == ["cifar-10-batches-py"]
    (fresh / "cifar-10-batches-py" / "test_batch").unlink()
    server[published.url] = b"half an archive"
    with pytest.raises(FileNotFoundError, match=r"corrupted.*put cifar-10-batches-py/test_batch below"):
        data.load("cifar10", fresh)


def test_folder_that_cannot_be_made(mnist, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="file"):
        data.load("mnist", tmp_path / "file")


# --- the published files themselves: only where they lie ready

UNPACK = Path(__file__).resolve().parents[2] / "shared" / "data" / "unpack.py"
LAID_OUT = Path(os.environ.get("ISCE_DATA", "data")).absolute()
#: Folder, and the published mean and standard deviation of each channel.
REAL = {
    "mnist": ("MNIST/raw", [0.1307], [0.3081]),
    "cifar10": ("cifar-10-batches-py", [0.4914, 0.4822, 0.4465], [0.247, 0.2435, 0.2616]),
}
READY = [name for name, (folder, *_) in REAL.items() if UNPACK.exists() or (LAID_OUT / folder).is_dir()]

if READY:

    @pytest.fixture(params=[pytest.param(n, marks=[pytest.mark.full] if n == "cifar10" else []) for n in READY])
    def real(request, tmp_path):
        folder, *expected = REAL[request.param]
        root = LAID_OUT
        if not (root / folder).is_dir():
            root = tmp_path
            subprocess.run([sys.executable, UNPACK, root, "--only", request.param], check=True)
        return data.load(request.param, root, download=False), expected

    def test_real_files(real):
        """Means and standard deviations as published for the full training sets, to three digits."""
        loaded, (mean, std) = real
        agrees_with_the_table(loaded)
        assert loaded.mean == pytest.approx(mean, abs=5e-4)
        assert loaded.std == pytest.approx(std, abs=5e-4)
