#!/bin/sh
# torch 2.13.0: the first optimizer of a process, plain SGD on the CPU too, imports the compiler (torch._dynamo):
# eight hundred modules, and nearly as much processor time as `import torch` took, in a program that compiles nothing.
# Importing torch alone does not. So a process that only evaluates starts much sooner than one that takes one step, and
# a short program pays for the compiler at a place where nobody looks for an import.
#
# Seen in November 2026, Python 3.11, x86-64 Linux (the first optimizer then took 2.1 s of CPU, torch itself 2.8 s):
#   seen: torch._dynamo is not there after import torch
#   seen: it is there after torch.optim.SGD([parameter], 0.1), which imported more than 500 modules
#   seen: a second optimizer imports nothing

. "$(dirname "$0")/_venv.sh"
venv torch==2.13.0
python - <<'PY'
import sys

import torch
from _toy import see

see("torch._dynamo is not there after import torch", "torch._dynamo" not in sys.modules)
weight = torch.zeros(1, requires_grad=True)
before = len(sys.modules)
torch.optim.SGD([weight], 0.1)
text = "it is there after torch.optim.SGD([parameter], 0.1), which imported more than 500 modules"
see(text, "torch._dynamo" in sys.modules and len(sys.modules) - before > 500)
before = len(sys.modules)
torch.optim.SGD([weight], 0.1)
see("a second optimizer imports nothing", len(sys.modules) == before)
PY
