"""The book's reference pages say what the objectives are: parameters, defaults, exemptions, and examples that run."""

from __future__ import annotations

import inspect
import json
import re
from pathlib import Path

import pytest
import torch

import isce.losses
from isce.files import ROOT
from isce.losses.base import LossOptions, Objective
from isce.runs.records import Record

REFERENCE = Path(__file__).parents[1] / "book" / "reference"
NAMES = isce.losses.names()
COMMON = tuple(LossOptions.__annotations__)


def written(value: object) -> str:
    """A default as the book writes it."""
    return f'"{value}"' if isinstance(value, str) else repr(value)


def own_defaults(name: str) -> dict[str, str]:
    """The parameters of the objective's class, and the common ones whose default it changes."""
    objective = isce.losses.build(name)
    parameters = inspect.signature(type(objective)).parameters.values()
    defaults = {p.name: p.default for p in parameters if p.kind is not p.VAR_KEYWORD}
    base = Objective()
    changed = {key: getattr(objective, key) for key in COMMON if getattr(objective, key) != getattr(base, key)}
    return {key: written(value) for key, value in (defaults | changed).items()}


def stated_defaults(text: str) -> dict[str, str]:
    """Every ``name = value`` in code font."""
    return dict(re.findall(r"`(\w+) = ([^`\n]+)`", text))


def section(text: str, heading: str) -> str:
    parts = re.split(r"^## (.+)$", text, flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))[heading]


def page(name: str) -> str:
    return (REFERENCE / "losses" / f"{name}.md").read_text(encoding="utf-8")


def overview() -> str:
    return (REFERENCE / "losses.md").read_text(encoding="utf-8")


def test_a_page_for_each_objective_and_no_other():
    assert sorted(path.stem for path in (REFERENCE / "losses").glob("*.md")) == NAMES


def test_each_page_is_in_the_table_of_contents():
    toc = (REFERENCE.parent / "_toc.yml").read_text(encoding="utf-8")
    assert sorted(re.findall(r"file: reference/losses/(\S+)", toc)) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_parameters_have_their_defaults(name: str):
    assert stated_defaults(page(name)) == own_defaults(name)


def test_common_parameters_have_their_defaults():
    base = Objective()
    assert stated_defaults(overview()) == {key: written(getattr(base, key)) for key in COMMON}


@pytest.mark.parametrize("name", NAMES)
def test_exemptions_have_their_reasons(name: str):
    text = section(page(name), "Exempt from")
    stated = re.findall(r"^\* `(\w+)`: (.+)$", text, flags=re.MULTILINE)
    assert dict(stated) == dict(isce.losses.build(name).exempt)
    assert text.strip() == "Nothing." or stated


def test_every_exemption_is_explained():
    explained = re.findall(r"^\* `(\w+)`: ", section(overview(), "Exemptions"), flags=re.MULTILINE)
    assert set(explained) == {key for name in NAMES for key in isce.losses.build(name).exempt}


def test_overview_table():
    rows = [re.split(r" *\| *", line)[1:-1] for line in overview().splitlines() if line.startswith("| [")]
    stated = {row[0]: (row[1], row[2], row[3], row[5]) for row in rows}
    assert len(rows) == len(NAMES)
    expected = {}
    for name in NAMES:
        objective = isce.losses.build(name)
        expected[f"[`{name}`](losses/{name}.md)"] = (
            f"`{type(objective).__module__.rpartition('.')[2]}`",
            f"`{type(objective).__name__}`",
            "yes" if objective.needs_embedding else "no",
            ", ".join(f"`{key}`" for key in objective.exempt) or "nothing",
        )
    assert stated == expected


@pytest.mark.parametrize("name", NAMES)
def test_matched_attack_is_the_margin_that_the_pages_state(name: str):
    assert type(isce.losses.build(name)).matched is Objective.matched
    assert r"$\max_{k \neq y} s_k - s_y$" in section(page(name), "Matched attack")


@pytest.mark.parametrize("name", NAMES)
def test_example_runs(name: str):
    (block,) = re.findall(r"^```python\n(.*?)^```$", page(name), flags=re.MULTILINE | re.DOTALL)
    scope: dict[str, object] = {}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        exec(block, scope)
    objective, loss = scope["objective"], scope["loss"]
    assert isinstance(objective, Objective)
    assert objective.name == name
    assert isinstance(loss, torch.Tensor)
    assert loss.shape == ()
    assert loss.isfinite()


def record_tables() -> dict[str, set[str]]:
    """By kind, the names in code font in the first column of the record page's tables."""
    text = (REFERENCE / "record.md").read_text(encoding="utf-8")
    parts = re.split(r"^#{2,3} (.+)$", text, flags=re.MULTILINE)
    named = {heading.strip("`"): body for heading, body in zip(parts[1::2], parts[2::2], strict=True)}
    return {
        heading: {
            name
            for row in re.findall(r"^\| (`[^|]*) \|", body, flags=re.MULTILINE)
            for name in re.findall(r"`([^`]+)`", row)
        }
        for heading, body in named.items()
    }


@pytest.mark.parametrize("kind", ["train", "attack", "minmax", "explain"])
def test_record_page_names_every_figure_of_each_kind_and_no_other(kind):
    found = set()
    for path in (ROOT / "results").glob(f"*/{kind}/*/record.json"):
        found |= set(json.loads(path.read_text(encoding="utf-8"))["figures"])
    assert record_tables()[kind] == found


def test_record_page_names_every_field_of_a_record():
    assert record_tables()["One file for each run"] == set(Record.model_fields)


def test_record_page_names_every_side_file_that_is_committed():
    beside = {path.name for path in (ROOT / "results").glob("*/*/*/*")} - {"record.json"}
    assert beside <= record_tables()["Side files"]
