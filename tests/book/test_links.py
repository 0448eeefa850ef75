"""Links inside the book: one that leads nowhere stops the build, whatever its kind."""

from __future__ import annotations

from pathlib import Path

import pytest

from isce.publish.build import Build

pytestmark = pytest.mark.full
BROKEN = ("[page](none.md)", "[heading](other.md#none)", "{ref}`none`", "{doc}`none`", "{cite}`none`", "![x](none.svg)")


def test_a_broken_link_fails_the_build(tmp_path: Path):
    (tmp_path / "_config.yml").write_text("title: t\nonly_build_toc_files: true\nexecute: {execute_notebooks: 'off'}\n")
    (tmp_path / "_toc.yml").write_text("format: jb-book\nroot: index\nchapters: [{file: other}]\n")
    (tmp_path / "other.md").write_text("# Other\n\nText.\n")
    index = tmp_path / "index.md"
    build = Build(source=tmp_path, report=tmp_path, records=tmp_path, out=tmp_path / "out")
    index.write_text("# Title\n\n[page](other.md)\n")
    assert build.render().is_file()
    index.write_text("# Title\n\n" + "\n\n".join(BROKEN) + "\n")
    with pytest.raises(RuntimeError, match="the book has warnings or errors") as told:
        build.render()
    lines = [line for line in str(told.value).splitlines() if "index.md" in line and "WARNING" in line]
    assert {int(line.split("index.md:")[1].split(":")[0]) for line in lines} == {3 + 2 * n for n in range(len(BROKEN))}
