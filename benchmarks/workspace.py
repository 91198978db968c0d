"""A folder to measure in: on a tmpfs of its own, so that no disk is measured.

Both programs accept only certain folders: Inductor's cache below ``/tmp``, ``/cache`` or ``~/.cache``, the published
package's store below ``/cache/model``. So a tmpfs is mounted at ``/cache`` in a private mount namespace. It ends with
the benchmark.
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
    """Run this program again with a new tmpfs at ``/cache``.

    Returns:
        Its exit status; None if this is that run, or if mounting is not permitted (it needs root).
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
    """Create the folder to mount on, for one benchmark at a time.

    A second one waits: removing the folder would detach its mount, even in another mount namespace.
    """
    with open(Path(tempfile.gettempdir()) / "b10-transfer-benchmark.lock", "a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        is_new = not MOUNT_POINT.exists()
        MOUNT_POINT.mkdir(exist_ok=True)
        try:
            yield
        finally:
            if is_new:
                with suppress(OSError):
                    MOUNT_POINT.rmdir()


@contextmanager
def workspace() -> Iterator[Path]:
    """A new folder, below ``/cache/model`` if that is writable."""
    parent = MOUNT_POINT / "model"
    if _INSIDE in os.environ:
        parent.mkdir()
    if not os.access(parent, os.W_OK | os.X_OK):
        parent = Path("/tmp")
    with tempfile.TemporaryDirectory(dir=parent, prefix="b10-benchmark-") as folder:
        yield Path(folder).resolve()


def suits_peer(folder: Path) -> bool:
    """Whether the published package accepts a store in this folder."""
    return MOUNT_POINT / "model" in folder.parents


def file_system(path: Path) -> str:
    """The type of the file system of ``path``, such as ``tmpfs`` or ``ext2/ext3``."""
    shown = subprocess.run(["stat", "-f", "-c", "%T", str(path)], check=True, capture_output=True, text=True)
    return shown.stdout.strip()
