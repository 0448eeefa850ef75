"""Names of losses and attacks as readers see them, and how figures show each; files keep the labels of experiments."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from isce import defences

_NAMES = {
    "sce": "SCE",
    "isce": "I-SCE (text)",
    "isce-released": "I-SCE (code)",
    "mmc": "MMC",
    "mmc-c_mm100": "MMC, centres of norm 100",
    "lgm": "L-GM",
    "center": "center loss",
    "contrastive": "contrastive loss",
    "triplet": "triplet loss",
    "cosface": "CosFace",
    "label-smoothing": "label smoothing",
    "logit-squeezing": "logit squeezing",
}
_CERTIFIED = re.compile(r"isce-certified-eps(\d+(?:\.\d+)?)(?:-.*)?")
_TEXT = re.compile(r"isce-m(-?\d+(?:\.\d+)?)(?:-temperature(\d+(?:\.\d+)?))?")
_CODE = re.compile(r"isce-released(?:-clip(?P<clip>on|off))?-m(?P<m>\d+(?:\.\d+)?)")
_DEFENDED = re.compile(
    rf"(?P<loss>.+?)-(?P<name>{'|'.join(sorted(defences.names(), key=len, reverse=True))})"
    r"(?P<params>(?:-[a-z_]+[\d.]+)*)"
)
_ATTACKS = {
    "pgd": "PGD",
    "bim": "BIM",
    "fgsm": "FGSM",
    "mim": "MIM",
    "cw": "C&W",
    "fab": "FAB",
    "fmn": "FMN",
    "nearest": "FMN towards every likely class",
    "jsma": "JSMA",
    "spsa": "SPSA",
    "lbfgs": "L-BFGS",
    "deepfool": "DeepFool",
    "autoattack": "AutoAttack",
    "simba": "SimBA",
    "matched": "adaptive",
    "staged": "adaptive in stages",
    "search": "random search",
    "local-search": "local search",
    "single-pixel": "single pixel",
    "released": "the script's attack",
    "spatial": "moved pixels",
    "transfer": "transfer",
}
_ROW = re.compile(
    rf"(?P<attack>{'|'.join(sorted(_ATTACKS, key=len, reverse=True))})(?P<steps>\d+)?(?:x(?P<restarts>\d+))?"
    r"(?:-(?P<on>training|matched|margin|ce|dlr|targeted))?(?P<targeted>-targeted)?"
    r"(?:-from-(?P<source>.+)-s(?P<seed>\d+))?(?:-step(?P<step>[\d.]+))?(?:-(?P<what>[a-z]+)(?P<value>[\d.]+))?"
    r"(?P<blind>-blind)?"
)
_ON = {
    "training": " on the training loss",
    "matched": " on the margin",
    "margin": " on the raw margin",
    "ce": " on cross-entropy",
    "dlr": " on the DLR ratio",
    "targeted": ", class by class",
}
#: Losses that a figure with room for few shows, in this order.
_CORE = ("sce", "isce-m2", "isce-released", "mmc")


def reader_name(label: str) -> str:
    """Return the name for a label of an experiment file: ``isce-m2`` gives "I-SCE (text, m = 2)"; others stay."""
    if defended := _DEFENDED.fullmatch(label):
        params = ", ".join(re.sub(r"([a-z_]+)([\d.]+)", r"\1 \2", one) for one in defended["params"].split("-")[1:])
        title = defences.about(defended["name"]).title
        return f"{reader_name(defended['loss'])} + {title}" + (f" ({params})" if params else "")
    if certified := _CERTIFIED.fullmatch(label):
        return f"certified I-SCE (eps {certified[1]})"
    if text := _TEXT.fullmatch(label):
        return f"I-SCE (text, m = {text[1]}{f', T = {text[2]}' if text[2] else ''})"
    if code := _CODE.fullmatch(label):
        clip = f", clip {code['clip']}" if code["clip"] else ""
        return f"I-SCE (code, m = {code['m']}{clip})"
    return _NAMES.get(label, label)


def row_name(label: str) -> str:
    """Return the name of a suite's row: ``pgd50-training`` gives "PGD-50 on the training loss"; others stay.

    Different labels of the package's suites have different names.
    """
    found = _ROW.fullmatch(label)
    if found is None:
        return label
    name = _ATTACKS[found["attack"]] + (f"-{found['steps']}" if found["steps"] else "")
    name += f" x {found['restarts']}" if found["restarts"] else ""
    # One name for two things: a function that the adaptive attack climbs, and one random wrong class to end in.
    on = found["on"] if found["on"] != "targeted" or found["attack"] in ("matched", "staged") else None
    name += _ON.get(on or "", "") + (", targeted" if found["targeted"] or found["on"] != on else "")
    name += f" from {reader_name(found['source'])}, seed {found['seed']}" if found["source"] else ""
    name += f", step {found['step']}" if found["step"] else ""
    name += f", {found['what']} {found['value']}" if found["what"] else ""
    return name + (", blind to the detector" if found["blind"] else "")


def is_text_version(label: str) -> bool:
    """Return whether a label is that of I-SCE as the paper describes it, with a constant m."""
    return label == "isce" or _TEXT.fullmatch(label) is not None


def core(labels: Iterable[str]) -> list[str]:
    """Return the labels that a figure with room for four losses shows: the main ones, else the first."""
    labels = list(labels)
    found = [label for label in _CORE if label in labels]
    return (found + [label for label in labels if label not in found])[:4] if len(labels) > 4 else labels


def panels(labels: Sequence[str]) -> list[list[str]]:
    """Return the labels by panel, eight lines in one at most: I-SCE beside SCE, then the other losses beside it."""
    if len(labels) <= 5:
        return [list(labels)]
    ours = [label for label in labels if label.startswith("isce")]
    others = [label for label in labels if label not in ours and label != "sce"]
    base = [label for label in labels if label == "sce"]
    parts = [group[at : at + 7] for group in (ours, others) for at in range(0, len(group), 7)]
    return [[*base, *part] for part in parts]
