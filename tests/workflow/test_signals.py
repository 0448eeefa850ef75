"""What `make reproduce` says when something around it fails: a home that can't be written, Snakemake, a kernel."""

import pytest
import stub_project


@pytest.fixture
def stub(tmp_path):
    return stub_project.make(tmp_path / "project")


@pytest.fixture
def no_home(tmp_path):
    """A home in which nobody, not even root, can make a folder."""
    path = tmp_path / "home"
    path.touch()
    return str(path)


def test_home_that_cannot_be_written_stops_no_run_and_a_killed_kernel_only_its_own(stub, no_home):
    process = stub.reproduce(HOME=no_home)
    stub_project.until(lambda: stub.owner("sce-s1")).kill()
    stub_project.until(lambda: stub.owner("sce-s0"))
    stub.let_go()
    out, err = process.communicate(timeout=300)
    assert process.returncode == 1
    (line,) = err.splitlines()
    assert line.startswith("isce: train stub sce-s1: its kernel was killed (SIGKILL)")
    assert out.splitlines()[0].startswith("[  1/4] train   stub sce-s0")
    assert "stub is not complete; finished runs are kept" in out
    assert set(stub.contents()) == {"sce-s0"}


def test_snakemake_that_fails_though_no_run_did_is_heard(stub, no_home):
    process = stub.reproduce(XDG_CACHE_HOME=no_home)
    out, err = process.communicate(timeout=300)
    assert process.returncode == 1
    assert no_home in err, "the folder that can't be made"
    assert "stub is not complete" in out
