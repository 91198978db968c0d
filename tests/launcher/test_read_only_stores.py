"""A store that this pod may only read: loads work, saves are SKIPPED, and one INFO line of the whole run says so."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.conftest import Mount
from tests.launcher.pod import Pod, lines_with, wait_until

WRITES = ("mkdir", "create", "write", "link", "rename", "unlink")


@pytest.fixture(params=["a read-only file system", "no permission to write"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    """A store with two units."""
    if request.param == "a read-only file system":
        mount: Mount = request.getfixturevalue("mount")
        fill(Pod(tmp_path / "builder"), mount.path)
        mount.fail(**dict.fromkeys(WRITES, "EROFS"))
        yield mount.path
        return
    if os.geteuid() == 0:
        pytest.skip("root may write everywhere")
    path = tmp_path / "store"
    path.mkdir()
    fill(Pod(tmp_path / "builder"), path)
    folders = [path, *(folder for folder in path.rglob("*") if folder.is_dir())]
    for folder in folders:
        folder.chmod(0o555)
    yield path
    for folder in folders:
        folder.chmod(0o755)


def fill(builder: Pod, store: Path) -> None:
    builder.compile("KERNEL0", "KERNEL1")
    assert builder.command("save", B10_STORE=str(store)).returncode == 0


def late_compile(pod: Pod, number: int) -> None:
    pod.send(pod.noted("started")[-1]["pid"], signal.SIGUSR1)
    wait_until(lambda: len(pod.noted("compiled")) > number, "a late compile")


def end_of(pod: Pod) -> None:
    for fact in pod.noted("started"):
        pod.send(fact["pid"], signal.SIGTERM)


@pytest.mark.parametrize("way", ["run", "background"])
def test_loads_work_and_one_line_says_that_saves_are_skipped(pod: Pod, store: Path, way: str) -> None:
    pod.variables |= {"B10_STORE": str(store), "B10_TRANSFER_CLI_LOGLEVEL": "DEBUG"}
    started = pod.run() if way == "run" else pod.shell("$command & $server; wait")
    pod.waits_for("serves")
    for number in range(3):
        late_compile(pod, number)
        started.says("save: SKIPPED", number + 1)
    end_of(pod)
    assert started.wait() == 0
    told = [line for line in lines_with("save: SKIPPED", started.log) if " INFO: " in line]
    assert len(told) == 1
    assert f"this pod cannot write to {store}" in told[0]
    assert [line for line in started.log.splitlines() if " WARNING: " in line or " ERROR: " in line] == []
    if way == "run":  # beside it the server may be faster than the load
        assert len(pod.noted("hit")) == 2


def test_pod_that_is_told_to_publish_nothing_says_so_once(pod: Pod) -> None:
    pod.variables |= {"B10_READ_ONLY": "1", "B10_TRANSFER_CLI_LOGLEVEL": "DEBUG"}
    started = pod.run()
    pod.waits_for("serves")
    started.says("save: SKIPPED")
    for number in range(2):
        late_compile(pod, number + 2)
        started.says("save: SKIPPED", number + 2)
    end_of(pod)
    assert started.wait() == 0
    assert len([line for line in lines_with("save: SKIPPED", started.log) if " INFO: " in line]) == 1
