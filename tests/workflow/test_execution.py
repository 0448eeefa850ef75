"""The kernel of a run: reached by sockets of its own, which no other program can take."""

import socket
import tempfile

from jupyter_client.connect import LocalPortCache

from isce.runs import execution, records


def test_run_is_done_though_every_port_that_looked_free_is_taken_by_then(project, monkeypatch, capsys):
    record = project.record("train", "sce-s0")
    before = records.read(record).content()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        monkeypatch.setattr(LocalPortCache, "find_available_port", lambda *_: taken.getsockname()[1])
        execution.execute("train", record.parent / "params.yaml", "cpu", project.root)
    assert records.read(record).content() == before
    assert "validation accuracy" in capsys.readouterr().out


def test_sockets_are_private_and_gone_afterwards(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "t"))
    (tmp_path / "t").mkdir()
    with execution._private_sockets() as connection:
        manager = connection["config"].KernelManager
        (folder,) = (tmp_path / "t").iterdir()
        assert manager.transport == "ipc"
        assert manager.ip.startswith(str(folder))
        assert folder.stat().st_mode & 0o077 == 0
    assert not folder.exists()


def test_folder_whose_path_is_too_long_for_a_socket_leaves_tcp(tmp_path, monkeypatch):
    deep = tmp_path / ("long" * 25)
    deep.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(deep))
    with execution._private_sockets() as connection:
        assert connection == {}
