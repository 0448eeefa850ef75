"""Executed notebooks as others may read them: nothing of one machine in them, words for every picture."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from isce.files import ROOT, RecordError

WIDGETS = "application/vnd.jupyter.widget"  # progress bars: they show nothing without their kernel
ELSEWHERE = re.compile(r"(?<![\w.])/[^\s'\"\\]*?/(?=build/(?:runs|adhoc)/)")  # where the project lay when it ran
LONG = 700  # characters of a cell or an output that are folded away


def clean(path: Path, kind: str, root: Path = ROOT) -> str:
    """An executed notebook for the reader: code and outputs as they were, made portable.

    Left out: what papermill and the kernel note about the machine and the time (the record has that), progress bars,
    what was written to the error stream, and the folder that the project lay in. Cleaning twice changes nothing more.

    Args:
        path: the executed notebook.
        kind: which of ``notebooks/`` it is; the alternative texts of its pictures come from there.
        root: the project's folder.

    Returns:
        The notebook as JSON.

    Raises:
        RecordError: the file is no notebook, or one that was not executed to its end.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        endings = [_ending(cell) for cell in found["cells"]]
        cells = [_cell(cell, number) for number, cell in enumerate(found["cells"])]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise RecordError(f"{path} is no executed notebook: {error!r}") from None
    for number, ending in enumerate(endings, 1):
        if ending:
            raise RecordError(f"{path} was not executed to its end: cell {number} {ending}; its run is to be repeated")
    described = _alt_texts(root / "notebooks" / f"{kind}.ipynb")
    for cell, ran in zip(cells, found["cells"], strict=True):
        # The notebook may have changed since this one ran: the words that it came with then stay.
        if words := described.get("".join(cell["source"]), ran["metadata"].get("mystnb")):
            cell["metadata"]["mystnb"] = words
    metadata = {name: found["metadata"][name] for name in ("kernelspec", "language_info") if name in found["metadata"]}
    notebook = {"cells": cells, "metadata": metadata, "nbformat": 4, "nbformat_minor": 5}
    return json.dumps(notebook, indent=1, ensure_ascii=False, sort_keys=True) + "\n"


def _ending(cell: dict[str, Any]) -> str | None:
    """What kept a cell from its end, or None.

    Said by what the kernel sent. papermill's own marks are not to be trusted: if the kernel is killed they call every
    cell ``completed``, those that never began as well.
    """
    if cell["cell_type"] != "code" or not "".join(cell["source"]).strip():
        return None
    if cell.get("execution_count") is None:
        return "was never run"
    for output in cell["outputs"]:
        if output["output_type"] == "error":
            return f"raised {output['ename']}"
    times = cell["metadata"].get("execution")  # gone from a notebook that was cleaned
    return None if times is None or "shell.execute_reply" in times else "was cut off"


def _cell(cell: dict[str, Any], number: int) -> dict[str, Any]:
    kept: dict[str, Any] = {"cell_type": cell["cell_type"], "id": cell.get("id", f"cell-{number}"), "metadata": {}}
    kept["source"] = _portable(cell["source"])
    if cell["cell_type"] != "code":
        return kept
    outputs: list[dict[str, Any]] = []
    for output in cell["outputs"]:
        shown = _output(output)
        if shown and shown["output_type"] == "stream" and outputs and outputs[-1]["output_type"] == "stream":
            outputs[-1]["text"] += shown["text"]
        elif shown:
            outputs.append(shown)
    kept |= {"execution_count": cell.get("execution_count"), "outputs": outputs}
    tags = [tag for tag in cell["metadata"].get("tags", []) if tag in ("parameters", "injected-parameters")]
    if "injected-parameters" in tags:
        tags.append("hide-input")
    if any(
        len("".join(output.get("data", {}).get("text/plain", ""))) > LONG and _is_text(output) for output in outputs
    ):
        tags.append("hide-output")
    if tags:
        kept["metadata"]["tags"] = tags
    return kept


def _is_text(output: dict[str, Any]) -> bool:
    return set(output.get("data", {})) == {"text/plain"}


def _output(output: dict[str, Any]) -> dict[str, Any] | None:
    """An output without what only the machine that made it can show, or None if nothing is left."""
    if output["output_type"] == "stream":
        return output | {"text": _portable(output["text"])} if output["name"] == "stdout" else None
    data = output.get("data", {})
    if any(name.startswith(WIDGETS) for name in data):
        return None
    texts = {name: _portable(text) for name, text in data.items() if name.startswith("text/")}
    return output | {"data": data | texts} if data else output


def _portable(lines: str | list[str]) -> list[str]:
    return ELSEWHERE.sub("", "".join(lines)).splitlines(keepends=True)


def _alt_texts(notebook: Path) -> dict[str, Any]:
    """For each cell of a committed notebook that draws, by its source: how the book describes its picture."""
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    return {"".join(cell["source"]): cell["metadata"]["mystnb"] for cell in cells if "mystnb" in cell["metadata"]}
