"""The book's attack pages say what registry, suites and flags say: each has its place there, with its defaults."""

from __future__ import annotations

import ast
import inspect
import re
from dataclasses import fields
from pathlib import Path
from typing import get_args

import pytest

from isce.attacks import about, names, search
from isce.attacks.ascent import REACH
from isce.attacks.spec import AttackSpec
from isce.attacks.threat import Norm
from isce.evaluation import flags
from isce.runs import session as notebook
from isce.training.loop import TrainResult

BOOK = Path(__file__).parents[1] / "book"
NAMES = names()


def page_of(name: str) -> str:
    """The page of an attack; some families share one."""
    shared = {"search": "queries", "staged": "matched", "fmn": "minimum"}
    return shared.get(about(name).family, about(name).family)


PAGES = sorted({page_of(name) for name in NAMES})


def text_of(page: str) -> str:
    return (BOOK / "attacks" / f"{page}.md").read_text(encoding="utf-8")


def sections(text: str, level: str) -> dict[str, str]:
    """Text below each heading of a level, by heading."""
    parts = re.split(rf"^{level} (.+)$", text, flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def of_attacks(page: str) -> dict[str, str]:
    """The sections of a page that are about one attack: their heading ends with its name in code font."""
    found = {re.search(r"`([\w-]+)`$", heading): text for heading, text in sections(text_of(page), "##").items()}
    return {match[1]: text for match, text in found.items() if match}


def code(text: str) -> list[str]:
    return re.findall(r"`([\w-]+)`", text)


@pytest.mark.parametrize("name", NAMES)
def test_parameters_have_their_defaults(name: str):
    stated = dict(re.findall(r"`(\w+) = ([^`\n]+)`", of_attacks(page_of(name))[name]))
    assert stated == {key: f"{value:g}" for key, value in about(name).params.items()}


def test_the_threat_models_are_all_there():
    table = sections(text_of("rows"), "##")["What the adversary may do"]
    assert tuple(re.findall(r"^\| `(\w+)`", table, flags=re.MULTILINE)) == get_args(Norm)


def test_every_field_of_a_row_is_explained():
    text = sections(text_of("rows"), "##")["A suite is a list of rows"]
    terms = {name for line in re.findall(r"^(`.+`)\n:", text, flags=re.MULTILINE) for name in code(line)}
    assert terms == set(AttackSpec.model_fields) - {"attack"}


def test_numbers_in_formulas_are_those_of_the_code():
    assert rf"$\alpha = {REACH:g}\,\varepsilon / n$" in of_attacks("gradient")["bim"]
    assert rf"$x \leftarrow \Pi(x \pm {search.STEP:g}\, e_i)" in of_attacks("queries")["simba"].replace("$$\n", "$")
    assert rf"${search.SHARE:g}\, (1 - i / n)^2$" in of_attacks("queries")["search"]


def test_every_flag_of_an_attack_run_has_its_place():
    """Names of flags are the hyphenated words among the module's strings; its docstrings list them, too."""
    strings = {
        node.value
        for node in ast.walk(ast.parse(inspect.getsource(flags)))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    }
    raised = {text for text in strings if re.fullmatch(r"[a-z]+(-[a-z]+)+|randomised", text)} - set(NAMES)
    text = sections(text_of("flags"), "##")["Flags of an attack run"]
    assert set(re.findall(r"^### `(.+)`$", text, flags=re.MULTILINE)) == raised
    listed = str(inspect.getdoc(flags.red_flags)).partition("Names:")[2] + str(inspect.getdoc(flags.curve_flags))
    assert set(re.findall(r"``(?:{\")?([a-z]+(?:-[a-z]+)+|randomised)", listed)) == raised


def test_every_flag_of_training_and_analysis_has_its_place():
    trained = {field.name for field in fields(TrainResult) if field.type == "str | None"}
    source = inspect.getsource(notebook.write_minmax_record)
    analysed = set(re.findall(r'flags(?: = \{|\[)"([a-z ]+)"', source))
    assert trained
    assert analysed == {"no bound", "bound violated"}
    text = sections(text_of("flags"), "##")["Flags of training and of the min-max analysis"]
    assert trained | analysed <= set(re.findall(r"^### `(.+)`$", text, flags=re.MULTILINE))


def test_each_flag_says_what_raises_it_what_it_can_mean_and_what_to_do():
    for heading, text in sections(text_of("flags"), "###").items():
        if heading.startswith("`"):
            terms = re.findall(r"^(.+)\n: ", text, flags=re.MULTILINE)
            assert terms == ["Raised when", "It can mean", "What to do"], heading


def test_thresholds_of_flags_are_those_of_the_code():
    stated = dict(re.findall(r"`([A-Z_]+) = ([^`\n]+)`", text_of("flags")))
    numbers = {name: value for name, value in vars(flags).items() if name.isupper() and type(value) in (int, float)}
    found = {name: f"{value:g}" for name, value in numbers.items()}
    assert stated == found
