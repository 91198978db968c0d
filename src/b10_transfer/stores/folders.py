"""Folders that this process makes for itself."""

from __future__ import annotations

import os
import stat


def make_folders(path: str | os.PathLike[str], mode: int = 0o755) -> None:
    """Make a folder and those above it that are missing.

    Its owner may always use it: a umask of 0777 would otherwise make a folder that nobody can use.

    Args:
        path: The folder.
        mode: Permissions of new folders, less the umask. Default: 0755.

    Raises:
        OSError: A folder could not be made.
    """
    path = os.fspath(path)
    if os.path.isdir(path):
        return
    if above := os.path.dirname(path):
        make_folders(above, mode)
    try:
        os.mkdir(path, mode)
    except FileExistsError:
        return
    if stat.S_IRWXU & ~(made := stat.S_IMODE(os.stat(path).st_mode)):
        os.chmod(path, made | stat.S_IRWXU)
