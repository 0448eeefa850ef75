"""Trainings on a part of digits that end in a blink, whole or killed, and what they leave."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from isce import data
from isce.parameters.training import TrainParameters
from isce.training.loop import TrainResult, train
from isce.training.state import State

FILES = ("best.safetensors", "last.safetensors")


class KilledError(Exception):
    """Stands for the end of the process."""


def few(train: int = 100, validation: int = 40, **more: int) -> data.Data:
    """Digits with so many images in these splits: more than one batch, and a last batch that isn't full."""
    whole = data.load("digits")
    sizes = {"train": train, "validation": validation, **more}
    return replace(whole, **{split: getattr(whole, split).subset(n) for split, n in sizes.items()})


def run(folder: Path, digits: data.Data, *, kill: int | None = None, **changes) -> TrainResult:
    """Train for two epochs where nothing else is said; ``kill``: until the state of that epoch is on disk."""
    save = State.save

    def saved(state):
        save(state)
        if len(state.history) == kill and state.folder == folder:
            raise KilledError

    parameters = TrainParameters.model_validate({"epochs": 2, "batch_size": 32, **changes})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(State, "save", saved)
        return train(parameters, folder, data=digits, progress=False)


def contents(folder: Path) -> list[bytes]:
    """The bytes of both checkpoints."""
    return [(folder / name).read_bytes() for name in FILES]
