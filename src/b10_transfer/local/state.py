"""The folder of this user for small files that processes of a pod share."""

from __future__ import annotations

import errno
import os
import stat
from contextlib import suppress
from pathlib import Path

from ..config.reader import temporary_directory


def state_folder() -> Path:
    """Its path. It may not exist yet."""
    return Path(temporary_directory(), f"b10-transfer-{os.geteuid()}")


def make_private(folder: Path) -> None:
    """Make a folder of this user alone. Raises OSError, also if another user could write to it."""
    with suppress(FileExistsError):
        os.mkdir(folder, 0o700)
    check_private(folder)


def check_private(folder: Path) -> None:
    """Raise OSError if a folder does not exist, or if another user could write to it."""
    status = os.lstat(folder)
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid() or status.st_mode & 0o077:
        raise PermissionError(errno.EPERM, "other users could write to it", str(folder))
