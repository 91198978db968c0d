"""A store on a real file system that fails on purpose: a status comes back, and the next attempt heals.

The mount is a FUSE pass-through (passthrough.py), because nothing else hangs and fails as mounts do.
"""

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

from b10_transfer import OperationStatus, load, save

PASSTHROUGH = Path(__file__).parent / "passthrough.py"


class Mount:
    """The mounted file system, and the faults it is to show."""

    def __init__(self, path: Path, faults: Path) -> None:
        self.path = path
        self._faults = faults
        self.heal()

    def fail(self, **faults: str) -> None:
        staged = self._faults.with_suffix(".new")
        staged.write_text(json.dumps(faults))
        staged.rename(self._faults)

    def heal(self) -> None:
        self.fail()


@pytest.fixture
def mount(tmp_path: Path) -> Iterator[Mount]:
    if shutil.which("fusermount3") is None or not os.access("/dev/fuse", os.W_OK):
        message = "needs FUSE: /dev/fuse and Debian's fuse3"
        pytest.fail(message) if os.environ.get("B10_TEST_EVERYTHING") else pytest.skip(message)
    below, path, faults = tmp_path / "below", tmp_path / "mount", tmp_path / "faults.json"
    below.mkdir()
    path.mkdir()
    mounted = Mount(path, faults)
    server = subprocess.Popen([sys.executable, str(PASSTHROUGH), str(below), str(path), str(faults)])
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


@pytest.fixture
def pod(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mount: Mount) -> Path:
    """A pod with one artifact in its cache; the store is on the mount."""
    monkeypatch.setenv("B10_STORE", str(mount.path / "store"))
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "inductor"))
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path / "triton"))
    monkeypatch.setenv("LOCAL_WORK_DIR", str(tmp_path))
    # A lease that could not be given back must not hold up the next save for long.
    monkeypatch.setenv("CLEANUP_LOCK_TIMEOUT_SECONDS", "1")
    write_artifact(tmp_path / "inductor", "first")
    return tmp_path


def write_artifact(root: Path, key: str) -> None:
    entry = root / "fxgraph" / key[:2] / key / "entry"
    entry.parent.mkdir(parents=True)
    entry.write_text(key * 1000)


def start_elsewhere(pod: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> Path:
    """Point the process at an empty cache directory, as a new pod has."""
    root = pod / name
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(root))
    return root


OPERATIONS = ["getattr", "readdir", "mkdir", "create", "write", "fsync", "flush", "link", "open", "read", "unlink"]
ERRORS = ["ENOSPC", "EIO", "ESTALE", "EDQUOT", "EACCES", "EPERM"]


@pytest.mark.parametrize("error", ERRORS)
@pytest.mark.parametrize("operation", OPERATIONS)
def test_failed_operation_costs_a_status_and_the_next_attempt_works(
    mount: Mount, pod: Path, monkeypatch: pytest.MonkeyPatch, operation: str, error: str
) -> None:
    mount.fail(**{operation: error})
    saved = save(deadline_s=20)
    assert saved.status in (OperationStatus.SUCCESS, OperationStatus.ERROR)
    if saved.status is OperationStatus.ERROR:
        assert str(mount.path) in saved.reason
    start_elsewhere(pod, monkeypatch, "other")
    assert load(deadline_s=20).status in set(OperationStatus) - {OperationStatus.SKIPPED}
    mount.heal()
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(pod / "inductor"))
    assert save().status in (OperationStatus.SUCCESS, OperationStatus.SKIPPED)
    restored = start_elsewhere(pod, monkeypatch, "another")
    assert load().status is OperationStatus.SUCCESS
    assert (restored / "fxgraph/fi/first/entry").read_text() == "first" * 1000


def test_store_without_hard_links_is_as_good(mount: Mount, pod: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mount.fail(link="EPERM")
    assert save().status is OperationStatus.SUCCESS
    assert save().status is OperationStatus.SKIPPED
    start_elsewhere(pod, monkeypatch, "other")
    assert load().status is OperationStatus.SUCCESS


@pytest.mark.parametrize("operation", ["getattr", "readdir", "open", "read"])
def test_hung_mount_costs_a_load_its_deadline_and_the_process_can_exit(mount: Mount, pod: Path, operation: str) -> None:
    assert save().status is OperationStatus.SUCCESS
    mount.fail(**{operation: "HANG"})
    assert status_of("load", TORCHINDUCTOR_CACHE_DIR=str(pod / "other")) == "ERROR"


@pytest.mark.parametrize("operation", ["getattr", "mkdir", "create", "write", "fsync", "flush", "link"])
def test_hung_mount_costs_a_save_its_deadline_and_the_process_can_exit(mount: Mount, pod: Path, operation: str) -> None:
    mount.fail(**{operation: "HANG"})
    assert status_of("save") == "ERROR"


def status_of(operation: str, **variables: str) -> str:
    """The status that a process of its own reports, with a deadline of a second. It must end by itself."""
    program = f"import b10_transfer; print(b10_transfer.{operation}().status.name)"
    environment = os.environ | {"B10_DEADLINE_SECONDS": "1"} | variables
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, timeout=60, check=True
    )
    assert "deadline of 1 s" in done.stderr
    return done.stdout.strip()
