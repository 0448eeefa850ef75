"""A book whose build was cut off is built from its beginning; one with a page missing or broken is no book."""

import dataclasses
import json

import pytest
from docutils import nodes
from stub_project import notebook

from isce.publish import pages
from isce.publish.build import Build

CONFIG = """title: Two pages
only_build_toc_files: true
execute: {execute_notebooks: "off"}
"""
TOC = """format: jb-book
root: first
chapters:
  - file: second
  - glob: more/*
"""


@pytest.fixture
def build(tmp_path):
    source = tmp_path / "source"
    source.mkdir()
    pages = {
        "_config.yml": CONFIG,
        "_toc.yml": TOC,
        "first.md": "# First\n",
        "second.md": "# Second\n",
        "more/third.md": "# Third\n",
    }
    (source / "more").mkdir()
    for name, text in pages.items():
        (source / name).write_text(text)
    return Build(source, tmp_path, tmp_path, tmp_path / "out")


def test_book_of_damaged_records_is_not_built_and_nothing_of_it_is_trusted(build):
    """The report is written in the build's own process: no page is made of what came before the damage."""
    record = build.records / "digits" / "attack" / "sce-s0" / "record.json"
    record.parent.mkdir(parents=True)
    record.write_text("{")
    build = dataclasses.replace(build, report=build.records / "report")
    with pytest.raises(RuntimeError, match=r"isce: .*record\.json"):
        build.render(write_report=True)
    assert build.is_cut_off
    assert not (build.html / "first.html").exists()


def _tree(depth, width):
    """A section of sections, paragraphs and texts; every third paragraph has a class."""
    found = nodes.section()
    for number in range(width):
        found += nodes.paragraph("", "", nodes.Text(f"{depth} {number}"), classes=["third"] * (number % 3 == 0))
        if depth:
            found += _tree(depth - 1, width)
    return found


@pytest.mark.parametrize(
    "condition",
    [None, nodes.paragraph, nodes.Text, nodes.Node, lambda node: "third" in getattr(node, "attributes", {})],
)
def test_nodes_are_found_as_docutils_finds_them(condition):
    tree = _tree(3, 4)
    assert [*map(id, pages.findall(tree, condition))] == [*map(id, pages.FINDALL(tree, condition))]
    first = tree[0]
    ahead = {"include_self": False, "siblings": True}
    assert [*pages.findall(first, condition, **ahead)] == [*pages.FINDALL(first, condition, **ahead)]


def test_nodes_that_change_while_they_are_found_are_met_as_docutils_meets_them():
    """Transforms replace and remove what they are handed, and go on."""

    def changed(find):
        tree = _tree(2, 3)
        for number, node in enumerate(find(tree, nodes.paragraph)):
            if number % 2:
                node.parent.replace(node, nodes.section("", nodes.paragraph("", f"new {number}")))
            else:
                node += nodes.emphasis("", "more")
            if number % 5 == 4:
                node.parent.remove(node.parent[-1])
        return tree.pformat()

    assert changed(pages.findall) == changed(pages.FINDALL)


def _searched(build):
    text = (build.html / "searchindex.js").read_text()
    return json.loads(text[text.index("{") : text.rindex("}") + 1])["docnames"]


def test_failed_or_killed_build_is_built_from_its_beginning(build):
    begun = build.out / "_build" / ".begun"
    (build.source / "second.md").write_text("# Second\n\n[nowhere](nowhere.md)\n")
    with pytest.raises(RuntimeError, match=r"nowhere[\s\S]*warnings or errors \(above\)"):
        build.render()
    with pytest.raises(RuntimeError, match="nowhere"):  # though no page has changed since
        build.render()
    # As a kill leaves it: pages and what Sphinx remembers of them, but no search index yet; then one page changes.
    assert begun.exists()
    assert (build.html / "first.html").is_file()
    for name in ("index.html", "searchindex.js"):
        (build.html / name).unlink(missing_ok=True)
    (build.source / "second.md").write_text("# Second\n\nChanged.\n")
    assert build.render() == build.html / "index.html"
    assert {"first.html", "second.html", "index.html", "search.html"} <= {path.name for path in build.html.iterdir()}
    assert all(page in (build.html / "searchindex.js").read_text() for page in ("first", "second"))
    assert "Changed." in (build.html / "second.html").read_text()
    assert not begun.exists()


def test_page_that_the_search_does_not_know_is_named_and_mended_by_building_again(build):
    build.render()
    index = build.html / "searchindex.js"
    index.write_text(index.read_text().replace('["first", "more/third", "second"]', '["first"]'))
    assert _searched(build) == ["first"]
    with pytest.raises(RuntimeError, match="search does not know these pages: more/third, second; build it again"):
        build.render()
    build.render()
    assert _searched(build) == ["first", "more/third", "second"]


def test_notebook_that_raises_fails_the_build(build):
    (build.source / "second.md").unlink()
    (build.source / "second.ipynb").write_text(json.dumps(notebook("# Second", "1 / 0")))
    config = build.source / "_config.yml"
    config.write_text(config.read_text().replace('"off"', "force"))
    with pytest.raises(RuntimeError, match=r"second\.ipynb: WARNING: Executing notebook failed"):
        build.render()
