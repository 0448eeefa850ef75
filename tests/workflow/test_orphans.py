"""Processes killed one by one, which leaves the others at work: never two writers in one run's folder."""

import contextlib
import os
import platform
import re
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import psutil
import pytest
import stub_project

from isce.files import ROOT, RecordError
from isce.runs import executed, execution, locks, records

RUNS = {"sce-s0", "sce-s1"}


@pytest.fixture
def stub(tmp_path):
    return stub_project.make(tmp_path / "project")


# --- one run


@contextlib.contextmanager
def meanwhile(work):
    """Do something in another thread while a run is executed in this one, as its event loop needs."""
    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(work)
        yield
        future.result()


def test_killed_kernel_is_named_and_its_notebook_is_not_taken_for_an_executed_one(stub):
    params = stub.params()
    notebook = params.with_name("notebook.ipynb")
    with meanwhile(lambda: stub_project.until(stub.owner).kill()), pytest.raises(RuntimeError) as error:
        execution.execute("train", params, "cpu", stub.root)
    message = str(error.value)
    assert message.startswith("train stub sce-s0: its kernel was killed (SIGKILL), most likely by the system ")
    assert "memory ran out" in message
    assert str(notebook) in message
    assert "\n" not in message
    assert notebook.read_text().count('"status": "completed"') > notebook.read_text().count("shell.execute_reply")
    with pytest.raises(RecordError, match=r"not executed to its end: cell 3 was (cut off|never run)"):
        executed.clean(notebook, "train")
    stub.let_go()
    execution.execute("train", params, "cpu", stub.root)
    assert executed.clean(notebook, "train")


def test_kernel_of_a_killed_run_ends_before_another_run_begins(stub, capfd):
    params = stub.params()
    first = stub.start("run", "train", str(params), "--device", "cpu")
    kernel = stub_project.until(stub.owner)
    kernel.suspend()  # it looks only once a second whether its parent is there: let that second be long
    first.kill()
    first.wait()

    def end_it():
        said = stub_project.until(lambda: capfd.readouterr().err)
        assert f"(its kernel: {kernel.pid}) already works on it; waiting" in said
        assert stub.workers() == {"sce-s0": 1}
        kernel.resume()
        first.communicate()  # until its kernel has ended as well
        stub.let_go()

    with meanwhile(end_it):
        execution.execute("train", params, "cpu", stub.root)
    assert stub.workers() == {"sce-s0": 2}
    assert stub.overlaps() == []
    assert records.read(params.with_name("record.json")).key == "k"


def test_run_that_another_process_finishes_meanwhile_is_not_done_twice(stub, capfd):
    params = stub.params()
    first = stub.start("run", "train", str(params), "--device", "cpu")
    stub_project.until(stub.owner)

    def finish():
        said = stub_project.until(lambda: capfd.readouterr().err)
        owners = rf"process {first.pid} on \S+ \(its kernel: \d+\)"
        assert re.fullmatch(rf"isce: train stub sce-s0: {owners} already works on it; waiting .*\n", said)
        stub.let_go()
        first.communicate()

    with meanwhile(finish):
        execution.execute("train", params, "cpu", stub.root)
    assert first.returncode == 0
    assert stub.workers() == {"sce-s0": 1}


def test_lock_is_held_by_whoever_has_its_file_and_free_when_they_are_dead(tmp_path):
    def busy(owners):
        raise RuntimeError(owners)

    path = tmp_path / "new" / "lock"
    hold = "import sys, time; from pathlib import Path; from isce.runs import locks\n"
    hold += "with locks.hold(Path(sys.argv[1]), print) as lock:\n    print('held', flush=True); time.sleep(600)"
    with subprocess.Popen([sys.executable, "-c", hold, str(path)], cwd=ROOT, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout.readline() == b"held\n"
            with pytest.raises(RuntimeError, match=f"process {process.pid} on "):
                locks.await_free(path, busy)
            with pytest.raises(RuntimeError, match=f"process {process.pid} on "), locks.hold(path, busy):
                pass
        finally:
            process.kill()
    locks.await_free(path, busy)
    with locks.hold(path, busy):
        assert path.read_text() == f"process {os.getpid()} on {platform.node()}"


# --- `make reproduce`


def moments(stub, process):
    """When to kill, by name: each waits for its moment."""
    return {
        "planning": lambda: stub_project.until(lambda: (stub.root / "build" / ".lock").exists()),
        "runs begin": lambda: stub_project.until(lambda: len(stub_project.children(process)) > 1),
        "runs work": lambda: stub_project.until(lambda: stub.owner("sce-s0") and stub.owner("sce-s1")),
    }


def again(stub, told):
    """Start once more until it is done; what each start said on the error stream.

    The work goes on once the first such start has said a line (``told``), or once a kernel is at work.
    """
    said = []
    for _ in range(3):
        process = stub.reproduce()
        said.append(process.stderr.readline() if told else "")
        stub_project.until(lambda process=process: any(map(stub.owner, RUNS)) or process.poll() is not None)
        stub.let_go()
        said[-1] += process.communicate(timeout=300)[1]
        if process.returncode == 0:
            return said
        for pid in re.findall(r"process (\d+)", said[-1]):
            stub_project.until(lambda pid=int(pid): not psutil.pid_exists(pid))
    raise AssertionError(said)


@pytest.mark.parametrize(
    ("whom", "moment"),
    [
        ("Snakemake", "runs work"),
        *(
            pytest.param(whom, moment, marks=pytest.mark.full)
            for whom in ("the command", "Snakemake", "both")
            for moment in ("planning", "runs begin", "runs work")
            if (whom, moment) not in (("Snakemake", "runs work"), ("Snakemake", "planning"))
        ),
    ],
)
def test_start_after_a_kill_never_makes_two_writers_and_ends_in_the_same_records(stub, whom, moment):
    first = stub.reproduce()
    moments(stub, first)[moment]()
    victims = {"the command": [first], "Snakemake": [], "both": [first]}[whom]
    victims = victims + (stub_project.children(first)[:1] if whom != "the command" else [])
    for process in victims:
        process.send_signal(signal.SIGKILL)
    said = again(stub, told=moment == "runs work")
    _, err = first.communicate()
    if whom == "Snakemake":
        assert f"Snakemake (process {victims[0].pid}) was ended by SIGKILL" in err
    assert set(stub.contents()) == RUNS
    assert stub.overlaps() == []
    if moment == "runs work":
        assert stub.workers() == dict.fromkeys(RUNS, 1), "what goes on is not begun again"
        if whom == "the command":
            assert re.search(r"another `make reproduce` \(process \d+ on \S+\) works in .*/build: wait", said[0])
        else:
            assert len(re.findall(r"process \d+ on \S+ \(its kernel: \d+\) still works in .*; waiting", said[0])) >= 1
