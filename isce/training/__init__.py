"""Training: one network, one objective, one data set, from a seed to two checkpoints."""

from isce.training.checkpoint import CheckpointError, LoadedCheckpoint, load_checkpoint
from isce.training.loop import TrainResult, train
from isce.training.shipped import load, names

__all__ = ["CheckpointError", "LoadedCheckpoint", "TrainResult", "load", "load_checkpoint", "names", "train"]
