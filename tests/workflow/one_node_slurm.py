"""Run a command on a Slurm of one node: this machine, for the tests and to try a profile without a cluster.

    python tests/workflow/one_node_slurm.py --cpus 2 make reproduce EXPERIMENT=quick PROFILE=slurm

Starts munged, slurmctld and slurmd on free ports of the loopback interface, under this user, with everything they
write in one temporary folder; runs the command with SLURM_CONF set; then stops the daemons, whatever happened.
"""

import argparse
import contextlib
import getpass
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Generator
from pathlib import Path

DAEMONS = ("munged", "slurmctld", "slurmd")
INSTALL = "On Debian and Ubuntu: apt-get install slurm-wlm munge"
SEARCH = (*os.environ.get("PATH", "").split(os.pathsep), "/usr/sbin", "/sbin")
PATIENCE = 60.0  # seconds that the node may take to come up, or to end its jobs

CONFIG = """\
ClusterName=one-node
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller_port}
SlurmdPort={node_port}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
CryptoType=crypto/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
# No control groups: they would need root and a running systemd.
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
MpiDefault=none
ReturnToService=2
SwitchType=switch/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
# Without a default a job that names no memory is given the whole node.
DefMemPerCPU=500
# GPUs in name alone, so that a profile that asks for them can be tried; a job that gets one finds none.
GresTypes=gpu
NodeName={host} NodeAddr=127.0.0.1 CPUs={cpus} RealMemory={memory} Gres=gpu:{cpus} State=UNKNOWN
PartitionName=main Nodes={host} Default=YES MaxTime=INFINITE State=UP
"""


class SlurmError(RuntimeError):
    """The node can't be brought up; the message says why or what to install."""


def missing() -> str | None:
    """What is lacking on this machine for a node, and how to get it; None if nothing is."""
    path = os.pathsep.join(SEARCH)
    absent = [name for name in (*DAEMONS, "sbatch", "srun", "squeue") if shutil.which(name, path=path) is None]
    if absent:
        return f"a one-node Slurm needs {', '.join(absent)}. {INSTALL}"
    host = socket.gethostname()
    try:
        socket.gethostbyname(host)
    except OSError:
        return f"a one-node Slurm needs this machine's name in /etc/hosts: add the line `127.0.0.1 {host}`"
    return None


@contextlib.contextmanager
def one_node(cpus: int) -> Generator[dict[str, str]]:
    """A running Slurm of one node; gives the environment for its commands, and stops the daemons at the end.

    Args:
        cpus: processors that the node says it has: so many one-processor jobs run at once.

    Raises:
        SlurmError: a program is missing, or the node didn't come up.
    """
    lack = missing()
    if lack:
        raise SlurmError(lack)
    with tempfile.TemporaryDirectory(prefix="slurm-") as name, contextlib.ExitStack() as daemons:
        folder = Path(name)
        environment = os.environ | {
            "SLURM_CONF": str(folder / "slurm.conf"),
            "PATH": os.pathsep.join([str(folder / "bin"), *SEARCH]),
        }
        _configure(folder, cpus)
        munged = ["munged", "--foreground", "--force", f"--key-file={folder}/munge.key"]
        munged += [f"--socket={folder}/munge.socket", f"--pid-file={folder}/munged.pid"]
        munged += [f"--log-file={folder}/munged.log", f"--seed-file={folder}/munge.seed"]
        for command in (munged, ["slurmctld", "-D", "-c"], ["slurmd", "-D", "-c"]):
            daemons.enter_context(_daemon(command, environment, folder))
        _wait(folder, environment, ["sinfo", "--noheader", "--format=%T"], "idle")
        try:
            yield environment
        finally:  # slurmd leaves its jobs running when it ends
            subprocess.run(["scancel", "--user", getpass.getuser()], env=environment, check=False)
            _wait(folder, environment, ["squeue", "--noheader"], "")


def _configure(folder: Path, cpus: int) -> None:
    """Write the configuration and the key into the folder of the daemons."""
    for name in ("state", "spool", "bin"):
        (folder / name).mkdir()
    # Snakemake's plugin takes every variable SLURM_* from the environment before it calls srun, SLURM_CONF too.
    srun = folder / "bin" / "srun"
    program = shutil.which("srun", path=os.pathsep.join(SEARCH))
    srun.write_text(f'#!/bin/sh\nSLURM_CONF={folder}/slurm.conf exec {program} "$@"\n', encoding="utf-8")
    srun.chmod(0o755)
    key = folder / "munge.key"
    key.write_bytes(os.urandom(1024))
    key.chmod(0o400)
    with socket.socket() as one, socket.socket() as other:  # both open at once, so that they differ
        for free in (one, other):
            free.bind(("127.0.0.1", 0))
        ports = one.getsockname()[1], other.getsockname()[1]
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2**20
    text = CONFIG.format(
        host=socket.gethostname().split(".")[0],
        controller_port=ports[0],
        node_port=ports[1],
        user=getpass.getuser(),
        folder=folder,
        cpus=cpus,
        memory=memory * 9 // 10,
    )
    (folder / "slurm.conf").write_text(text, encoding="utf-8")
    for number in range(cpus):
        (folder / f"gpu{number}").touch()
    (folder / "gres.conf").write_text(f"Name=gpu File={folder}/gpu[0-{cpus - 1}]\n", encoding="utf-8")


@contextlib.contextmanager
def _daemon(command: list[str], environment: dict[str, str], folder: Path) -> Generator[None]:
    """A daemon in the foreground and in a process group of its own, which is ended with it."""
    with (folder / f"{command[0]}.out").open("wb") as out:
        process = subprocess.Popen(
            command, env=environment, stdout=out, stderr=subprocess.STDOUT, start_new_session=True
        )
        try:
            yield
        finally:
            process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(20)
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _wait(folder: Path, environment: dict[str, str], question: list[str], expected: str) -> None:
    """Ask Slurm until it answers as expected."""
    deadline = time.monotonic() + PATIENCE
    while True:
        done = subprocess.run(question, env=environment, capture_output=True, text=True, check=False)
        if done.returncode == 0 and done.stdout.strip() == expected:
            return
        if time.monotonic() > deadline:
            break
        time.sleep(0.2)
    logs = "\n".join(
        f"--- {path.name}\n" + "\n".join(path.read_text(errors="replace").splitlines()[-5:])
        for path in sorted([*folder.glob("*.log"), *folder.glob("*.out")])
    )
    answer = done.stdout.strip() or done.stderr.strip()
    raise SlurmError(f"{question[0]} says {answer!r} and not {expected!r} after {PATIENCE:.0f} s\n{logs}")


def main() -> int:
    """Run the command given; returns its exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cpus", type=int, default=os.cpu_count(), help="jobs that run at once (default: processors)")
    parser.add_argument("command", nargs=argparse.REMAINDER)
    options = parser.parse_args()
    if not options.command:
        parser.error("no command given")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the daemons are stopped then too
    try:
        with one_node(options.cpus) as environment:
            return subprocess.call(options.command, env=environment)
    except SlurmError as error:
        sys.stderr.write(f"one_node_slurm: {error}\n")
        return 1


if __name__ == "__main__":
    sys.exit(main())
