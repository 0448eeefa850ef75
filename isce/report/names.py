"""Names of objectives as sentences and plots for readers say them; tables keep the labels of the experiment files."""

from __future__ import annotations

import re

_NAMES = {
    "sce": "SCE",
    "isce": "I-SCE (text)",
    "isce-released": "I-SCE (code)",
    "mmc": "MMC",
    "lgm": "L-GM",
    "center": "center loss",
    "contrastive": "contrastive loss",
    "triplet": "triplet loss",
}
_CERTIFIED = re.compile(r"isce-certified-eps(\d+(?:\.\d+)?)(?:-.*)?")
_TEXT = re.compile(r"isce-m(-?\d+(?:\.\d+)?)(?:-temperature\d+(?:\.\d+)?)?")


def reader_name(label: str) -> str:
    """Return the name for a label of an experiment file: ``isce-m2`` gives "I-SCE (text, m = 2)"; others stay."""
    if certified := _CERTIFIED.fullmatch(label):
        return f"certified I-SCE (eps {certified[1]})"
    text = _TEXT.fullmatch(label)
    return f"I-SCE (text, m = {text[1]})" if text else _NAMES.get(label, label)


def is_text_version(label: str) -> bool:
    """Return whether a label is that of I-SCE as the paper describes it, with a constant m."""
    return label == "isce" or _TEXT.fullmatch(label) is not None
