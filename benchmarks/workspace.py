"""Where the benchmark works: a tmpfs, so that a disk's mood is not measured.

Both programs insist on certain folders: Inductor's cache must lie under ``/tmp``, ``/cache`` or ``~/.cache``, the
published package's store under ``/cache/model`` and its working directory under ``/cache`` or ``/app``. So a tmpfs is
mounted at ``/cache``, in a mount namespace of the benchmark's own: nobody else sees it, and it ends with the benchmark.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
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
    made = not MOUNT_POINT.exists()
    MOUNT_POINT.mkdir(exist_ok=True)
    try:
        enter = ["unshare", "--mount", "--", "sh", "-c", _MOUNT_AND_RUN, str(MOUNT_POINT)]
        try:
            subprocess.run([*enter, "true"], check=True, capture_output=True)
        except (OSError, subprocess.CalledProcessError):
            return None
        return subprocess.run([*enter, sys.executable, *sys.argv], env={**os.environ, _INSIDE: "1"}).returncode
    finally:
        if made:
            MOUNT_POINT.rmdir()


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
