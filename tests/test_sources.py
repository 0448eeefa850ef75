"""What counts as a change of code, and whose."""

import json

import pytest

from isce import attacks, losses, models
from isce.config import ROOT
from isce.sources import PASSIVE, closure, code_hash, essence, module_file


def test_comments_docstrings_and_blank_lines_are_no_change():
    plain = 'def f(x):\n    return x + 1\n\nclass A:\n    y = "kept"\n'
    dressed = (
        '"""Module."""\n# why\n\ndef f(x):\n    """Doc.\n\n    Longer.\n    """\n    # because\n    return x + 1\n'
        'class A:\n    """Doc."""\n\n    y = "kept"\n'
    )
    assert essence(plain) == essence(dressed)


@pytest.mark.parametrize("changed", ["return x + 2", "return x  + 1", 'return "# x"'])
def test_code_is_a_change(changed):
    source = "def f(x):\n    return x + 1\n"
    assert essence(source) != essence(source.replace("return x + 1", changed))


def test_string_that_is_no_docstring_is_kept():
    assert "kept" in essence('x = 1\ntext = """\nkept\n"""\n')


@pytest.fixture
def project(tmp_path):
    """A small package: a notebook that imports run, which reaches deep (lazily) and names a type of other."""
    files = {
        "isce/__init__.py": "",
        "isce/run.py": "from typing import TYPE_CHECKING\nfrom isce import config\nfrom .sub import thing\n"
        "if TYPE_CHECKING:\n    from isce.other import Type\ndef go():\n    from isce.deep import leaf\n",
        "isce/config.py": "from isce.other import x\n",
        "isce/other.py": "x = 1\n",
        "isce/sub/__init__.py": "",
        "isce/sub/thing.py": "from . import sibling\n",
        "isce/sub/sibling.py": "",
        "isce/deep.py": "leaf = 1\n",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    cell = {"cell_type": "code", "source": ["%matplotlib inline\n", "from isce.run import go\n"]}
    (tmp_path / "a.ipynb").write_text(json.dumps({"cells": [cell, {"cell_type": "markdown", "source": "words"}]}))
    return tmp_path


def test_closure_follows_lazy_and_relative_imports_but_no_types_and_nothing_passive(project):
    expected = {"isce.run", "isce.sub", "isce.sub.thing", "isce.sub.sibling", "isce.deep"}
    assert closure(["isce.run"], project) == expected


@pytest.mark.parametrize(
    ("name", "counts"),
    [("run", True), ("deep", True), ("sub/sibling", True), ("other", False), ("config", False)],
)
def test_hash_changes_with_the_code_a_notebook_reaches_and_no_other(project, name, counts):
    before = code_hash(project / "a.ipynb", project)
    path = project / "isce" / f"{name}.py"
    path.write_text(path.read_text() + "more = 2\n")
    assert (code_hash(project / "a.ipynb", project) != before) == counts


def test_family_that_is_reached_by_name_counts_when_named(project):
    bare = code_hash(project / "a.ipynb", project)
    assert code_hash(project / "a.ipynb", project, ["isce.other"]) != bare


@pytest.mark.parametrize("notebook", ["train", "attack", "minmax", "explain"])
def test_real_notebooks_reach_the_rooms_that_decide_figures_and_no_loss_family(notebook):
    from isce.sources import _imports, notebook_code

    code = notebook_code(ROOT / "notebooks" / f"{notebook}.ipynb")
    found = closure(_imports(code, "notebook", False), ROOT)
    assert {"isce.data", "isce.training", "isce.checkpoint"} <= found
    assert ("isce.evaluation.run" in found) == (notebook in ("attack", "explain"))  # intervals are in the same room
    assert ("isce.minmax.gap" in found) == (notebook in ("minmax", "explain"))
    assert ("isce.explain.paths" in found) == (notebook == "explain")
    families = {f"isce.losses.{losses.family(name)}" for name in losses.names()} & found
    # The bound is I-SCE itself, and Lipschitz constants know the score maps of every objective.
    assert families == ({"isce.losses.softmax", "isce.losses.gaussian"} if notebook in ("minmax", "explain") else set())
    assert not {f"isce.attacks.{attacks.family(name)}" for name in attacks.names()} & found
    networks = {f"isce.models.{models.family(name)}" for name in models.names()} & found
    assert networks == set()
    assert not PASSIVE & found


@pytest.mark.parametrize("registry", [attacks, losses, models])
def test_families_of_a_registry_bring_its_base(registry):
    package = registry.__name__
    for name in registry.names():
        found = closure([f"{package}.{registry.family(name)}"], ROOT)
        assert {f"{package}.base", f"{package}.{registry.family(name)}"} <= found


def test_every_passive_room_exists():
    assert all(module_file(name, ROOT) for name in PASSIVE)
