"""Where the benchmark works: a tmpfs, so that a disk's mood is not measured.

Both programs insist on certain folders: Inductor's cache must lie under ``/tmp``, ``/cache`` or ``~/.cache``, the
published package's store under ``/cache/model`` and its working directory under ``/cache`` or ``/app``. So a tmpfs is
mounted at ``/cache``, in a mount namespace of the benchmark's own: nobody else sees it, and it ends with the benchmark.
"""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

MOUNT_POINT = Path("/cache")
_INSIDE = "B10_BENCHMARK_INSIDE"
_MOUNT_AND_RUN = 'mount -t tmpfs -o size=75% tmpfs "$0" && exec "$@"'


def run_again_on_tmpfs() -> int | None:
    """Run this program once more where ``/cache`` is a fresh tmpfs; its exit status.

    None if this already is that run, or if mounting is not permitted here (it takes root).
    """
    if _INSIDE in os.environ or os.geteuid() != 0:
        return None
    with _mount_point():
        enter = ["unshare", "--mount", "--", "sh", "-c", _MOUNT_AND_RUN, str(MOUNT_POINT)]
        try:
            subprocess.run([*enter, "true"], check=True, capture_output=True)
        except (OSError, subprocess.CalledProcessError):
            return None
        return subprocess.run([*enter, sys.executable, *sys.argv], env={**os.environ, _INSIDE: "1"}).returncode


@contextmanager
def _mount_point() -> Iterator[None]:
    """A folder to mount on. One that was made for that is removed, unless another benchmark has begun to use it.

    Removing a folder detaches what is mounted on it in every other mount namespace.
    """
    made = not MOUNT_POINT.exists()
    while True:
        MOUNT_POINT.mkdir(exist_ok=True)
        descriptor = os.open(MOUNT_POINT, os.O_RDONLY | os.O_DIRECTORY)
        fcntl.flock(descriptor, fcntl.LOCK_SH)
        with suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(descriptor), os.stat(MOUNT_POINT)):
                break
        os.close(descriptor)  # it was removed before it was locked
    try:
        yield
    finally:
        if made:
            with suppress(OSError):  # in use, or no longer empty
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                MOUNT_POINT.rmdir()
        os.close(descriptor)


@contextmanager
def workspace() -> Iterator[Path]:
    """A fresh folder that both programs accept, if there can be one, and that ours accepts otherwise."""
    parent = MOUNT_POINT / "model"
    if _INSIDE in os.environ:
        parent.mkdir()
    if not os.access(parent, os.W_OK | os.X_OK):
        parent = Path("/tmp")
    with tempfile.TemporaryDirectory(dir=parent, prefix="b10-benchmark-") as folder:
        yield Path(folder).resolve()


def suits_peer(folder: Path) -> bool:
    """Whether the published package takes its store from such a folder."""
    return MOUNT_POINT / "model" in folder.parents


def file_system(path: Path) -> str:
    """The type of the file system that ``path`` is on, such as ``tmpfs`` or ``ext2/ext3``."""
    shown = subprocess.run(["stat", "-f", "-c", "%T", str(path)], check=True, capture_output=True, text=True)
    return shown.stdout.strip()
