"""The index of the numbered statements: by kind, in the order of their numbers, each with title and page."""

import sys
from types import SimpleNamespace

from docutils import nodes

from isce.files import ROOT

sys.path.insert(0, str(ROOT / "book" / "_ext"))
from isce_statements import StatementIndex


def test_statements_stand_by_kind_and_number_with_title_and_page():
    known = {
        "thm-b": {"docname": "two", "realtype": "theorem", "countertype": "theorem", "title": "Last"},
        "thm-a": {"docname": "one", "realtype": "theorem", "countertype": "theorem", "title": "First"},
        "def-a": {"docname": "one", "realtype": "definition", "countertype": "definition", "title": "What"},
    }
    numbers = {"one": {"theorem": {"thm-a": (1,)}, "definition": {"def-a": (1,)}}, "two": {"theorem": {"thm-b": (2,)}}}
    titles = {page: nodes.title(text=f"Page {page}") for page in numbers}
    env = SimpleNamespace(proof_list=known, toc_fignumbers=numbers, titles=titles)
    found, _ = StatementIndex(SimpleNamespace(env=env)).generate()
    shown = [(kind, [(one.name, one.anchor, one.qualifier, one.descr) for one in entries]) for kind, entries in found]
    assert shown == [
        ("Definitions", [("Definition\N{NO-BREAK SPACE}1", "def-a", "What", "Page one")]),
        (
            "Theorems",
            [
                ("Theorem\N{NO-BREAK SPACE}1", "thm-a", "First", "Page one"),
                ("Theorem\N{NO-BREAK SPACE}2", "thm-b", "Last", "Page two"),
            ],
        ),
    ]
