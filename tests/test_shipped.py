"""Networks that come with the project: by name, with their hashes, from a folder or a release; and their export."""

import io
import json
import subprocess
import sys

import made_records
import pytest
import torch
import yaml

import isce
from isce.files import ROOT, sha256
from isce.publish.checkpoints import export
from isce.runs import records
from isce.runs.experiment import load_experiment
from isce.runs.run import planned_runs
from isce.strict import ConfigError
from isce.training import CheckpointError, load_checkpoint, shipped

MANIFEST = shipped.read_manifest()
NAME = "digits/sce-s0"
FILE = ROOT / "checkpoints" / f"{NAME}.safetensors"
ADDRESS = "https://example.org/someone/isce"


@pytest.fixture
def elsewhere(tmp_path, monkeypatch):
    """An empty folder of checkpoints, as an installed package has it."""
    monkeypatch.setenv("ISCE_CHECKPOINTS", str(tmp_path / "own"))
    return tmp_path / "own" / f"{NAME}.safetensors"


@pytest.fixture
def release(monkeypatch):
    """Let the project have an address, and no server but this: a dictionary of addresses and contents."""
    contents = {}

    def answer(address, timeout):
        assert timeout > 0
        if address not in contents:
            raise OSError("no such file")
        return io.BytesIO(contents[address])

    monkeypatch.setattr(shipped, "urlopen", answer)
    monkeypatch.setattr(shipped, "read_manifest", lambda: MANIFEST | {"repository": ADDRESS})
    return contents


def test_files_and_manifest_agree_and_stay_small():
    networks = MANIFEST["networks"]
    files = {path.relative_to(ROOT / "checkpoints").as_posix(): path for path in (ROOT / "checkpoints").rglob("*.*")}
    assert set(files) == {f"{name}.safetensors" for name in networks}
    for name, about in networks.items():
        path = files[f"{name}.safetensors"]
        assert (sha256(path), path.stat().st_size) == (about["sha256"], about["bytes"])
    assert 0 < sum(about["bytes"] for about in networks.values()) < 40e6
    assert len({shipped.asset(name) for name in networks}) == len(networks)


@pytest.mark.parametrize("name", shipped.names())
def test_each_is_the_network_of_its_name(name):
    loaded = isce.load(name)
    about, experiment = MANIFEST["networks"][name], name.partition("/")[0]
    label = f"{loaded.parameters.label}-s{loaded.parameters.seed}"
    assert label == name.partition("/")[2]
    assert not loaded.classifier.training
    (run,) = [run for run in planned_runs(load_experiment(experiment)) if (run.kind, run.name) == ("train", label)]
    assert loaded.parameters.model_dump(mode="json") == run.parameters
    record = ROOT / "results" / run.folder / "record.json"
    same = record.is_file() and records.read(record).files["last.safetensors"] == about["sha256"]
    assert about["attacked"] == same


def test_address_is_the_repository_s_and_https():
    url = yaml.safe_load((ROOT / "book" / "_config.yml").read_text(encoding="utf-8"))["repository"]["url"]
    assert MANIFEST["repository"] == url.removesuffix("/").removesuffix(".git"), "run `python -m isce export`"
    assert not url or url.startswith("https://")


def test_release_holds_them_by_the_names_that_are_asked_for(tmp_path):
    """The line of the publishing workflow, run."""
    text = (ROOT / ".github" / "workflows" / "publish.yml").read_text(encoding="utf-8")
    (line,) = [line.strip() for line in text.splitlines() if "checkpoints/" in line]
    (tmp_path / "release").mkdir()
    (tmp_path / "checkpoints").symlink_to(ROOT / "checkpoints")
    subprocess.run(["sh", "-c", line], cwd=tmp_path, check=True)
    found = {path.name: sha256(path) for path in (tmp_path / "release").iterdir()}
    assert found == {shipped.asset(name): about["sha256"] for name, about in MANIFEST["networks"].items()}


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("digits/sce-s00", ["did you mean digits/sce-s0"]),
        ("digit/isce-m2-s1", ["did you mean digits/isce-m2-s1"]),
        ("../digits", ["unknown network '../digits'"]),
        ("qqqq", [f"one of {', '.join(MANIFEST['networks'])}?"]),
    ],
)
def test_unknown_name_is_refused_with_close_ones(name, words):
    with pytest.raises(CheckpointError) as caught:
        isce.load(name)
    assert all(word in str(caught.value) for word in [f"unknown network {name!r}", *words])


def flipped(content):
    return content[:-9] + bytes([content[-9] ^ 1]) + content[-8:]


def other(_):
    return (ROOT / "checkpoints" / "digits" / "sce-s1.safetensors").read_bytes()


@pytest.mark.parametrize("damage", [flipped, other, lambda content: content[:-1], lambda _: b""])
def test_damaged_file_is_refused(damage, elsewhere):
    elsewhere.parent.mkdir(parents=True)
    elsewhere.write_bytes(damage(FILE.read_bytes()))
    with pytest.raises(CheckpointError, match=r"sce-s0.safetensors is damaged or another file: .* remove it"):
        isce.load(NAME)


def test_folder_of_one_s_own(elsewhere):
    elsewhere.parent.mkdir(parents=True)
    elsewhere.write_bytes(FILE.read_bytes())
    ours, committed = isce.load(NAME), load_checkpoint(FILE)
    for key, weight in committed.classifier.state_dict().items():
        assert torch.equal(ours.classifier.state_dict()[key], weight)


def test_without_file_and_address_it_says_where_to_put_it_and_how_to_make_it(elsewhere, monkeypatch):
    monkeypatch.setattr(shipped, "read_manifest", lambda: MANIFEST | {"repository": ""})
    with pytest.raises(CheckpointError) as caught:
        isce.load(NAME)
    text = str(caught.value)
    assert str(elsewhere) in text
    assert "ISCE_CHECKPOINTS" in text
    assert "make reproduce EXPERIMENT=digits UNTIL=train" in text
    assert "python -m isce export digits" in text


def test_missing_file_is_fetched_once_and_kept(elsewhere, release):
    address = f"{ADDRESS}/releases/download/v{isce.__version__}/digits.sce-s0.safetensors"
    release[address] = FILE.read_bytes()
    assert isce.load(NAME).parameters.seed == 0
    assert elsewhere.read_bytes() == FILE.read_bytes()
    release.clear()
    assert isce.load(NAME).parameters.seed == 0


@pytest.mark.parametrize("content", [None, b"", b"<html>", FILE.read_bytes() + b"x", flipped(FILE.read_bytes())])
def test_what_is_fetched_damaged_or_not_at_all_is_not_kept(content, elsewhere, release):
    address = f"{ADDRESS}/releases/download/v{isce.__version__}/digits.sce-s0.safetensors"
    if content is not None:
        release[address] = content
    with pytest.raises(CheckpointError) as caught:
        isce.load(NAME)
    assert address in str(caught.value)
    assert ("can't be read (no such file)" if content is None else "is damaged") in str(caught.value)
    assert not elsewhere.parent.exists()


def python(code):
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)


def test_importing_the_package_imports_nothing_that_computes():
    done = python("import sys, isce; print(sorted({'torch', 'numpy', 'pydantic', 'safetensors'} & set(sys.modules)))")
    assert done.stdout == "[]\n", done.stderr


def test_without_the_extra_it_says_which():
    done = python(f"import sys, isce; sys.modules['safetensors'] = None; isce.load({NAME!r})")
    last = done.stderr.splitlines()[-1]
    assert last.startswith("ModuleNotFoundError: ")
    assert "pip install 'isce[workflow]'" in last


@pytest.fixture
def project(tmp_path):
    """A project with the finished training runs of digits, whose networks are single words."""
    (tmp_path / "book").mkdir()
    (tmp_path / "book" / "_config.yml").write_text(yaml.safe_dump({"repository": {"url": f"{ADDRESS}.git"}}))
    for run in planned_runs(load_experiment("digits")):
        if run.kind == "train":
            folder = tmp_path / "build" / "runs" / run.folder
            folder.mkdir(parents=True)
            (folder / "last.safetensors").write_text(run.name)
            files = {"last.safetensors": sha256(run.name)}
            made = made_records.record("train", run.name, key=run.key, files=files, provenance={"commit": "abc"})
            made.save(folder / "record.json")
    return tmp_path


def exported(project, *names):
    found = export(list(names), project / "build", project)
    manifest = project / "isce" / "training" / "checkpoints.json"
    assert json.loads(manifest.read_text()) == found
    return found


def test_export_copies_every_network_with_its_hash(project):
    committed = project / "results" / "digits" / "train" / "sce-s0"
    committed.mkdir(parents=True)
    source = project / "build" / "runs" / "digits" / "train" / "sce-s0"
    (committed / "record.json").write_bytes((source / "record.json").read_bytes())
    found = exported(project, "digits")
    assert found["repository"] == ADDRESS
    assert set(found["networks"]) == {name for name in shipped.names() if name.startswith("digits/")}
    for name, about in found["networks"].items():
        run = name.partition("/")[2]
        assert (project / "checkpoints" / f"{name}.safetensors").read_text() == run
        assert about == {
            "sha256": sha256(run),
            "bytes": len(run),
            "key": records.read(project / "build" / "runs" / "digits" / "train" / run / "record.json").key,
            "commit": "abc",
            "attacked": run == "sce-s0",
        }


def test_export_drops_former_runs_and_keeps_other_experiments(project):
    exported(project, "digits")
    path = project / "isce" / "training" / "checkpoints.json"
    manifest = json.loads(path.read_text())
    manifest["networks"] |= dict.fromkeys(("digits/former-s0", "other/sce-s0"), manifest["networks"][NAME])
    path.write_text(json.dumps(manifest))
    for name in ("digits/former-s0", "other/sce-s0"):
        (project / "checkpoints" / name).parent.mkdir(exist_ok=True)
        (project / "checkpoints" / f"{name}.safetensors").touch()
    kept = exported(project, "digits")["networks"]
    assert "digits/former-s0" not in kept
    assert "other/sce-s0" in kept
    assert not (project / "checkpoints" / "digits" / "former-s0.safetensors").exists()
    assert (project / "checkpoints" / "other" / "sce-s0.safetensors").exists()
    (project / "book" / "_config.yml").write_text(yaml.safe_dump({"repository": {"url": ""}}))
    assert exported(project) == {"repository": "", "networks": kept}


def test_export_refuses_what_is_not_finished_before_it_copies(project):
    path = project / "build" / "runs" / "digits" / "train" / "sce-s2" / "last.safetensors"
    path.write_text("changed")
    with pytest.raises(ConfigError, match=r"train sce-s2: .* is damaged"):
        exported(project, "digits")
    path.unlink()
    with pytest.raises(ConfigError, match=r"train sce-s2: .* is missing"):
        exported(project, "digits")
    with pytest.raises(ConfigError, match="unknown experiment 'nonesuch'"):
        exported(project, "nonesuch")
    assert not (project / "checkpoints").exists()
