"""``make reproduce PROFILE=slurm``: the same rules as jobs of a cluster, which is this machine alone here."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from isce.files import ROOT
from isce.runs import plan as workflow
from isce.runs import records

from . import one_node_slurm
from .conftest import Project

needs_slurm = pytest.mark.skipif(one_node_slurm.missing() is not None, reason=str(one_node_slurm.missing()))
NODE = (sys.executable, one_node_slurm.__file__, "--cpus", "2")
RUNS = {f"{kind} {run}" for kind in ("train", "attack", "minmax") for run in ("sce-s0", "isce-released-s0")}


@pytest.fixture
def cluster(project):
    return _cluster(project)


def _cluster(project):
    """The project with nothing run yet; its profile looks after its jobs more often."""
    shutil.rmtree(project.root / "build")
    project.change("workflow/profiles/slurm/config.yaml", "status-checks: 10", "status-checks: 1")
    return project


def test_the_same_steps_as_on_one_machine(cluster):
    code, out, err = cluster.reproduce("--dry-run", "--profile", "slurm")
    assert code == 0, err
    would = [line.removeprefix("would run: ") for line in out.splitlines() if line.startswith("would run: ")]
    assert set(would) == RUNS | {"tables"}


@pytest.mark.parametrize(("device", "gpu"), [("auto", 0), ("cuda", 1), ("cuda:1", 1)])
def test_each_run_asks_for_its_own_minutes_and_for_a_device(project, device, gpu):
    keys = project.root / "build" / "keys" / "tiny.json"
    jobs = json.loads(keys.read_text())
    for number, job in enumerate(jobs.values()):
        job["minutes"] = 40 + number
    keys.write_text(json.dumps(jobs))
    command = [sys.executable, "-m", "snakemake", "--snakefile", "workflow/Snakefile", "--profile"]
    command += ["workflow/profiles/slurm", "--dry-run", "--forceall", "--nolock", "--quiet", "host", "--config"]
    command += ["experiment=tiny", "build=build", f"device={device}"]
    done = subprocess.run(command, cwd=project.root, capture_output=True, text=True, check=True)
    asked = {}
    for block in re.split(r"\nrule (?=train|examine)", done.stdout)[1:]:
        wildcards = dict(re.findall(r"(\w+)=([\w.-]+)", block.partition("wildcards: ")[2].partition("\n")[0]))
        found = dict(re.findall(r"(\w+)=(\w+)", block.partition("resources: ")[2].partition("\n")[0]))
        assert (found["gpu"], found["mem_mb"]) == (str(gpu), "4000")
        asked[f"{wildcards.get('kind', 'train')}/{wildcards['run']}"] = int(found["runtime"])
    assert asked == {name: job["minutes"] for name, job in jobs.items()}


def test_minutes_follow_what_committed_records_took(project):
    def minutes(device="cpu"):
        workflow.plan("tiny", project.root / "build", project.root, device)
        jobs = json.loads((project.root / "build" / "keys" / "tiny.json").read_text())
        return {name.replace("/", " "): job["minutes"] for name, job in jobs.items()}

    assert minutes() == dict.fromkeys(RUNS, 480), "nothing was measured"
    assert project.isce("adopt", "--experiment", "tiny")[0] == 0
    path = project.root / "results" / "tiny" / "attack" / "sce-s0" / "record.json"
    record = records.read(path)
    record.provenance.seconds = 3600
    record.save(path)
    assert minutes() == dict.fromkeys(RUNS, 30) | {"attack sce-s0": 180}
    assert minutes("cuda") == dict.fromkeys(RUNS, 480), "they were measured on a CPU"


def test_without_slurm_the_reason_is_given(built, tmp_path):
    before = (shutil.which("env"), f"PATH={tmp_path}")
    code, _, err = built[0].reproduce("--profile", "slurm", before=before)
    assert code == 1
    assert "profile 'slurm' submits jobs with Slurm's sbatch, which is not on the path" in err
    assert len(err.strip().splitlines()) == 1


def test_what_is_lacking_for_a_node_is_named_with_the_cure(monkeypatch):
    monkeypatch.setattr(one_node_slurm, "SEARCH", ("/nonexistent",))
    assert "needs munged, slurmctld, slurmd" in one_node_slurm.missing()
    assert "apt-get install slurm-wlm munge" in one_node_slurm.missing()


@needs_slurm
@pytest.mark.full
def test_records_are_those_of_one_machine(real, built):
    cluster = _cluster(real)
    cluster.change(
        "workflow/profiles/slurm/config.yaml",
        "",
        "set-resources:\n  train:\n    gpu: 1\n  examine:\n    mem_mb: 2000\n",
    )
    jobs = cluster.root / "jobs.txt"
    keep = (*NODE, "sh", "-c", f'"$@"; code=$?; scontrol --oneliner show job > {jobs}; exit $code', "sh")
    code, out, err = cluster.reproduce("--profile", "slurm", before=keep)
    assert code == 0, out + err
    assert cluster.contents() == built[0].contents()
    assert cluster.due() == []
    asked = [dict(word.split("=", 1) for word in line.split() if "=" in word) for line in jobs.read_text().splitlines()]
    assert len(asked) == len(RUNS), "each run is one job, and nothing else is"
    kinds = {"train": [], "examine": []}
    for job in asked:
        kinds[re.search(r"rule_([a-z]+)", job["Comment"])[1]].append(job)
    for job in kinds["train"]:
        assert (job["TresPerJob"], job["MinMemoryNode"], job["TimeLimit"]) == ("gres:gpu:1", "4000M", "08:00:00")
    for job in kinds["examine"]:
        assert "TresPerJob" not in job, "attacks take no GPU if only training asks for one"
        assert job["MinMemoryNode"] == "2000M"


@needs_slurm
@pytest.mark.full
def test_digits_gives_the_records_of_one_machine(tmp_path):
    project = Project(tmp_path)
    for part in ("isce", "notebooks", "workflow", "experiments", "book", "results"):
        shutil.copytree(ROOT / part, tmp_path / part, ignore=shutil.ignore_patterns("__pycache__", "_build"))
    command = ("reproduce", "--experiment", "digits", "--no-book")

    def contents(folder):
        found = records.read_all(tmp_path / folder / "digits").values()
        return {(record.kind, record.run): record.content() for record in found}

    code, out, err = project.isce(*command, "--profile", "slurm", before=NODE, timeout=7200)
    assert code == 0, out + err
    made = contents("build/runs")
    if made != contents("results"):  # those were made on one machine too, but perhaps on another kind of CPU
        shutil.rmtree(tmp_path / "build")
        code, out, err = project.isce(*command, timeout=7200)
        assert code == 0, out + err
        assert made == contents("build/runs")


@needs_slurm
@pytest.mark.full
def test_failed_job_is_named_with_its_log_and_the_others_are_kept(cluster, built):
    folder = cluster.runs / "train" / "sce-s0" / "notebook.ipynb"
    folder.mkdir(parents=True)
    code, out, err = cluster.reproduce("--profile", "slurm", before=NODE)
    assert code == 1
    assert "finished runs are kept" in out
    assert "isce: train tiny sce-s0: [Errno 21] Is a directory" in err
    assert re.search(r"build/slurm/rule_train/tiny_sce-s0/\d+\.log", err)
    folder.rmdir()
    assert set(cluster.due()) == {f"{kind} sce-s0" for kind in ("train", "attack", "minmax")} | {"tables"}
    code, out, err = cluster.reproduce("--profile", "slurm", before=NODE)
    assert code == 0, out + err
    assert cluster.contents() == built[0].contents()


KILLED = """
set -m
"$@" &
until squeue --noheader --states=R | grep -q .; do sleep 0.2; done
kill -9 -- -$!
wait $!
squeue --noheader --format %T > left.txt
exec "$@"
"""


@needs_slurm
@pytest.mark.full
def test_killed_command_leaves_its_jobs_and_ends_in_the_same_records(cluster, built):
    code, out, err = cluster.reproduce("--profile", "slurm", before=(*NODE, "bash", "-c", KILLED, "bash"))
    assert code == 0, out + err
    assert "RUNNING" in (cluster.root / "left.txt").read_text(), "the page says that its jobs go on"
    assert cluster.contents() == built[0].contents()
    assert cluster.due() == []


@needs_slurm
@pytest.mark.full
def test_interrupted_command_cancels_its_jobs(cluster):
    script = KILLED.replace("kill -9 -- -$!", "kill -INT -- -$!").replace('exec "$@"', "exit 1")
    code, _, _ = cluster.reproduce("--profile", "slurm", before=(*NODE, "bash", "-c", script, "bash"))
    assert code == 1
    assert "RUNNING" not in (cluster.root / "left.txt").read_text()


@needs_slurm
@pytest.mark.full
def test_node_ends_with_its_command_even_if_that_is_stopped_and_a_job_runs(tmp_path):
    started = 'sbatch --wrap "sleep 600" --output /dev/null; echo $SLURM_CONF; exec sleep 600'
    process = subprocess.Popen([*NODE, "sh", "-c", started], stdout=subprocess.PIPE, text=True, cwd=tmp_path)
    assert "Submitted" in process.stdout.readline()
    folder = Path(process.stdout.readline().strip()).parent
    deadline = time.monotonic() + 30
    while len(_processes_of(folder)) < 5 and time.monotonic() < deadline:  # three daemons, the step, the command
        time.sleep(0.1)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=90)
    assert not folder.exists()
    assert _processes_of(folder) == []


def _processes_of(folder):
    """Processes that know the folder from their arguments or environment."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            text = (path / "cmdline").read_bytes() + (path / "environ").read_bytes()
        except OSError:
            continue
        if os.fsencode(folder) in text:
            found.append(int(path.name))
    return found
