"""Folders that other programs keep in the user's home, and where they go if that can't be written."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

#: Variable that names such a folder, and its place in the home without the variable.
FOLDERS = {
    "XDG_CACHE_HOME": ".cache",  # Snakemake ends where it can't write there
    "XDG_CONFIG_HOME": ".config",
    "IPYTHONDIR": ".ipython",
    "JUPYTER_RUNTIME_DIR": ".local/share/jupyter/runtime",
    "MPLCONFIGDIR": ".config/matplotlib",
}


def use_writable_folders(instead: Path) -> None:
    """Let the variables of folders that can't be written name folders below ``instead``; a variable that is set stays.

    A home may be read-only, not there at all, or of another user: in a container, in a job of a cluster.
    """
    home = Path(os.path.expanduser("~"))  # noqa: PTH111 - `Path.home` raises where no home is known
    for variable, folder in FOLDERS.items():
        if not os.environ.get(variable) and not _writable(home / folder):
            os.environ[variable] = str(instead / folder)


def _writable(folder: Path) -> bool:
    """Whether a file can be made in a folder, or where the folder would be made."""
    nearest = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    try:
        with tempfile.TemporaryFile(dir=nearest):
            return True
    except OSError:
        return False
