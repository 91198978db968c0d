"""A store on a real file system that fails on purpose: a status comes back, and the next attempt heals.

The mount is a FUSE pass-through (passthrough.py), because nothing else hangs and fails as mounts do.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from b10_transfer import OperationStatus, load, save

if TYPE_CHECKING:
    from tests.faults.conftest import Mount


@pytest.fixture
def pod(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mount: Mount) -> Path:
    """A pod with one artifact in its cache; the store is on the mount."""
    monkeypatch.setenv("B10_CACHES", "inductor,triton")  # not what compilers have left on this machine
    monkeypatch.setenv("B10_STORE", str(mount.path / "store"))
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "inductor"))
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path / "triton"))
    monkeypatch.setenv("LOCAL_WORK_DIR", str(tmp_path))
    # A lease that could not be given back must not hold up the next save for long.
    monkeypatch.setenv("CLEANUP_LOCK_TIMEOUT_SECONDS", "1")
    write_artifact(tmp_path / "inductor", "first")
    return tmp_path


def write_artifact(root: Path, key: str) -> None:
    entry = root / "fxgraph" / key[1:3] / key / "entry"
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
    assert (restored / "fxgraph/ir/first/entry").read_text() == "first" * 1000


def test_store_without_hard_links_is_as_good(mount: Mount, pod: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mount.fail(link="EPERM")
    assert save().status is OperationStatus.SUCCESS
    assert save().status is OperationStatus.SKIPPED
    start_elsewhere(pod, monkeypatch, "other")
    assert load().status is OperationStatus.SUCCESS


def test_slow_mount_is_waited_for(mount: Mount, pod: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mount.fail(**dict.fromkeys(["readdir", "create", "write", "fsync", "link", "open", "read"], "SLOW"))
    assert save().status is OperationStatus.SUCCESS
    start_elsewhere(pod, monkeypatch, "other")
    assert load().status is OperationStatus.SUCCESS


@pytest.mark.parametrize("mount", [{"direct_io": True}], indirect=True, ids=[""])
def test_short_reads_and_writes_are_gone_on_with(mount: Mount, pod: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = os.urandom(300_000)
    (pod / "inductor" / "fxgraph" / "ir" / "first" / "entry").write_bytes(content)
    mount.fail(read="SHORT", write="SHORT")
    assert save().status is OperationStatus.SUCCESS
    [pack] = mount.path.glob("store/v1/*/*/packs/*")
    with open(pack, "rb", buffering=0) as file:
        assert len(file.read(1000)) == 500
    restored = start_elsewhere(pod, monkeypatch, "other")
    assert load().status is OperationStatus.SUCCESS
    assert (restored / "fxgraph" / "ir" / "first" / "entry").read_bytes() == content


@pytest.mark.parametrize("mount", [{"negative_timeout": 2, "entry_timeout": 2}], indirect=True, ids=[""])
def test_mount_that_remembers_what_was_missing_costs_no_more_than_a_miss(
    mount: Mount, pod: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another client publishes what this one has just looked for in vain."""
    (mount.path / "store").mkdir()
    restored = start_elsewhere(pod, monkeypatch, "other")
    assert load().status is OperationStatus.DOES_NOT_EXIST
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(pod / "inductor"))
    assert save(store=mount.below / "store").status is OperationStatus.SUCCESS
    assert not (mount.path / "store" / "v1").exists(), "it remembers"
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(restored))
    assert load().status in (OperationStatus.DOES_NOT_EXIST, OperationStatus.SUCCESS)
    write_artifact(pod / "third", "third")
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(pod / "third"))
    assert save().status in (OperationStatus.SUCCESS, OperationStatus.ERROR)
    time.sleep(2.1)
    assert save().status in (OperationStatus.SUCCESS, OperationStatus.SKIPPED)
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(pod / "last"))
    report = load()
    assert (report.status, report.units) == (OperationStatus.SUCCESS, 2), "nothing is lost"


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
