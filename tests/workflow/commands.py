"""Runs `python -m isce` for the tests, each time in a fork of one process that has loaded the packages.

Only the packages: each fork loads the code of the project it runs in. A line of standard input is one command, as JSON:
its folder, arguments and environment, and the files for what it prints; its exit code comes back as a line.
"""

import importlib
import json
import os
import runpy
import sys
import warnings

PACKAGES = (
    "matplotlib.pyplot",
    "pandas",
    "papermill",
    "safetensors.torch",
    "scipy.stats",
    "statsmodels.stats.weightstats",
    "torch",
)


def main() -> None:
    for name in PACKAGES:
        importlib.import_module(name)
    warnings.simplefilter("ignore", DeprecationWarning)  # Python 3.12: of a fork beside threads, which are idle here
    for line in sys.stdin:
        command = json.loads(line)
        if (child := os.fork()) == 0:
            os.environ.clear()
            os.environ.update(command["environment"])
            os.chdir(command["root"])
            for stream, name in enumerate((os.devnull, command["out"], command["err"])):
                os.dup2(os.open(name, os.O_RDWR), stream)
            sys.path[0] = command["root"]
            sys.argv[1:] = command["arguments"]
            runpy.run_module("isce", run_name="__main__", alter_sys=True)
        sys.stdout.write(f"{os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
