#!/bin/sh
# pyautoattack 0.2.0: what an evaluation leaves behind. The robust accuracy is neither returned nor printed, but logged
# at DEBUG. The evaluation seeds torch's global generator, so that "random" numbers drawn after each evaluation are the
# same ones; it switches off whatever trace function is set, so coverage and debuggers stop there without a word;
# run_standard_evaluation_individual leaves the object with its last attack alone, so that a whole evaluation that
# follows is a weaker one; a state file, once written, is refused by the same call that wrote it.
#
# Seen in November 2026, Python 3.11, x86-64 Linux:
#   seen: the robust accuracy is logged at {'DEBUG'}
#   seen: the next random number after each evaluation: 0.4502, 0.4502
#   seen: trace function afterwards: None
#   seen: attacks after run_standard_evaluation_individual: ['square'] of two
#   seen: the same call with its own state file: The state was created with a different set of attacks to run.

. "$(dirname "$0")/_venv.sh"
venv torch==2.13.0 numpy==2.4.6 pyautoattack==0.2.0
python - <<'PY'
import logging
import sys
from pathlib import Path

import torch
from _toy import images, network, see
from pyautoattack import AutoAttack

x, y = images()
net = network()


def fresh(*attacks):
    return AutoAttack(net, eps=0.03, seed=0, version="custom", attacks=list(attacks))


logged = []
logger = logging.getLogger("auto-attack")
logger.setLevel(logging.DEBUG)
logger.addFilter(logged.append)
fresh("apgd-ce").run_standard_evaluation(x, y)
logger.setLevel(logging.WARNING)
levels = {record.levelname for record in logged if "robust accuracy" in record.getMessage()}
see(f"the robust accuracy is logged at {levels}", levels == {"DEBUG"})

torch.manual_seed(1)
draws = []
for _ in range(2):
    fresh("apgd-ce").run_standard_evaluation(x, y)
    draws.append(float(torch.rand(())))
see(f"the next random number after each evaluation: {draws[0]:.4f}, {draws[1]:.4f}", draws[0] == draws[1])

sys.settrace(lambda *_: None)
fresh("apgd-ce").run_standard_evaluation(x, y)
see(f"trace function afterwards: {sys.gettrace()}", sys.gettrace() is None)

attack = fresh("apgd-ce", "square")
attack.square.n_queries = 10
attack.run_standard_evaluation_individual(x, y)
left = attack.attacks_to_run
see(f"attacks after run_standard_evaluation_individual: {left} of two", left == ["square"])

refused = ""
for _ in range(2):
    try:
        fresh("apgd-ce").run_standard_evaluation(x, y, state_path=Path("state.json"))
    except ValueError as error:
        refused = str(error)
see(f"the same call with its own state file: {refused[:62]}", "different set of attacks" in refused)
PY
