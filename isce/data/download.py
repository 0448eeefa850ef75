"""Files of published data sets: fetched where missing, checked by MD5, one clear error where that fails."""

from __future__ import annotations

import socket
import tarfile
import tempfile
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from pathlib import Path

from isce.compat import import_torchvision

TIMEOUT = 30.0  # seconds without an answer from a server

Fetch = Callable[[Path, Mapping[str, str]], None]


def require(title: str, root: Path, files: Mapping[str, str], fetch: Fetch | None) -> None:
    """See that all files of a data set are there and undamaged.

    Args:
        title: name of the data set in messages.
        root: folder that the files belong in.
        files: path below ``root`` -> MD5 as hexadecimal text.
        fetch: writes the missing files (the second argument) below an empty folder; None: don't download.

    Raises:
        FileNotFoundError: files are missing and weren't fetched; names them and where to put them.
        ValueError: a file is damaged; names it, its MD5 and the expected one.
        OSError: ``root`` can't be written.
    """
    missing = {path: md5 for path, md5 in files.items() if not (root / path).is_file()}
    if missing:
        failure = _fetch(root, missing, fetch) if fetch else "download is off"
        if failure:
            raise FileNotFoundError(
                f"{title} is not complete and {failure}: put {', '.join(missing)} below {root.absolute()}, "
                "or set ISCE_DATA to a folder that holds them"
            )
    calculate_md5 = import_torchvision().datasets.utils.calculate_md5
    for path, md5 in files.items():
        found = calculate_md5(root / path)
        if found != md5:
            raise ValueError(
                f"{title} is damaged: {(root / path).absolute()} has MD5 {found}, expected {md5}; "
                "remove it and fetch it again"
            )


def _fetch(root: Path, missing: Mapping[str, str], fetch: Fetch) -> str | None:
    """Fetch files into a folder beside their place and move them when complete; the reason where that failed.

    So a killed run leaves no half file, and runs side by side don't see each other's.
    """
    root.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=root, prefix=".download-") as folder:
        try:
            fetch(Path(folder), missing)
        except (OSError, RuntimeError, tarfile.TarError, KeyError) as error:
            return f"download failed ({error})"
        for path in missing:
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            (Path(folder) / path).replace(root / path)
    return None


def download_file(urls: list[str], target: Path, md5: str) -> None:
    """Fetch a file from the first of several addresses that serves it undamaged, with a progress bar.

    Raises:
        OSError: none did; names each address and what went wrong there.
    """
    utils = import_torchvision().datasets.utils
    failures: list[str] = []
    for url in urls:
        try:
            with _socket_timeout(TIMEOUT):
                return utils.download_url(url, target.parent, target.name, md5)
        except (OSError, RuntimeError) as error:
            failures.append(f"{url}: {error}")
    raise OSError("; ".join(failures))


@contextmanager
def _socket_timeout(seconds: float) -> Generator[None]:
    """Give up on a server that doesn't answer; torchvision sets no limit of its own."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(seconds)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)
