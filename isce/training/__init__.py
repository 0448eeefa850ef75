"""Training: one network, one objective, one data set, from a seed to two checkpoints."""

from isce.training.checkpoint import CheckpointError, LoadedCheckpoint, load_checkpoint
from isce.training.loop import TrainResult, train

__all__ = ["CheckpointError", "LoadedCheckpoint", "TrainResult", "load_checkpoint", "train"]
