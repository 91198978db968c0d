"""The commands that look, on a store that hangs, cannot be written or fails: they end, and say what they saw."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from b10_transfer.environment import detect
from tests.command import Publisher

if TYPE_CHECKING:
    from tests.faults.conftest import Mount

COMMAND = Path(sys.executable).parent / "b10-compile-cache"


@pytest.fixture(autouse=True)
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mount: Mount) -> Path:
    """A store on the mount that holds something for this pod."""
    for name in ("HOME", "TMPDIR", "LOCAL_WORK_DIR"):
        (tmp_path / name).mkdir()
        monkeypatch.setenv(name, str(tmp_path / name))
    for name in ("TORCHINDUCTOR_CACHE_DIR", "TRITON_CACHE_DIR", "VLLM_CACHE_ROOT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("B10_STORE", str(mount.path / "store"))
    monkeypatch.setenv("B10_DEADLINE_SECONDS", "1")
    Publisher(mount.path / "store", detect()).publish()
    return mount.path / "store"


def command(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the command as a process of its own, which must end by itself."""
    return subprocess.run([COMMAND, *arguments], capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize("arguments", [["ls"], ["explain"], ["clear", "--store", "--yes"]], ids=" ".join)
@pytest.mark.parametrize("operation", ["getattr", "readdir"])
def test_store_that_hangs_costs_the_deadline_and_is_an_error(
    mount: Mount, operation: str, arguments: list[str]
) -> None:
    mount.fail(**{operation: "HANG"})
    done = command(*arguments)
    assert done.returncode == 1
    assert f"error: {arguments[0]} gave up after its deadline of 1 s while" in done.stderr
    assert "check the mount" in done.stderr


@pytest.mark.parametrize("operation", ["getattr", "read"])
def test_info_tells_of_the_pod_though_the_store_hangs(mount: Mount, operation: str) -> None:
    mount.fail(**{operation: "HANG"})
    done = command("info", "--json")
    assert done.returncode == 1
    found = json.loads(done.stdout)
    assert found["environment_id"] == detect().id
    assert "gave up after its deadline" in found["store_error"]


@pytest.mark.parametrize("operation", ["getattr", "statfs", "create", "write", "fsync", "link", "unlink"])
def test_doctor_tells_what_hangs_and_checks_the_rest(mount: Mount, operation: str) -> None:
    mount.fail(**{operation: "HANG"})
    done = command("doctor", "--json")
    assert done.returncode == 1
    checks = json.loads(done.stdout)["checks"]
    assert "gave up after its deadline" in next(check["seen"] for check in checks if check["state"] == "PROBLEM")
    assert "key" in {check["name"] for check in checks}


def test_doctor_says_of_a_read_only_store_that_loads_work(mount: Mount) -> None:
    mount.fail(create="EROFS", mkdir="EROFS", link="EROFS", unlink="EROFS")
    found = json.loads(command("doctor", "--json", "--deadline", "30").stdout)
    [check] = [check for check in found["checks"] if check["name"] == "write"]
    assert check["state"] == "WARNING"
    assert "it can load but not save" in check["seen"]
    assert "cleaning up" not in {check["name"] for check in found["checks"]}


def test_doctor_says_of_a_full_store_that_saves_fail(mount: Mount) -> None:
    mount.fail(write="ENOSPC")
    done = command("doctor", "--deadline", "30")
    assert done.returncode == 1
    assert "No space left on device" in done.stdout


def test_doctor_finds_a_store_without_hard_links_as_good(mount: Mount) -> None:
    mount.fail(link="EPERM")
    found = json.loads(command("doctor", "--json", "--deadline", "30").stdout)
    seen = {check["name"]: check for check in found["checks"]}
    assert seen["write"]["seen"] == "objects can be created, by rename (it has no hard links)"
    assert seen["exclusive create"]["state"] == "OK"


@pytest.mark.parametrize("arguments", [["ls"], ["explain"], ["ls", "--packs"]], ids=" ".join)
def test_store_that_cannot_be_listed_is_an_error(mount: Mount, arguments: list[str]) -> None:
    mount.fail(readdir="EIO")
    done = command(*arguments, "--deadline", "30")
    assert done.returncode == 1
    assert "Input/output error" in done.stderr


def test_read_only_store_is_listed_and_explained(mount: Mount) -> None:
    mount.fail(create="EROFS", mkdir="EROFS", write="EROFS", unlink="EROFS")
    assert command("ls", "--deadline", "30").returncode == 0
    assert command("explain", "--deadline", "30").returncode == 0
    refused = command("clear", "--store", "--yes", "--deadline", "30")
    assert refused.returncode == 1
    assert "Read-only file system" in refused.stderr
