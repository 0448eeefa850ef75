"""Import torchvision and advertorch beside the torch at hand.

Two known faults, each cured only where it shows; nothing else in the package imports these two directly, so that this
module can go on the day neither fault is left:

* torchvision's CUDA build beside a CPU torch: its C++ library can't be loaded, and declaring the meta kernels of two
  operators that it would have defined ("operator torchvision::nms does not exist") stops the import. Data sets,
  transforms and models need none of them.
* advertorch 0.2.3 asks ``torch.autograd.gradcheck`` for ``zero_gradients``, which torch dropped in version 1.9.
"""

from __future__ import annotations

import importlib
import sys
import warnings
from collections.abc import Generator
from contextlib import contextmanager
from types import ModuleType

import torch

_SCHEMAS = (
    "nms(Tensor dets, Tensor logits, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor logits, float iou_threshold) -> Tensor",
)
_declared: list[torch.library.Library] = []  # a library's schemas live as long as the object


def import_torchvision() -> ModuleType:
    """The package ``torchvision``, its compiled operators declared (not defined) where its library doesn't load.

    Raises:
        ImportError: not installed.
        RuntimeError: the import fails for another reason than the missing operators.
    """
    try:
        return importlib.import_module("torchvision")
    except RuntimeError as error:
        if "operator torchvision::" not in str(error) or _declared:
            raise
    for name in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
        del sys.modules[name]  # half imported
    library = torch.library.Library("torchvision", "FRAGMENT")
    for schema in _SCHEMAS:
        library.define(schema)
    _declared.append(library)
    return importlib.import_module("torchvision")


def import_transforms() -> ModuleType:
    """The module ``torchvision.transforms.v2``; imported at first use, since it takes a second.

    Raises:
        ImportError, RuntimeError: see :func:`import_torchvision`.
    """
    import_torchvision()
    return importlib.import_module("torchvision.transforms.v2")


def import_advertorch() -> ModuleType:
    """The package ``advertorch`` with its ``attacks``; ``torch`` is left as it was found.

    Raises:
        ImportError: not installed.
    """
    import_torchvision()  # advertorch imports it
    # Not `import torch.autograd.gradcheck as ...`: that binds the function of the same name, not the module.
    gradcheck = importlib.import_module("torch.autograd.gradcheck")
    if hasattr(gradcheck, "zero_gradients"):
        return importlib.import_module("advertorch")
    gradcheck.zero_gradients = _zero_gradients  # pyright: ignore[reportAttributeAccessIssue]
    try:
        return importlib.import_module("advertorch")
    finally:
        del gradcheck.zero_gradients  # pyright: ignore[reportAttributeAccessIssue]


def _zero_gradients(x: torch.Tensor) -> None:
    """Set the gradient that ``x`` has accumulated, if any, to zero."""
    if x.grad is not None:
        x.grad.detach_().zero_()


def import_foolbox() -> ModuleType:
    """The package ``foolbox``; the warnings of its import are not ours."""
    with quiet():
        return importlib.import_module("foolbox")


def import_pyautoattack() -> ModuleType:
    """The package ``pyautoattack``; the warnings of its import are not ours."""
    with quiet():
        return importlib.import_module("pyautoattack")


@contextmanager
def quiet() -> Generator[None, None, None]:
    """Keep the warnings of a package's code to itself: deprecations that only its authors can mend."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
