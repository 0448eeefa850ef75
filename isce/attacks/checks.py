"""Bad input is refused before any work is lost, with one error that names the value and what is allowed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from isce.attacks.rejection import judged
from isce.attacks.spec import AttackSpec, about, names
from isce.attacks.threat import Threat
from isce.losses import Objective


def check_call(classifier: object, objective: object, x: object, y: object) -> None:
    """Refuse arguments that no attack or evaluation can be run on, before anything is run.

    Raises:
        TypeError, ValueError: see :func:`check_images`; a classifier that is no module, or an objective that is none of
            ``isce.losses``.
        RuntimeError: inside ``torch.inference_mode()``.
    """
    if torch.is_inference_mode_enabled():
        raise RuntimeError("attacks need gradients, which torch.inference_mode() rules out: call this outside of it")
    if not isinstance(classifier, nn.Module):
        found = type(classifier).__name__
        raise TypeError(f"the classifier must be a torch.nn.Module, got {found}: wrap it in a module's forward")
    if not isinstance(objective, Objective):
        what = "the objective must be one of isce.losses, such as isce.losses.build('sce') for torch's cross-entropy"
        raise TypeError(f"{what}, got {type(objective).__name__}")
    check_images(x, y)


def check_row(spec: object, threat: object) -> None:
    """Refuse what is no row of a suite or no threat model, and a threat model that the row's attack doesn't work in.

    Raises:
        TypeError, ValueError: names what was given, and what is allowed.
    """
    for name, value, kind in (("spec", spec, AttackSpec), ("threat", threat, Threat)):
        if not isinstance(value, kind):
            raise TypeError(f"{name} must be an isce.attacks.{kind.__name__}, got {type(value).__name__}: {value!r}")
    assert isinstance(spec, AttackSpec)
    assert isinstance(threat, Threat)
    if threat.norm not in (norms := about(spec.attack).norms):
        raise ValueError(f"{spec.attack} doesn't work in {threat.norm!r}; known: {', '.join(norms)}")


def check_index(index: Tensor | None, y: Tensor) -> Tensor:
    """Positions of the images in their data set; 0 to N - 1 where none are given.

    Raises:
        TypeError: no tensor, or not int64.
        ValueError: not one position >= 0 for each label.
    """
    if index is None:
        return torch.arange(len(y), device=y.device)
    if not isinstance(index, Tensor):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise TypeError(f"index must be a torch.Tensor, got {type(index).__name__}")
    if index.dtype != torch.int64:
        raise TypeError(f"index must be int64, got {index.dtype}")
    if index.shape != y.shape or bool((index < 0).any()):
        raise ValueError(f"index must hold one position >= 0 for each of {len(y)} images, got {tuple(index.shape)}")
    return index.to(y.device)


def check_images(x: object, y: object) -> None:
    """Refuse images and labels that no attack or evaluation can be run on.

    Args:
        x: images, should be a float32 or float64 tensor (N, C, H, W) in [0, 1], N >= 1.
        y: labels, should be an int64 tensor (N,), >= 0, on the same device.

    Raises:
        TypeError: no tensors, images of another type, among them half precision, in which the edge of a ball can't be
            told from a point outside; labels that aren't int64.
        ValueError: wrong shape, no images, values outside [0, 1] or NaN, negative labels, different devices.
    """
    for name, value in (("images", x), ("labels", y)):
        if not isinstance(value, Tensor):
            raise TypeError(f"{name} must be a torch.Tensor, got {type(value).__name__}")
    assert isinstance(x, Tensor)
    assert isinstance(y, Tensor)
    if not x.is_floating_point():
        raise TypeError(f"images must be floating point in [0, 1], got {x.dtype}")
    if x.dtype not in (torch.float32, torch.float64):
        cast = "a network in half precision must cast them itself"
        raise TypeError(f"images must be float32 or float64, got {x.dtype}: hand over float32; {cast}")
    if y.dtype != torch.int64:
        raise TypeError(f"labels must be int64, got {y.dtype}")
    if x.ndim != 4:
        raise ValueError(f"images must have shape (N, C, H, W), got {tuple(x.shape)}")
    if x.numel() == 0:
        raise ValueError(f"empty batch: images have shape {tuple(x.shape)}")
    if y.shape != x.shape[:1]:
        raise ValueError(f"labels must have shape ({len(x)},) as there are {len(x)} images, got {tuple(y.shape)}")
    if x.device != y.device:
        raise ValueError(f"images and labels must be on one device, got {x.device} and {y.device}")
    low, high = (float(v) for v in torch.aminmax(x.detach()))
    if not (low >= 0 and high <= 1):  # also where NaN
        raise ValueError(f"images must lie in [0, 1] without NaN, got values from {low:g} to {high:g}")
    if int(y.min()) < 0:
        raise ValueError(f"labels must be at least 0, got {int(y.min())}")


def check_logits(logits: object, y: Tensor) -> None:
    """Refuse a classifier whose clean logits can't be attacked.

    Raises:
        TypeError: no tensor, or not floating point.
        ValueError: logits not (N, K) with K >= 2, not finite, or a label outside [0, K).
    """
    if not isinstance(logits, Tensor):
        what = f"the classifier must return one tensor of logits (N, classes), got {type(logits).__name__}"
        raise TypeError(f"{what}: wrap it in a module that returns the logits alone")
    if not logits.is_floating_point():
        raise TypeError(f"logits must be floating point, got {logits.dtype}")
    if logits.ndim != 2 or len(logits) != len(y) or logits.shape[1] < 2:
        raise ValueError(f"logits must have shape ({len(y)}, classes >= 2), got {tuple(logits.shape)}")
    if int(y.max()) >= logits.shape[1]:
        raise ValueError(f"labels must lie in [0, {logits.shape[1]}), got {int(y.max())}")
    if not bool(torch.isfinite(logits).all()):
        raise ValueError("the classifier's logits of clean images are not finite")


def first_logits(classifier: nn.Module, objective: Objective, x: Tensor, y: Tensor, *, gradients: bool) -> Tensor:
    """Logits of a first batch (N, K), folded where it may reject, of a classifier that can be attacked.

    Any other is refused. Call it in ``base.untouched``. With ``gradients`` the logits have their graph, and the
    embedding is asked for where the objective needs one.

    Raises:
        TypeError: the classifier doesn't take images of this type, returns anything but one tensor of logits, or gives
            no embedding where the objective needs one.
        ValueError: logits of clean images that can't be attacked, images changed in place, or one image alone that
            can't be classified.
    """
    given = x.detach().clone().requires_grad_(gradients).clone()  # no leaf, which autograd doesn't let change in place
    before = given._version
    with torch.set_grad_enabled(gradients):
        logits = judged_of(classifier, given, y, objective if gradients and objective.needs_embedding else None)
    check_logits(logits, y)
    if given._version != before or not torch.equal(given, x):
        raise ValueError("the classifier changes its input in place: its forward must work on a copy, x = x.clone()")
    if len(x) > 1 and not getattr(classifier, "batch_dependent", False):
        with torch.no_grad():
            check_logits(judged_of(classifier, x[:1].clone(), y[:1]), y[:1])
    return logits


def judged_of(classifier: nn.Module, x: Tensor, y: Tensor, objective: Objective | None = None) -> Any:
    """What :func:`logits_of` returns, not checked either; folded for labels (N,) where the classifier may reject."""
    logits = logits_of(classifier, x, objective)
    return judged(classifier, logits, y) if isinstance(logits, Tensor) else logits


def logits_of(classifier: nn.Module, x: Tensor, objective: Objective | None = None) -> Any:
    """Call a classifier for the logits of images (N, C, H, W), not checked; where it raises, name the likely cause.

    For an objective, which is one that needs the embedding, the classifier must return that too.

    Raises:
        TypeError, ValueError: see :func:`first_logits`.
    """
    try:
        found = classifier(x) if objective is None else classifier(x, return_embedding=True)
    except torch.OutOfMemoryError:
        raise
    except Exception as error:
        weights = next((p.dtype for p in classifier.parameters() if p.is_floating_point()), x.dtype)
        if weights != x.dtype:
            what = f"the classifier has weights in {weights} and doesn't take images in {x.dtype}"
            raise TypeError(f"{what} ({error}): give both one type, or cast inside") from error
        if objective is not None and isinstance(error, TypeError):
            raise TypeError(f"{_embedding(objective)}; calling it so raised: {error}") from error
        if len(x) == 1 and getattr(classifier, "batch_dependent", False):
            what = "the classifier fails on a batch of one image"
            raise ValueError(f"{what} ({error}): choose a batch_size that leaves no image alone") from error
        if len(x) == 1:
            what = "the classifier can't classify one image alone"
            remedy = "one that depends on its batch, as batch statistics do, must say so by batch_dependent = True"
            raise ValueError(f"{what} ({error}): {remedy}") from error
        raise
    if objective is None:
        return found
    if not isinstance(found, tuple) or len(found) != 2 or not all(isinstance(part, Tensor) for part in found):
        raise TypeError(f"{_embedding(objective)}; got {type(found).__name__}")
    return found[0]


def _embedding(objective: Objective) -> str:
    call = "the classifier must take return_embedding=True and return a pair (logits, embedding)"
    return f"{objective.name} needs the embedding: {call}"


def check_gradient(logits: Tensor, rows: Sequence[AttackSpec]) -> None:
    """Refuse rows that need a gradient on a classifier whose logits have none.

    Args:
        logits: of a first batch, computed with gradients enabled from images that require them.
        rows: of a suite.

    Raises:
        ValueError: names these rows, and what can be run.
    """
    need = [row.label for row in rows if about(row.attack).gradients]
    if not need or logits.requires_grad:
        return
    stay = [row.label for row in rows if row.label not in need]
    alone = ", ".join(name for name in names() if not about(name).gradients)
    raise ValueError(
        f"the classifier's logits have no gradient with respect to the images (a detach, no_grad or arg max inside?), "
        f"which these rows need: {', '.join(need)}. Rows that may stay: {', '.join(stay) or 'none'}; "
        f"attacks that need no gradient: {alone}"
    )
