"""Sound pairwise Lipschitz constants of a classifier's score differences, for the bounds of ``isce.minmax.bounds``.

The network is traced and walked once. Beside the largest change of every entry (weights replaced by their absolute
values: the exact l_inf row sums where one layer follows another) an l_2 constant is composed: products along a
path, sums where a residual branch joins. Since ||d||_2 <= eps implies ||d||_inf <= eps, and ||d||_inf <= eps
implies ||d||_2 <= sqrt(D) eps, the smaller of the two counts in either norm (derived here). The constants hold on
all of input space, so also on [0, 1]; they are bounds, not estimates, and grow loose with depth.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn
from torch.fx.proxy import TraceError
from torch.nn.utils.parametrize import type_before_parametrizations

from isce.minmax.chain import difference_map
from isce.minmax.checks import check_plain
from isce.minmax.layers import LAYERS
from isce.models import Backbone, Classifier

_SLACK = 1e-6


class Reach(NamedTuple):
    """How far a change of the input can reach here.

    Attributes:
        entries: (1, ...) float64, largest absolute change of each entry when no input entry changes by more than 1.
        length: largest l_2 change when the input's l_2 change is at most 1.
    """

    entries: Tensor
    length: float


def network_constants(classifier: Classifier, norm: Literal["linf", "l2"]) -> Tensor:
    """Upper bounds K_{yk} of |f_k(x) - f_y(x) - f_k(x') + f_y(x')| / ||x - x'|| for images in pixel units.

    Args:
        classifier: in evaluation mode, with fixed normalisation statistics, layers of ``isce.minmax.layers.LAYERS`` and
            a score map that ``isce.minmax.chain.difference_map`` knows.
        norm: "linf" or "l2".

    Returns:
        (C, C) float64, symmetric with zero diagonal, raised by 1e-6 (relative) for rounding.

    Raises:
        ValueError: unknown norm, training mode, batch statistics, methods of its own beside ``features``, or a layer or
            operation without a known bound.
    """
    if norm not in ("linf", "l2"):
        raise ValueError(f"unknown norm {norm!r}; known: linf, l2")
    check_plain(classifier)
    if classifier.batch_dependent:
        raise ValueError("no Lipschitz bound: with batch statistics an image's logits depend on the rest of the batch")
    reach = embedding_reach(classifier.backbone)
    weight = difference_map(classifier.score_map)[0].detach().double()
    rows = weight[:, None] - weight[None]
    by_entries = rows.abs() @ reach.entries[0]
    by_length = rows.norm(dim=2) * reach.length
    if norm == "linf":
        by_length = by_length * math.sqrt(math.prod(classifier.backbone.input_shape))
    return torch.minimum(by_entries, by_length) * (1 + _SLACK)


def embedding_reach(backbone: Backbone) -> Reach:
    """Walk a backbone in evaluation mode from the image, in pixel units, to the embedding, where entries are (1, D).

    Raises:
        ValueError: a layer or operation without a known bound.
    """
    try:
        graph = _Tracer().trace(backbone)
    except (TraceError, TypeError) as error:
        raise ValueError(f"no Lipschitz bound: {type(backbone).__name__} branches on its data") from error
    if backbone.mean_image is not None:
        raise ValueError("no Lipschitz bound: the released normalisation divides each image by its own deviation")
    gain = (1 / backbone.std.detach().double()).expand(backbone.input_shape)
    start = Reach(gain[None].clone(), float(gain.max()))
    walk = _Walk(fx.GraphModule(backbone, graph))
    walk.extra_traceback = False
    with torch.no_grad():
        return walk.run(start)


class _Tracer(fx.Tracer):
    """Starts at the normalised image, and takes every layer that has a rule as one step."""

    def __init__(self) -> None:
        super().__init__()
        self.traced_func_name = "features"

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return type_before_parametrizations(m) in LAYERS or super().is_leaf_module(m, module_qualified_name)


class _Walk(fx.Interpreter):
    """Runs the network's graph on reaches instead of activations."""

    def call_module(self, target: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Reach:
        layer = self.fetch_attr(str(target))
        rule = LAYERS.get(type_before_parametrizations(layer))
        if rule is None:
            known = ", ".join(sorted(kind.__name__ for kind in LAYERS))
            raise ValueError(f"no Lipschitz bound for the layer {target} ({type(layer).__name__}); known: {known}")
        entries, factor = rule(layer, args[0].entries)
        return Reach(entries, args[0].length * factor)

    def call_function(self, target: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Reach:
        rule = _FUNCTIONS.get(target)
        if rule is None:
            raise ValueError(f"no Lipschitz bound for the operation {getattr(target, '__name__', target)}")
        return rule(*args, **kwargs)

    def call_method(self, target: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Reach:
        rule = _METHODS.get(str(target))
        if rule is None:
            raise ValueError(f"no Lipschitz bound for the tensor method {target}")
        return rule(*args, **kwargs)


def _add(first: Any, second: Any) -> Reach:
    if not (isinstance(first, Reach) and isinstance(second, Reach) and first.entries.shape == second.entries.shape):
        raise ValueError("no Lipschitz bound for a sum of other things than two activations of one shape")
    return Reach(first.entries + second.entries, first.length + second.length)


def _relu(reach: Reach, inplace: bool = False) -> Reach:
    return reach


def _flatten(reach: Reach, start_dim: int = 0, end_dim: int = -1) -> Reach:
    return Reach(reach.entries.flatten(start_dim, end_dim), reach.length)


def _pad(reach: Reach, pad: Sequence[int], mode: str = "constant", value: float | None = None) -> Reach:
    if mode != "constant":
        raise ValueError(f"no Lipschitz bound for padding with {mode!r}; known: 'constant'")
    return Reach(F.pad(reach.entries, list(pad)), reach.length)


def _avg_pool(reach: Reach, kernel_size: int) -> Reach:
    entries, factor = LAYERS[nn.AvgPool2d](nn.AvgPool2d(kernel_size), reach.entries)
    return Reach(entries, reach.length * factor)


_FUNCTIONS: dict[Any, Callable[..., Reach]] = {
    operator.add: _add,
    F.avg_pool2d: _avg_pool,
    F.pad: _pad,
    F.relu: _relu,
    torch.flatten: _flatten,
}
_METHODS: dict[str, Callable[..., Reach]] = {"flatten": _flatten}
