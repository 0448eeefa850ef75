"""``reproduce --until train``: the training runs and nothing else, so that attacks can follow elsewhere."""


def test_only_the_training_runs(project):
    for path in project.runs.glob("*/*/record.json"):
        path.unlink()
    until = ["--until", "train"]
    _, out, _ = project.reproduce("--dry-run", *until)
    assert [line for line in out.splitlines() if line.startswith("would")] == [
        "would run: train isce-released-s0",
        "would run: train sce-s0",
    ]
    code, out, err = project.reproduce(*until)
    assert code == 0, out + err
    assert "tiny: every train run is done" in out
    assert sorted(path.parent.parent.name for path in project.runs.glob("*/*/record.json")) == ["train", "train"]
    _, out, _ = project.reproduce("--dry-run", *until)
    assert "everything is up to date" in out
    assert {job.split()[0] for job in project.planned()} == {"attack", "minmax"}
