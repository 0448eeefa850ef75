"""What tells networks apart for the state file: everything that they may compute with, in every process alike."""

from __future__ import annotations

import copy
import functools
import json
import os
import subprocess
import sys
import threading
import time
from abc import ABC, abstractmethod
from enum import Enum
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
import torch
from mean_model import ROWS, VALUES, flat, parameters
from spying import Spy
from torch import nn

from isce import models
from isce.evaluation import evaluate
from isce.evaluation.identity import identity
from isce.losses import build

CUT = 0.5


def divided(x, at):
    mean = x.flatten(1).mean(1) - at
    return torch.stack([-mean, mean], 1)


class At(nn.Module):
    """Two classes; which pixel divides them its subclasses say in different ways."""

    def cut(self) -> float:
        raise NotImplementedError

    def forward(self, x):
        return divided(x, self.cut())


class Held(At):
    """By a value of any kind, and a function that gets it."""

    def __init__(self, value, function=float) -> None:
        super().__init__()
        self.value, self.function = value, function

    def cut(self):
        return self.function(self.value)


class Reads(At):
    def cut(self):
        return max(CUT for _ in range(1))


class Uses(At):
    def cut(self):
        return settings.inner.CUT


class Ask(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return CUT * x


class Asks(At):
    def cut(self):
        return Ask.apply(torch.ones(()))


class Listed(nn.Module):
    """Of modules that no parameter betrays."""

    def __init__(self, nets) -> None:
        super().__init__()
        self.nets = nets

    def forward(self, x):
        return sum(net(x) for net in self.nets)


class Slots:
    __slots__ = ("cut",)

    def __init__(self, cut) -> None:
        self.cut = cut


class Cached:
    def __init__(self, cut) -> None:
        self.first = cut
        self.itself = self

    @functools.cached_property
    def cut(self):
        return self.first

    def get(self, _):
        return self.first


class Base(ABC):
    @abstractmethod
    def cut(self): ...


settings = ModuleType("settings")
inner = ModuleType("settings.inner")
vars(settings)["inner"] = inner


def in_closure(cut):
    net = Held(cut)
    return Held(None, lambda _: net.cut())


def hooked(cut):
    net = Held(0.5)
    net.register_forward_pre_hook(lambda module, given: (given[0] + (0.5 - cut),))
    return net


def hooked_with_keywords(cut):
    net = Held(0.5)
    net.register_forward_pre_hook(lambda module, given, named: ((given[0] * cut,), named), with_kwargs=True)
    return net


def hooked_backwards(cut):
    net = Held(0.5)
    net.register_full_backward_hook(lambda module, into, out: (into[0] * cut,))
    return net


def by_global(cut, kind=Reads):
    globals()["CUT"] = cut
    return kind()


def by_module(cut):
    vars(inner)["CUT"] = cut
    return Uses()


def patched(cut):
    net = Held(0.5)
    net.forward = functools.partial(divided, at=cut)
    return net


def executed(cut):
    """A class as an interactive session makes it: without a file, and here without the name of a module."""
    scope = {"At": At}
    exec(f"class Net(At):\n    def cut(self):\n        return {cut}", scope)
    return scope["Net"]()


def child(cut):
    return type("Net", (type(executed(cut)),), {})()


def subclassed(cut):
    own = type("Own", (Base,), {"cut": executed(cut).cut.__func__})
    return Held(own(), lambda one: one.cut())


def wrapped(cut):
    @functools.wraps(torch.nn.functional.relu)
    def relu(x):
        return cut

    return Held(0.5, relu)


def _marked(cut, what=None):
    what = what or (lambda _: 0.5)
    vars(what)["cut"] = cut
    return what


#: Networks that are divided at a pixel, each in a way that parameters and buffers don't show.
WAYS = {
    "list": lambda cut: Listed([Held(cut)]),
    "dict": lambda cut: Listed({Held(cut): 1}),
    "array of objects": lambda cut: Held(np.array([1, cut, "a"], dtype=object), lambda some: some[1]),
    "closure": in_closure,
    "hook": hooked,
    "hook with keywords": hooked_with_keywords,
    "hook backwards": hooked_backwards,
    "numpy's number": lambda cut: Held(np.float32(cut)),
    "set": lambda cut: Held({cut, "a", "b"}, lambda some: max(x for x in some if x not in ("a", "b"))),
    "global": by_global,
    "global of a function of torch": functools.partial(by_global, kind=Asks),
    "module": by_module,
    "settings": lambda cut: Held(SimpleNamespace(cut=cut), lambda one: one.cut),
    "slots": lambda cut: Held(Slots(cut), lambda one: one.cut),
    "cached": lambda cut: Held(Cached(cut), lambda one: one.cut),
    "class": lambda cut: Held(type("C", (), {"cut": cut}), lambda one: one.cut),
    "choice": lambda cut: Held(Enum("Cut", {"at": cut}).at, lambda one: one.value),
    "method": lambda cut: Held(None, Cached(cut).get),
    "patched": patched,
    "executed": executed,
    "parent": child,
    "abstract": subclassed,
    "wrapped": wrapped,
    "default": lambda cut: Held(None, lambda _, at=cut: at),
    "attribute of a function": lambda cut: Held(None, _marked(cut)),
    "attribute of a tensor": lambda cut: Held(_marked(cut, torch.ones(())), lambda one: one.cut),
}


@pytest.mark.parametrize("way", WAYS)
def test_two_networks_share_an_identity_only_if_they_are_the_same(way):
    keys = [identity(WAYS[way](cut)) for cut in (0.9, 0.5, 0.5)]
    assert keys[0] != keys[1] == keys[2]


def test_identities_are_the_same_in_every_process():
    """Else a run that was killed would not go on; also of this package's networks and objectives."""
    script = """
import json, sys, torch
sys.path[:0] = sys.argv[1:]
from test_identity import WAYS, identity
from isce import data, defences
from isce.models.assembly import assemble
from isce.parameters.training import TrainParameters
digits = data.load("digits")
shape = {name: getattr(digits, name) for name in ("input_shape", "mean", "std", "num_classes")}
torch.manual_seed(0)
of = {way: identity(make(0.5)) for way, make in WAYS.items()}
for name in defences.names():
    made = assemble(TrainParameters(model="small-cnn", defence={"name": name}), shape)
    of |= {f"{name} {i}": identity(part) for i, part in enumerate(made)}
print(json.dumps(of))
"""
    here = Path(__file__).parent
    found = [
        subprocess.run(
            [sys.executable, "-c", script, str(here), str(here.parent)],
            env={**os.environ, "PYTHONHASHSEED": seed},
            stdout=subprocess.PIPE,
            check=True,
        ).stdout
        for seed in ("1", "2")
    ]
    assert found[0] == found[1]
    assert len(json.loads(found[0])) > 40


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (threading.Lock(), "lock: cannot pickle '_thread.lock' object"),
        (settings, "module: cannot pickle 'module' object"),
        (torch.ones(2, 2).to_sparse(), "a tensor that is sparse"),
        (functools.reduce(lambda inner, _: [inner], range(2000), []), "maximum recursion depth exceeded"),
    ],
)
def test_of_a_network_that_cannot_be_described_no_row_is_taken_over(tmp_path, monkeypatch, caplog, value, reason):
    net, path = Held(value, lambda _: 0.5), tmp_path / "state.npz"
    spy = Spy(monkeypatch)
    for _ in range(2):
        evaluate(net, build("sce"), *flat(VALUES), parameters(rows=ROWS[:1], eps=[0.1]), progress=False, state=path)
    assert len(spy.calls) == 2
    assert f"can't tell Held from other networks, no row is taken over: {reason}" in caplog.text


def test_an_identity_takes_no_time():
    net = models.build("small-cnn", input_shape=(3, 32, 32), mean=(0.5,) * 3, std=(0.2,) * 3)
    started = time.monotonic()
    assert identity(net) == identity(copy.deepcopy(net))
    assert time.monotonic() - started < 2
