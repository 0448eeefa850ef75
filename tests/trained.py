"""The trained networks that tests share: tests/digits.safetensors, which tests/make_checkpoint.py wrote.

Committed, since training gives other weights on another processor, and tests must pass on each.
"""

from __future__ import annotations

from pathlib import Path

from safetensors.torch import load_file

from isce import data, losses, models
from isce.losses import Objective
from isce.models import Classifier

CHECKPOINT = Path(__file__).parent / "digits.safetensors"
NAMES = ("sce", "isce-released")


def untrained(name: str) -> tuple[Classifier, Objective]:
    """A small-cnn on digits with the score map of an objective; its weights come from torch's global generator."""
    digits, objective = data.load("digits"), losses.build(name)
    shape = {"input_shape": digits.input_shape, "mean": digits.mean, "std": digits.std}
    backbone = models.build("small-cnn", **shape, embedding_dim=16)
    return Classifier(backbone, objective.score_map(backbone.embedding_dim, 10)), objective


def trained(name: str) -> tuple[Classifier, Objective]:
    """The committed network of an objective, one of :data:`NAMES`, in evaluation mode, and the objective."""
    classifier, objective = untrained(name)
    weights = {
        key.removeprefix(f"{name}."): w for key, w in load_file(CHECKPOINT).items() if key.startswith(f"{name}.")
    }
    classifier.load_state_dict(dict(classifier.named_buffers()) | weights)  # float16 in the file, exact in float32
    return classifier.eval(), objective
