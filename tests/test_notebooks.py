"""The notebooks as committed: stripped, tagged, titled; and papermill runs that are refused before anything starts."""

import ast
import os
import subprocess
import sys

import nbformat
import pytest

from isce.files import ROOT
from isce.parameters.analysis import ExplainParameters, MinmaxParameters
from isce.parameters.attack import AttackParameters
from isce.parameters.training import TrainParameters
from isce.runs import records
from isce.strict import ConfigError

NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
MODELS = {
    "train": TrainParameters,
    "attack": AttackParameters,
    "certify": AttackParameters,
    "minmax": MinmaxParameters,
    "explain": ExplainParameters,
}


def cells(path, kind):
    return [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == kind]


def parameter_cell(path):
    tagged = [cell for cell in cells(path, "code") if "parameters" in cell.metadata.get("tags", [])]
    assert len(tagged) == 1, "exactly one parameter cell"
    return tagged[0]


def defaults(path):
    tree = ast.parse(parameter_cell(path).source)
    return {node.targets[0].id: ast.literal_eval(node.value) for node in tree.body}


def test_every_notebook_is_known_here():
    assert {path.stem for path in NOTEBOOKS} == set(MODELS)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
class TestEachNotebook:
    def test_committed_without_outputs(self, path):
        for cell in cells(path, "code"):
            assert cell.outputs == []
            assert cell.execution_count is None

    def test_valid_and_opens_with_a_title_needs_and_duration(self, path):
        nbformat.validate(nbformat.read(path, as_version=4))
        first = cells(path, "markdown")[0].source
        assert first.startswith("# ")
        assert "**Needs**" in first
        assert "**Takes**" in first

    def test_parameter_cell_names_every_parameter_with_its_default(self, path):
        model, found = MODELS[path.stem], defaults(path)
        assert set(model.model_fields) <= set(found)
        if path.stem == "train":
            values = {name: found[name] for name in model.model_fields}
            assert model(**values) == model(), "the notebook's defaults are the package's"

    def test_uses_public_names_only(self, path):
        for cell in cells(path, "code"):
            for node in ast.walk(ast.parse(cell.source)):
                names = [alias.name for alias in node.names] if isinstance(node, ast.ImportFrom) else []
                names += [node.attr] if isinstance(node, ast.Attribute) else []
                assert not any(name.startswith("_") for name in names)


def execute(name, values, cells_to_run=None):
    """Run the code cells of a notebook here, with these values after its parameter cell."""
    first, *rest = cells(ROOT / "notebooks" / f"{name}.ipynb", "code")
    namespace = {}
    exec(first.source, namespace)
    namespace |= values
    for cell in rest[:cells_to_run]:
        exec(cell.source, namespace)


@pytest.mark.parametrize(
    ("notebook", "values", "words"),
    [
        ("train", {"epoch": 3}, "unknown parameter 'epoch'"),
        ("train", {"dataset": "nonesuch"}, "unknown data set 'nonesuch'; known:"),
        ("minmax", {"steps": 0}, "steps: .*greater than or equal to 1, got 0"),
        ("attack", {"eps": [1.5]}, r"\(0, 1\] for linf"),
        ("explain", {"gallery": "nonesuch"}, "unknown suite 'nonesuch'; known:"),
    ],
)
def test_bad_parameter_stops_the_notebook_before_anything_starts(tmp_path, notebook, values, words):
    with pytest.raises(ConfigError, match=words):
        execute(notebook, {"folder": str(tmp_path / "run"), **values}, cells_to_run=1)
    assert not (tmp_path / "run").exists()


def test_training_that_diverges_ends_in_a_record_that_says_so(tmp_path):
    values = {"folder": str(tmp_path / "run"), "optimizer": {"name": "sgd", "lr": 1e30}, "epochs": 2}
    execute("train", values)
    record = records.read(tmp_path / "run" / "record.json")
    assert "epoch 1 of 2" in record.flags["diverged"]
    assert record.results["history"] == []


def test_papermill_command_runs_a_notebook_whatever_the_current_folder(tmp_path):
    command = [sys.executable, "-m", "papermill", str(ROOT / "notebooks" / "train.ipynb"), str(tmp_path / "out.ipynb")]
    command += ["-p", "epochs", "1", "-p", "train_images", "100", "-p", "folder", str(tmp_path / "run")]
    command += ["--no-progress-bar"]
    environment = os.environ | {"PYDEVD_DISABLE_FILE_VALIDATION": "1"}
    subprocess.run(command, cwd=tmp_path, env=environment, check=True, capture_output=True)
    assert {"record.json", "last.safetensors", "best.safetensors"} <= {p.name for p in (tmp_path / "run").iterdir()}
