"""torchvision and advertorch import beside the torch at hand, in this process and in a fresh one."""

from __future__ import annotations

import importlib
import subprocess
import sys

import pytest
import torch

from isce import compat


def fresh(code: str) -> str:
    """Run code in a new interpreter where every warning is an error; its output."""
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_fresh_interpreter_imports_both_and_leaves_torch_as_found():
    code = """
import importlib, sys
from isce import compat
advertorch = compat.import_advertorch()
torchvision = compat.import_torchvision()
assert compat.import_torchvision() is torchvision and compat.import_advertorch() is advertorch
assert sys.modules["torchvision"] is torchvision
importlib.import_module("torchvision.transforms.v2")
print(advertorch.__version__, advertorch.attacks.LinfPGDAttack.__name__, torchvision.datasets.MNIST.__name__)
print(hasattr(importlib.import_module("torch.autograd.gradcheck"), "zero_gradients"))
"""
    assert fresh(code).split() == ["0.2.3", "LinfPGDAttack", "MNIST", "False"]


def test_torchvision_without_advertorch():
    assert compat.import_torchvision().datasets.CIFAR10.__name__ == "CIFAR10"


def test_advertorch_still_needs_the_cure():
    """Fails on the day torch or advertorch mends it: then the cure goes."""
    assert not hasattr(importlib.import_module("torch.autograd.gradcheck"), "zero_gradients")
    attack = compat.import_advertorch().attacks.fast_adaptive_boundary
    assert attack.zero_gradients.__module__ == "isce.compat"


def test_zero_gradients():
    zero_gradients = compat.import_advertorch().attacks.fast_adaptive_boundary.zero_gradients
    x = torch.ones(3, requires_grad=True)
    zero_gradients(x)
    assert x.grad is None
    (x**2).sum().backward()
    assert torch.equal(x.grad, torch.full((3,), 2.0))
    zero_gradients(x)
    assert torch.equal(x.grad, torch.zeros(3))


def test_other_faults_of_torchvision_are_not_hidden(monkeypatch):
    def broken(name):
        raise RuntimeError("something else")

    monkeypatch.setattr(compat.importlib, "import_module", broken)
    with pytest.raises(RuntimeError, match="something else"):
        compat.import_torchvision()


def test_torchvision_models_run():
    torchvision = compat.import_torchvision()
    with torch.no_grad():
        assert torchvision.models.squeezenet1_1(num_classes=3).eval()(torch.zeros(1, 3, 64, 64)).shape == (1, 3)
