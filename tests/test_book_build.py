"""A book whose build was cut off is built from its beginning; one with a page missing or broken is no book."""

import json

import pytest
from stub_project import notebook

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
