"""A FUSE file system that passes every call through to a folder, and fails on purpose.

Usage: ``passthrough.py FOLDER MOUNT_POINT FAULTS OPTIONS``. ``FAULTS`` is a JSON file, read at every call: it maps
names of operations (``open``, ``write``, ``link`` …) to an errno's name (``"ENOSPC"``), to ``"HANG"``, which never
answers, to ``"SLOW"``, or for reads and writes to ``"SHORT"``: half of what was asked for (which a program sees with
the option ``direct_io`` alone). ``OPTIONS`` are libfuse's, as JSON.
"""

from __future__ import annotations

import errno
import json
import os
import sys
import threading
import time
from pathlib import Path
from typing import Any

import mfusepy

_SLOW_S = 0.02


class Passthrough(mfusepy.Operations):  # type: ignore[misc]
    """One method for each operation: ask for its fault, then do it."""

    use_ns = True

    def __init__(self, folder: str, faults: str) -> None:
        self._folder = folder
        self._faults = Path(faults)

    def _fault(self, operation: str) -> str | None:
        found: str | None = json.loads(self._faults.read_text()).get(operation)
        return found

    def _real(self, operation: str, path: str) -> str:
        fault = self._fault(operation)
        if fault == "HANG":
            threading.Event().wait()
        if fault == "SLOW":
            time.sleep(_SLOW_S)
        elif fault is not None and fault != "SHORT":
            raise mfusepy.FuseOSError(getattr(errno, fault))
        return self._folder + path

    def getattr(self, path: str, fh: int | None = None) -> dict[str, Any]:
        status = os.lstat(self._real("getattr", path))
        facts = {
            name: getattr(status, name) for name in ("st_mode", "st_nlink", "st_size", "st_uid", "st_gid", "st_ino")
        }
        return facts | {name: getattr(status, f"{name}_ns") for name in ("st_atime", "st_mtime", "st_ctime")}

    def readdir(self, path: str, fh: int) -> list[str]:
        return [".", "..", *os.listdir(self._real("readdir", path))]

    def statfs(self, path: str) -> dict[str, int]:
        status = os.statvfs(self._real("statfs", path))
        return {name: getattr(status, name) for name in dir(status) if name.startswith("f_")}

    def mkdir(self, path: str, mode: int) -> int:
        os.mkdir(self._real("mkdir", path), mode)
        return 0

    def rmdir(self, path: str) -> int:
        os.rmdir(self._real("rmdir", path))
        return 0

    def unlink(self, path: str) -> int:
        os.unlink(self._real("unlink", path))
        return 0

    def rename(self, old: str, new: str) -> int:
        os.rename(self._real("rename", old), self._folder + new)
        return 0

    def link(self, target: str, source: str) -> int:
        os.link(self._real("link", source), self._folder + target)
        return 0

    def create(self, path: str, mode: int, fi: Any = None) -> int:
        return os.open(self._real("create", path), os.O_RDWR | os.O_CREAT | os.O_EXCL, mode)

    def open(self, path: str, flags: int) -> int:
        return os.open(self._real("open", path), flags & (os.O_RDONLY | os.O_WRONLY | os.O_RDWR))

    def read(self, path: str, size: int, offset: int, fh: int) -> bytes:
        self._real("read", path)
        return os.pread(fh, self._shortened("read", size), offset)

    def write(self, path: str, data: bytes, offset: int, fh: int) -> int:
        self._real("write", path)
        return os.pwrite(fh, data[: self._shortened("write", len(data))], offset)

    def _shortened(self, operation: str, size: int) -> int:
        return (size + 1) // 2 if self._fault(operation) == "SHORT" else size

    def fsync(self, path: str, datasync: int, fh: int) -> int:
        self._real("fsync", path)
        os.fsync(fh)
        return 0

    def flush(self, path: str, fh: int) -> int:
        self._real("flush", path)
        return 0

    def release(self, path: str, fh: int) -> int:
        os.close(fh)
        return 0

    def chmod(self, path: str, mode: int) -> int:
        os.chmod(self._real("chmod", path), mode)
        return 0

    def utimens(self, path: str, times: tuple[int, int] | None = None) -> int:
        os.utime(self._real("utimens", path), ns=times or (time.time_ns(),) * 2)
        return 0


if __name__ == "__main__":
    folder, mount_point, faults, options = sys.argv[1:]
    mfusepy.FUSE(Passthrough(folder, faults), mount_point, foreground=True, nothreads=False, **json.loads(options))
