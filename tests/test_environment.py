"""pyproject.toml, requirements.lock and environment.yml say the same; the wheel's core needs torch only."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parent.parent


def lock():
    lines = (ROOT / "requirements.lock").read_text().splitlines()
    pins = [Requirement(line) for line in lines if line and not line.startswith("#")]
    return {canonicalize_name(pin.name): str(pin.specifier).removeprefix("==") for pin in pins}


def declared():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    texts = project["dependencies"] + [text for extra in project["optional-dependencies"].values() for text in extra]
    return [requirement for requirement in map(Requirement, texts) if requirement.name != "isce"]


def conda_pins():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    (section,) = [entry["pip"] for entry in environment["dependencies"] if isinstance(entry, dict)]
    return environment, section


def test_lock_meets_every_declared_requirement():
    pins = lock()
    for requirement in declared():
        version = pins[canonicalize_name(requirement.name)]
        assert requirement.specifier.contains(version, prereleases=True), f"{requirement} against {version}"


def test_conda_users_get_the_locked_versions():
    environment, section = conda_pins()
    assert section[0] == "-c requirements.lock"
    pins = {canonicalize_name(r.name): str(r.specifier).removeprefix("==") for r in map(Requirement, section[1:])}
    assert pins == {name: lock()[name] for name in {canonicalize_name(r.name) for r in declared()}}
    python = next(e for e in environment["dependencies"] if isinstance(e, str) and e.startswith("python="))
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert Requirement(f"python{project['requires-python']}").specifier.contains(python.removeprefix("python=") + ".0")


@pytest.mark.parametrize("package", ["jupyter-book", "torch", "torchvision", "matplotlib", "papermill", "advertorch"])
def test_packages_that_the_project_promises_are_pinned_everywhere(package):
    assert package in lock()
    assert any(re.match(rf"{package}==", line) for line in conda_pins()[1])


def test_locked_versions_are_the_installed_ones():
    from importlib.metadata import version

    assert {name: version(name).split("+")[0] for name in lock()} == lock()


def test_core_imports_torch_only():
    code = """
import sys, importlib.metadata
import torch
before = set(sys.modules)
from isce import losses, models
[losses.build(name) for name in losses.names()]
new = {name.split(".")[0] for name in set(sys.modules) - before} - set(sys.stdlib_module_names) - {"isce"}
third = new & set(importlib.metadata.packages_distributions()) - {"torch", "torchgen", "functorch"}
print(sorted(third))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
