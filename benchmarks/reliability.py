"""What happens when runs are killed, disks fill and files rot: the outcome of the tests that try it, long ones too.

    python benchmarks/reliability.py --out benchmarks/results/reliability.json

Runs them with pytest (half an hour on two cores, most of it the twenty kills of a run with its book and the digits on a
Slurm of one node) and keeps what each said. A test is named by the sentence that it proves. With ``--again`` some tests
are run once more, such as after a mend, and take their places in the file; it says so, and at which commit.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from shown import save

from isce.files import ROOT

TESTS = [
    "tests/workflow",
    "tests/test_training.py::test_killed_by_a_signal_again_and_again",
]


def outcomes(report: Path) -> list[dict[str, str | float]]:
    """One row for each test of a JUnit report."""
    rows: list[dict[str, str | float]] = []
    for case in ElementTree.parse(report).iter("testcase"):  # noqa: S314  pytest has just written it
        name, _, detail = case.get("name", "").partition("[")
        said = {child.tag for child in case} & {"failure", "error", "skipped"}
        sentence = re.sub(r"_", " ", name.removeprefix("test_")) + (f" ({detail.rstrip(']')})" if detail else "")
        outcome = ", ".join(sorted(said)) or "passed"
        file = case.get("classname", "").rpartition(".")[2]
        rows.append({"file": file, "test": sentence, "outcome": outcome, "seconds": float(case.get("time", 0))})
    return rows


def renewed(found: dict[str, Any], rows: list[dict[str, str | float]], commit: str) -> dict[str, Any]:
    """The outcomes of a whole run, with those of tests that were run once more in their places."""
    again = {(row["file"], row["test"]): row | {"again": commit} for row in rows}
    tests = [again.pop((row["file"], row["test"]), row) for row in found["tests"]]
    return {"where": found["where"], "tests": tests + list(again.values())}


def main(arguments: list[str] | None = None) -> int:
    """Run the tests, print what each said, write it as JSON where asked; the exit code is pytest's."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tests", nargs="+", default=TESTS, help="what to give to pytest")
    parser.add_argument("--out", type=Path, help="also write the outcomes to this JSON file")
    parser.add_argument("--again", action="store_true", help="keep the other outcomes that --out holds")
    options = parser.parse_args(arguments)
    if options.again and not (options.out and options.out.is_file()):
        parser.error(f"--again needs --out with the file of a whole run, not {options.out}")
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "junit.xml"
        command = [sys.executable, "-m", "pytest", *options.tests, f"--junitxml={report}"]
        code = subprocess.run(command, cwd=ROOT, check=False).returncode  # noqa: S603
        if not report.is_file():
            return code or 1
        rows = outcomes(report)
    for row in rows:
        print(f"{row['outcome']:<8} {row['seconds']:7.1f} s  {row['test']}")
    if options.out:
        commit = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False)  # noqa: S607
        where = {
            "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} CPU",
            "python": platform.python_version(),
            "commit": commit.stdout.strip()[:12] or "unknown",
        }
        found = {"where": where, "tests": rows}
        if options.again:
            found = renewed(json.loads(options.out.read_text(encoding="utf-8")), rows, where["commit"])
        save(options.out, found, "reliability")
    return code


if __name__ == "__main__":
    sys.exit(main())
