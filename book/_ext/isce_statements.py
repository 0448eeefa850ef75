"""Sphinx extension: the index of the numbered statements says their numbers, titles and pages.

sphinx-proof's own lists the labels that the sources use.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from docutils import nodes
from isce_tables import folded
from sphinx.application import Sphinx
from sphinx.domains import Index, IndexEntry
from sphinx_proof.domain import ProofDomain
from sphinx_proof.nodes import NODE_TYPES

KINDS = {
    "definition": "Definitions",
    "theorem": "Theorems",
    "proposition": "Propositions",
    "corollary": "Corollaries",
    "remark": "Remarks",
    "conjecture": "Conjectures",
}


def note_titles(app: Sphinx, doctree: nodes.document) -> None:
    """Keep the statements' titles beside what sphinx-proof keeps of them."""
    for node in doctree.findall(lambda one: isinstance(one, tuple(NODE_TYPES.values()))):
        if isinstance(node, nodes.Element) and isinstance(node[0], nodes.title):
            kept = app.env.proof_list  # pyright: ignore[reportAttributeAccessIssue]  sphinx-proof puts it there
            kept[node["label"]]["title"] = node[0].astext().strip().strip("()")


class StatementIndex(Index):
    """Every numbered statement, by its kind."""

    name = "prf"
    localname = "Numbered statements"
    shortname = "Statements"

    def generate(self, docnames: Iterable[str] | None = None) -> tuple[list[tuple[str, list[IndexEntry]]], bool]:
        env = self.domain.env
        found: dict[str, list[tuple[int, IndexEntry]]] = {heading: [] for heading in KINDS.values()}
        for label, about in getattr(env, "proof_list", {}).items():
            page, kind = about["docname"], about["realtype"]
            (number,) = env.toc_fignumbers[page][about["countertype"]][label]
            name, on = f"{kind.title()}\N{NO-BREAK SPACE}{number}", env.titles[page].astext()
            found[KINDS[kind]].append((number, IndexEntry(name, 0, page, label, "", about["title"], on)))
        ordered = {kind: sorted(entries, key=lambda one: one[0]) for kind, entries in found.items() if entries}
        return [(kind, [entry for _, entry in entries]) for kind, entries in ordered.items()], False


def fold_proofs(app: Sphinx, doctree: nodes.document) -> None:
    """A proof opens when it is asked for."""
    for node in list(doctree.findall(nodes.admonition)):
        if node["classes"][:1] == ["proof"]:
            place = node.parent.index(node)
            node.parent[place : place + 1] = folded("Proof", node, kind="isce-proof")


def setup(app: Sphinx) -> dict[str, Any]:
    """Put this index in the place of sphinx-proof's."""
    ProofDomain.indices = [StatementIndex]
    app.connect("doctree-read", note_titles)
    app.connect("doctree-read", fold_proofs)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
