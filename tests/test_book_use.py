"""The pages on using the project on one's own: their code runs in a copy of the project and prints what they show."""

import shutil

import book_code
import pytest

from isce.files import ROOT

PAGES = ROOT / "book" / "use"
LINES = {
    "from isce.losses.checks import known\n": "from isce.losses.focal import FocalLoss\n",
    "_OBJECTIVES: dict[str, type[Objective]] = {\n": '    "focal": FocalLoss,\n',
    "__all__ = [\n": '    "FocalLoss",\n',
}


@pytest.fixture
def project(tmp_path):
    """A copy of what the pages work on."""
    for name in ("isce", "notebooks", "experiments", "workflow", "checkpoints"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "book").mkdir()
    return tmp_path


def register(project):
    """Do as the page on a new loss says."""
    path, page = project / "isce" / "losses" / "__init__.py", (PAGES / "objective.md").read_text(encoding="utf-8")
    for place, line in LINES.items():
        assert f"```text\n{line}```" in page
        before, found, after = path.read_text().partition(place)
        path.write_text(before + found + line + after)


def test_every_page_is_run_here_and_in_the_table_of_contents():
    names = sorted(path.stem for path in PAGES.glob("*.md"))
    assert names == ["experiment", "loss", "model", "objective"]
    toc = (ROOT / "book" / "_toc.yml").read_text(encoding="utf-8")
    assert all(f"file: use/{name}\n" in toc for name in names)


def test_code_prints_what_the_pages_show(project):
    (project / "tests" / "losses").mkdir(parents=True)
    shutil.copy(ROOT / "tests" / "losses" / "loss_cases.py", project / "tests" / "losses")
    register(project)
    pages = [PAGES / f"{name}.md" for name in ("loss", "model", "objective", "experiment")]
    for page in pages:
        book_code.write_files(page, project)
    for name, found in book_code.run(project, *pages).items():
        assert found, name
        for shown, printed in found:
            assert printed == shown, name


def test_helper_tells_files_outputs_and_failures_apart(tmp_path):
    page = tmp_path / "page.md"
    page.write_text(
        "```yaml\n# experiments/a.yaml\nx: 1\n```\n\n```python\nprint(1)\n```\n\n```text\n1\n```\n\nWords.\n\n"
        "```text\nno output\n```\n\n```python\ny = 2\nprint(y + 1)\n```\n"
    )
    (tmp_path / "experiments").mkdir()
    book_code.write_files(page, tmp_path)
    assert (tmp_path / "experiments" / "a.yaml").read_text() == "# experiments/a.yaml\nx: 1\n"
    assert book_code.run(tmp_path, page) == {"page": [("1\n", "1\n"), ("", "3\n")]}
    page.write_text("```python\nimport warnings\nwarnings.warn('x')\n```\n")
    with pytest.raises(AssertionError, match="UserWarning"):
        book_code.run(tmp_path, page)


@pytest.mark.full
def test_new_loss_meets_the_contract(project):
    shutil.copytree(ROOT / "tests", project / "tests", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", project)
    register(project)
    book_code.write_files(PAGES / "objective.md", project)
    done = book_code.python(project, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-k", "focal", "tests/losses")
    assert done.returncode == 0, done.stdout
    assert int(done.stdout.rpartition(" passed")[0].split()[-1]) > 20


@pytest.mark.full
def test_new_experiment_is_run(project):
    book_code.write_files(PAGES / "experiment.md", project)
    done = book_code.python(project, "-m", "isce", "reproduce", "--experiment", "mine", "--no-book", "--jobs", "2")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "isce-m5" in done.stdout
