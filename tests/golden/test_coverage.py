"""Lines of the numeric rooms that the golden behaviours run: a line that none runs is a hole in the net."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
ROOMS = ("losses", "models", "attacks", "defences", "training", "evaluation", "minmax", "explain")
#: Share of the lines that ran, measured. The rest: resuming, failing packages, GPU memory, comparisons of runs.
LEAST = 0.87
#: The tracer is set anew for each part: AutoAttack's package takes it away.
MEASURE = """
import json, sys
import coverage

rooms = [f"isce/{room}" for room in sys.argv[1:]]
measured = coverage.Coverage(source=rooms, data_file=None, config_file=False)
measured.exclude(r"^\\s*raise ")  # refusals decide no result
measured.start()
from golden.behaviour import parts

for make in parts().values():
    measured.stop()
    measured.start()
    make()
measured.stop()
found = {}
for path in sorted(measured.get_data().measured_files()):
    _, lines, _, missing, text = measured.analysis2(path)
    found[path] = [len(lines), len(missing), text]
print(json.dumps(found))
"""


@pytest.mark.full
def test_the_net_has_no_new_hole():
    command = [sys.executable, "-W", "ignore", "-c", MEASURE, *ROOMS]
    environment = os.environ | {"PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    lines, missing = (sum(row[place] for row in found.values()) for place in (0, 1))
    holes = "\n".join(f"{Path(path).relative_to(ROOT)}: {text}" for path, (_, n, text) in found.items() if n)
    share = 1 - missing / lines
    assert share >= LEAST, f"{share:.2%} of {lines} lines ran, {LEAST:.2%} is the least; these did not:\n{holes}"
