"""A file system that is mounted for a test and fails as the test says."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

PASSTHROUGH = Path(__file__).parent / "passthrough.py"


class Mount:
    """The mounted file system, and the faults it is to show."""

    def __init__(self, path: Path, below: Path, faults: Path) -> None:
        self.path = path
        self.below = below
        """The folder behind it: what another client of the same files sees."""
        self._faults = faults
        self.heal()

    def fail(self, **faults: str) -> None:
        staged = self._faults.with_suffix(".new")
        staged.write_text(json.dumps(faults))
        staged.rename(self._faults)

    def heal(self) -> None:
        self.fail()


@pytest.fixture
def mount(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Mount]:
    """The mount; ``libfuse``'s options are its parameter, if it has one."""
    options = json.dumps(getattr(request, "param", {}))
    if shutil.which("fusermount3") is None or not os.access("/dev/fuse", os.W_OK):
        message = "needs FUSE: /dev/fuse and Debian's fuse3"
        pytest.fail(message) if os.environ.get("B10_TEST_EVERYTHING") else pytest.skip(message)
    below, path, faults = tmp_path / "below", tmp_path / "mount", tmp_path / "faults.json"
    below.mkdir()
    path.mkdir()
    mounted = Mount(path, below, faults)
    server = subprocess.Popen([sys.executable, str(PASSTHROUGH), str(below), str(path), str(faults), options])
    try:
        until = time.monotonic() + 30
        while not os.path.ismount(path):
            assert server.poll() is None and time.monotonic() < until, "the FUSE file system did not start"
            time.sleep(0.02)
        yield mounted
    finally:
        mounted.heal()
        server.kill()
        subprocess.run(["fusermount3", "-u", "-z", str(path)], check=False)
        server.wait()
