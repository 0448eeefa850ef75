#!/bin/sh
# jupyter-repo2docker 2026.4.0 (what Binder builds with): one line `-c FILE` among the pip packages of environment.yml moves the
# installation of the environment behind the copy of the whole repository. Without such a line environment.yml is copied and
# installed first, so that the layer with the packages is kept until that file changes. With it any change of any file, a page
# or a test, installs everything anew. The Dockerfile is printed without Docker (`--no-build --debug`).
#
# Seen in November 2026, Python 3.11, x86-64 Linux:
#   seen: without a constraint the environment is installed before the repository is copied
#   seen: with a constraint it is installed after that
#   seen: environment.yml alone is copied before its installation only without a constraint

. "$(dirname "$0")/_venv.sh"
unset FINDINGS_VENV # the project's environment has no repo2docker
venv jupyter-repo2docker==2026.4.0
python - <<'PY'
import subprocess
import sys
import tempfile
from pathlib import Path

from _toy import see


def dockerfile(*pip: str) -> list[str]:
    """Lines of the Dockerfile for a repository with these pip packages."""
    with tempfile.TemporaryDirectory() as folder:
        packages = "".join(f"      - {line}\n" for line in pip)
        environment = f"name: small\ndependencies:\n  - python=3.11\n  - pip\n  - pip:\n{packages}"
        Path(folder, "environment.yml").write_text(environment)
        Path(folder, "constraints.txt").write_text("six==1.17.0\n")
        command = [sys.executable, "-m", "repo2docker", "--no-build", "--debug", folder]
        found = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return found.splitlines()


def first(lines: list[str], start: str, *parts: str) -> int:
    """Number of the first line that begins so and holds all parts; -1: none."""
    return next((n for n, line in enumerate(lines) if line.startswith(start) and all(part in line for part in parts)), -1)


plain, bound = dockerfile("six==1.17.0"), dockerfile("-c constraints.txt", "six")
places = {}
for name, lines in (("without", plain), ("with", bound)):
    copied, installed = first(lines, "COPY", " src/ "), first(lines, "bash -c", "env update", "environment.yml")
    alone = first(lines, "COPY", " src/environment.yml ")
    places[name] = (copied, installed, alone)
    print(f"{name} a constraint: whole copy in line {copied + 1}, installation {installed + 1}, file alone {alone + 1}")
copied, installed, alone = places["without"]
see("without a constraint the environment is installed before the repository is copied", 0 <= installed < copied)
second_copied, second_installed, second_alone = places["with"]
see("with a constraint it is installed after that", 0 <= second_copied < second_installed)
see("environment.yml alone is copied before its installation only without a constraint", 0 <= alone < installed and second_alone < 0)
PY
