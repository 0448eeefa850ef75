"""Companion of "Improving robustness of softmax cross-entropy loss via inference information" (I-SCE).

``isce.losses`` and ``isce.models`` need torch only; the others need the extras ``attacks``, ``workflow``, ``book``.
"""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("isce")
except PackageNotFoundError:  # run from a source folder that was never installed
    __version__ = "0+source"
