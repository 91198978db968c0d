"""A pod, and what tests of the launcher need of the machine."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.conftest import mount
from tests.launcher.pod import Pod

__all__ = ["mount"]


@pytest.fixture
def pod(tmp_path: Path) -> Iterator[Pod]:
    pod = Pod(tmp_path)
    yield pod
    pod.close()


def unavailable(message: str) -> None:
    """Skip a test that this machine does not permit, unless all of them are wanted."""
    pytest.fail(message) if os.environ.get("B10_TEST_EVERYTHING") else pytest.skip(message)


@pytest.fixture
def namespace_of_processes() -> list[str]:
    """What a command is to be prefixed with to be process 1 of a namespace of its own."""
    prefix = ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc"]
    try:
        permitted = subprocess.run([*prefix, "true"], capture_output=True).returncode == 0
    except FileNotFoundError:
        permitted = False
    if not permitted:
        unavailable("may not make a namespace of processes")
    return prefix


@pytest.fixture
def small_volume(tmp_path: Path) -> Iterator[Path]:
    """A file system of 64 kB."""
    with mounted(tmp_path / "small", "size=64k") as path:
        yield path


@pytest.fixture
def volume_without_access_times(tmp_path: Path) -> Iterator[Path]:
    with mounted(tmp_path / "noatime", "noatime") as path:
        yield path


class mounted:  # noqa: N801 - used as a context manager
    """A tmpfs with the given options; skips the test where that is not permitted."""

    def __init__(self, path: Path, options: str) -> None:
        self._path = path
        self._options = options

    def __enter__(self) -> Path:
        self._path.mkdir()
        command = ["mount", "-t", "tmpfs", "-o", self._options, "tmpfs", str(self._path)]
        if subprocess.run(command, capture_output=True).returncode != 0:
            unavailable("may not mount a tmpfs")
        return self._path

    def __exit__(self, *_: object) -> None:
        subprocess.run(["umount", "-l", str(self._path)], check=False)
