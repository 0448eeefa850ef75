"""The line that moves while a run works: there on a terminal, nowhere else, and gone when the run has ended."""

import json
import os
import pty
import re
import subprocess
import sys
import termios

import pytest
import stub_project

from isce.runs.line import ERASE

BARS = """
import sys
from pathlib import Path
from tqdm import tqdm

here = Path(folder)
print("a warning, say", file=sys.stderr)
with tqdm(total=3, ascii=True) as bar:
    for row in ("fgsm", "pgd50"):
        bar.set_description(f"{row} linf@0.1")
        bar.set_postfix_str("10/56 images, 29 broken")
        bar.update()
assert "stop" not in run
"""


@pytest.fixture
def stub(tmp_path):
    made = stub_project.make(tmp_path / "project")
    cells = stub_project.notebook(stub_project.PARAMETERS, BARS, stub_project.RECORD)
    (made.root / "notebooks" / "train.ipynb").write_text(json.dumps(cells))
    return made


def on_terminal(stub, run, columns):
    """A run whose error stream is a terminal: exit code, output, and what came to the terminal."""
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (24, columns))
    command = [sys.executable, "-m", "isce", "run", "train", str(stub.params(run)), "--device", "cpu"]
    environment = os.environ | {"PYTHONPATH": str(stub.root), "OMP_NUM_THREADS": "1"}
    environment.pop("COLUMNS", None)
    with subprocess.Popen(command, cwd=stub.root, env=environment, stdout=subprocess.PIPE, stderr=theirs) as process:
        os.close(theirs)
        shown = b""
        while chunk := _read(ours):
            shown += chunk
        out = process.stdout.read().decode()
    os.close(ours)
    return process.returncode, out, shown.decode()


def _read(terminal):
    try:
        return os.read(terminal, 65536)
    except OSError:  # Linux: whoever wrote there has ended
        return b""


def test_terminal_shows_run_row_eps_images_and_time_in_one_line_that_is_gone_at_the_end(stub):
    code, out, shown = on_terminal(stub, "sce-s0", 200)
    assert code == 0, shown
    assert "\n" not in shown
    *before, last = shown.split(ERASE)
    assert last == ""
    assert before[0] == ""
    lines = [line for line in before if line]
    assert lines
    assert all(line.startswith("train stub sce-s0  ") for line in lines)
    assert re.search(r"pgd50 linf@0\.1: .*\d/3 \[\d\d:\d\d<.*10/56 images, 29 broken\]$", lines[-1])
    assert "\x1b" not in out
    assert "warning" not in shown


def test_narrow_terminal_is_not_left_with_a_second_line(stub):
    code, _, shown = on_terminal(stub, "sce-s0", 40)
    assert code == 0, shown
    assert max(len(line) for line in shown.split(ERASE)) == 39


def test_run_that_fails_clears_the_line_before_it_says_why(stub):
    code, _, shown = on_terminal(stub, "stop-s0", 200)
    assert code == 1
    assert shown.split(ERASE)[-1].startswith("isce: train stub stop-s0: AssertionError")


def test_elsewhere_than_on_a_terminal_nothing_is_shown(stub):
    process = stub.start("run", "train", str(stub.params()), "--device", "cpu")
    out, err = process.communicate(timeout=120)
    assert (process.returncode, err) == (0, "")
    assert out.count("\n") == 1
