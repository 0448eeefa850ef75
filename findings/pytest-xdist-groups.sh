#!/bin/sh
# pytest-xdist 3.8.0 beside pytest 9.2.0: `--dist loadgroup` does not group. Tests that carry the mark `xdist_group` with
# one name, as a decorator or added by a conftest, run in both processes, without a warning: a session fixture that the
# group was to share is made in each. xdist writes the group into the private attribute of a test's id, which this
# pytest no longer reads. `--dist loadfile` still keeps a file in one process.
#
# Seen in November 2026, Python 3.11, x86-64 Linux:
#   seen: loadgroup: 40 tests of one group ran in 2 processes
#   seen: loadgroup says nothing about that
#   seen: loadfile: each of 2 files of 20 tests ran in 1 process

. "$(dirname "$0")/_venv.sh"
venv pytest==9.2.0 pytest-xdist==3.8.0
mkdir tests
for name in one two; do
    cat > "tests/test_$name.py" <<'PY'
import os
import time

import pytest


@pytest.mark.xdist_group("all")
@pytest.mark.parametrize("number", range(20))
def test_where(number, request):
    time.sleep(0.02)
    with open(os.environ["SEEN"], "a") as seen:
        seen.write(f"{request.path.name} {os.environ['PYTEST_XDIST_WORKER']}\n")
PY
done
SEEN="$work/group" python -m pytest -q -n 2 --dist loadgroup tests > "$work/said"
SEEN="$work/file" python -m pytest -q -n 2 --dist loadfile tests > "$work/said-file"
python - "$work" <<'PY'
import sys
from pathlib import Path

from _toy import see

work = Path(sys.argv[1])
group, file = ([line.split() for line in (work / name).read_text().splitlines()] for name in ("group", "file"))
processes = len({process for _, process in group})
see(f"loadgroup: {len(group)} tests of one group ran in {processes} processes", (len(group), processes) == (40, 2))
said = (work / "said").read_text().lower()
see("loadgroup says nothing about that", "warning" not in said and "group" not in said)
each = {name: len({process for of, process in file if of == name}) for name, _ in file}
see("loadfile: each of 2 files of 20 tests ran in 1 process", len(file) == 40 and set(each.values()) == {1})
PY
