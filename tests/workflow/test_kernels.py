"""Kernels forked from one process: each is what the run's own would be, and none outlives its run."""

import json
import os
import signal

import psutil
import pytest
import stub_project

from isce.publish import kernels
from isce.runs import execution, records
from isce.runs.forked import SOCKET

LOOK = """
import os, sys, threading
import torch
from pathlib import Path

state = {
    "environment": {name: os.environ[name] for name in os.environ if name not in ("JPY_PARENT_PID", "ISCE_KERNELS")},
    "path": sys.path,
    "arguments": sys.argv[1:][-2:],
    "folder": os.getcwd(),
    "threads": torch.get_num_threads(),
    "session": os.getsid(0) == os.getpid(),
    "signals": {str(number) for number in signal.valid_signals() if signal.getsignal(number) == signal.SIG_IGN},
}
"""


@pytest.fixture(scope="module")
def keeper(tmp_path_factory):
    """The environment of a `make reproduce` that keeps the packages loaded, and the process that does."""
    before = set(psutil.Process().children())
    with kernels.kept((dict(os.environ) | {"OMP_NUM_THREADS": "1"}, [])) as (environment, files):
        assert len(files) == 1
        (process,) = set(psutil.Process().children()) - before
        yield environment[SOCKET], process
    assert not process.is_running()


@pytest.fixture
def stub(tmp_path):
    return stub_project.make(tmp_path / "project")


def begin(stub, keeper):
    """Start a run that asks for a kernel; the run, and its kernel at work."""
    run = stub.start("run", "train", str(stub.params()), "--device", "cpu", **{SOCKET: keeper[0]})
    kernel = stub_project.until(stub.owner)
    assert kernel.parent() == keeper[1]
    assert f"(its kernel: {kernel.pid})" in (stub.params().parent / ".lock").read_text()
    return run, kernel


def test_run_is_done_by_a_kernel_that_was_forked_and_ends_with_it(stub, keeper):
    run, kernel = begin(stub, keeper)
    stub.let_go()
    out, err = run.communicate(timeout=120)
    assert (run.returncode, err) == (0, "")
    assert "validation accuracy 50.0%" in out
    assert not kernel.is_running()
    assert keeper[1].children() == []


def test_killed_run_takes_its_kernel_along_and_the_next_one_is_the_only_one_at_work(stub, keeper):
    run, kernel = begin(stub, keeper)
    run.kill()
    run.communicate()
    stub_project.until(lambda: not kernel.is_running())
    stub.let_go()
    second = stub.start("run", "train", str(stub.params()), "--device", "cpu", **{SOCKET: keeper[0]})
    out, err = second.communicate(timeout=120)
    assert second.returncode == 0, out + err
    assert stub.workers() == {"sce-s0": 2}
    assert stub.overlaps() == []


def test_killed_kernel_is_named(stub, keeper):
    run, kernel = begin(stub, keeper)
    kernel.kill()
    _, err = run.communicate(timeout=120)
    assert run.returncode == 1
    assert err.startswith("isce: train stub sce-s0: its kernel was killed (SIGKILL), most likely by the system ")
    assert not stub.contents()


def test_run_that_ends_by_a_signal_leaves_no_kernel(stub, keeper):
    run, kernel = begin(stub, keeper)
    run.send_signal(signal.SIGTERM)
    run.communicate(timeout=120)
    stub_project.until(lambda: not kernel.is_running())


def test_kernel_is_what_the_run_would_have_started(stub, keeper, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    look = f"import json, signal\n{LOOK}\nPath(folder, 'state').write_text(json.dumps(state, default=sorted))"
    sources = (stub_project.PARAMETERS, look, "here = Path(folder)", stub_project.RECORD)
    path = stub.root / "notebooks" / "train.ipynb"
    path.write_text(json.dumps(stub_project.notebook(*sources)))
    states = []
    for socket in ("", keeper[0]):
        monkeypatch.setenv(SOCKET, socket)
        execution.execute("train", stub.params(), "cpu", stub.root)
        states.append((stub.params().parent / "state").read_text())
    assert json.loads(states[0]) == json.loads(states[1])


def test_kernels_end_with_the_process_that_forked_them_and_runs_go_on_without_it(stub):
    before = set(psutil.Process().children())
    with kernels.kept((dict(os.environ) | {"OMP_NUM_THREADS": "1"}, [])) as (environment, _):
        (process,) = set(psutil.Process().children()) - before
        keeper = environment[SOCKET], process
        run, kernel = begin(stub, keeper)
        process.kill()
        _, err = run.communicate(timeout=120)
        assert (run.returncode, err.count("\n")) == (1, 1)
        stub_project.until(lambda: not kernel.is_running())
        assert not stub.contents()
        stub.let_go()
        again = stub.start("run", "train", str(stub.params()), "--device", "cpu", **{SOCKET: keeper[0]})
        again.communicate(timeout=120)
    assert again.returncode == 0
    assert records.read(stub.params().with_name("record.json")).key == "k"


def test_process_lives_as_long_as_its_last_kernel_and_no_longer(stub):
    before = set(psutil.Process().children())
    with kernels.kept((dict(os.environ) | {"OMP_NUM_THREADS": "1"}, [])) as (environment, files):
        (process,) = set(psutil.Process().children()) - before
        held = os.dup(files[0])  # as Snakemake has it
        run, kernel = begin(stub, (environment[SOCKET], process))
    assert kernel.is_running(), "whoever has the file may go on"
    os.close(held)
    assert stub_project.until(lambda: process.is_running() and kernel.is_running())
    stub.let_go()
    assert run.wait(120) == 0
    run.communicate()
    process.wait(60)
