"""Companion of "Improving robustness of softmax cross-entropy loss via inference information" (I-SCE).

``isce.losses`` and ``isce.models`` need torch only; the others need the extras ``attacks``, ``workflow``, ``book``.
"""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

    from isce.training import LoadedCheckpoint

try:
    __version__ = version("isce")
except PackageNotFoundError:  # run from a source folder that was never installed
    __version__ = "0+source"


def load(name: str, device: torch.device | str = "cpu") -> LoadedCheckpoint:
    """Load a trained network of the project by its name, such as ``digits/sce-s0``; see :func:`isce.training.load`.

    Raises:
        ModuleNotFoundError: the extra ``workflow`` is not installed.
        isce.training.CheckpointError: no such network, or its file is missing or damaged.
    """
    try:  # here, so that `import isce` needs no package
        from isce.training import load as load_shipped
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(f"{error}: isce.load needs the extra, pip install 'isce[workflow]'") from None
    return load_shipped(name, device)
