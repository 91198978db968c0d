"""A file system with too little room, filled for real: by a save, in the store or in LOCAL_WORK_DIR, and by a load.

It is a tmpfs with a size limit, which root can mount.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from b10_transfer import OperationStatus, load, save
from b10_transfer.errors import NoSpaceError

if TYPE_CHECKING:
    from ..conftest import IsolatedEnv, ReadTree

SIZE = 4 << 20


class Tmpfs:
    """A mounted tmpfs of some size."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def resize(self, size_bytes: int) -> None:
        _run("mount", "-o", f"remount,size={size_bytes}", str(self.path))

    @property
    def used_bytes(self) -> int:
        found = os.statvfs(self.path)
        return (found.f_blocks - found.f_bfree) * found.f_frsize


@pytest.fixture
def small(isolated_env: IsolatedEnv) -> Iterator[Tmpfs]:
    """A tmpfs of 4 MiB. LOCAL_WORK_DIR may be there, and caches."""
    path = isolated_env.home / ".cache" / "small"
    if Path("/tmp").resolve() not in path.parents:
        path = isolated_env.work / f"small-{os.getpid()}"
    path.mkdir(parents=True)
    try:
        if os.geteuid() != 0:
            raise PermissionError("it takes root")
        _run("mount", "-t", "tmpfs", "-o", f"size={SIZE},mode=700", "tmpfs", str(path))
    except (OSError, subprocess.CalledProcessError) as error:
        path.rmdir()
        message = f"needs to mount a tmpfs: {error}"
        pytest.fail(message) if os.environ.get("B10_TEST_EVERYTHING") else pytest.skip(message)
    try:
        yield Tmpfs(path)
    finally:
        _run("umount", "-l", str(path))
        path.rmdir()


def _run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True)


@pytest.fixture
def pod(isolated_env: IsolatedEnv) -> IsolatedEnv:
    """A pod whose cache holds ten artifacts, of 10 MB together, that do not compress."""
    for number in range(10):
        isolated_env.fill(isolated_env.inductor, {f"fxgraph/ey/key{number}/entry": os.urandom(1_000_000)})
    return isolated_env


def files_below(folder: Path) -> list[str]:
    return [str(path.relative_to(folder)) for path in folder.rglob("*") if not path.is_dir()]


def test_store_that_a_save_fills_is_left_as_it_was_and_the_next_save_with_room_works(
    small: Tmpfs, pod: IsolatedEnv, monkeypatch: pytest.MonkeyPatch, read_tree: ReadTree
) -> None:
    monkeypatch.setenv("B10_STORE", str(small.path / "store"))
    saved = save()
    assert saved.status is OperationStatus.ERROR
    assert f"could not write {small.path}/store" in saved.reason
    assert "No space left on device" in saved.reason
    # Of the environment's few hundred bytes and its folders, but of no part of a pack.
    assert {Path(path).name for path in files_below(small.path)} <= {"environment.json"}
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(pod.home / ".cache" / "new pod"))
    assert load().status is OperationStatus.DOES_NOT_EXIST

    small.resize(10 * SIZE)
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(pod.inductor))
    assert save().status is OperationStatus.SUCCESS
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(pod.home / ".cache" / "new pod"))
    assert load().status is OperationStatus.SUCCESS
    assert read_tree(pod.home / ".cache" / "new pod") == read_tree(pod.inductor)


def test_store_without_room_for_anything_is_an_error_that_says_so(
    small: Tmpfs, pod: IsolatedEnv, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("B10_STORE", str(small.path / "store"))
    with (small.path / "someone else's").open("wb") as file:
        file.write(bytes(SIZE))
    saved = save()
    assert saved.status is OperationStatus.ERROR
    assert "No space left on device" in saved.reason
    (small.path / "someone else's").unlink()
    small.resize(10 * SIZE)
    assert save().status is OperationStatus.SUCCESS


def test_work_dir_that_a_save_fills_is_empty_afterwards_and_the_next_save_with_room_works(
    small: Tmpfs, pod: IsolatedEnv, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOCAL_WORK_DIR", str(small.path))
    saved = save()
    assert saved.status is OperationStatus.ERROR
    assert f"could not build the pack in {small.path}: No space left on device. Point LOCAL_WORK_DIR" in saved.reason
    assert files_below(small.path) == []
    assert small.used_bytes == 0
    assert not list(pod.store.rglob("packs/*"))

    small.resize(10 * SIZE)
    assert save().status is OperationStatus.SUCCESS
    assert small.used_bytes == 0


@pytest.mark.parametrize("merge", [False, True])
def test_load_into_a_cache_without_room_places_nothing_and_says_what_it_takes(
    small: Tmpfs, pod: IsolatedEnv, monkeypatch: pytest.MonkeyPatch, read_tree: ReadTree, merge: bool
) -> None:
    assert save().status is OperationStatus.SUCCESS
    root = small.path / "inductor"
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(root))
    loaded = load(merge=merge)
    assert loaded.status is OperationStatus.ERROR
    assert isinstance(loaded.error, NoSpaceError)
    assert f"{root} has 4.2 MB free and the restore needs 10.0 MB; free some space, or point" in loaded.reason
    assert [path for path in files_below(small.path) if not path.endswith(".b10-lock")] == []

    small.resize(10 * SIZE)
    assert load(merge=merge).status is OperationStatus.SUCCESS
    assert read_tree(root) == read_tree(pod.inductor)


def test_cache_that_somebody_else_fills_during_a_load_gets_nothing_half(
    small: Tmpfs, pod: IsolatedEnv, monkeypatch: pytest.MonkeyPatch, read_tree: ReadTree
) -> None:
    """There was room when the load looked, and no longer when it wrote."""
    assert save().status is OperationStatus.SUCCESS
    root = small.path / "inductor"
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(root))
    monkeypatch.setattr("b10_transfer.local.restore._drop_without_room", lambda *_: None)
    loaded = load()
    assert loaded.status is OperationStatus.ERROR
    assert "No space left on device" in loaded.reason
    assert str(root) in loaded.reason
    assert [path for path in files_below(small.path) if not path.endswith(".b10-lock")] == []

    small.resize(10 * SIZE)
    assert load().status is OperationStatus.SUCCESS
    assert read_tree(root) == read_tree(pod.inductor)


def test_cache_without_inodes_left_gets_nothing_half(
    small: Tmpfs, pod: IsolatedEnv, monkeypatch: pytest.MonkeyPatch, read_tree: ReadTree
) -> None:
    assert save().status is OperationStatus.SUCCESS
    root = small.path / "inductor"
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(root))
    small.resize(10 * SIZE)
    _run("mount", "-o", "remount,nr_inodes=12", str(small.path))
    loaded = load()
    assert loaded.status is OperationStatus.ERROR
    assert "more files (inodes)" in loaded.reason
    assert [path for path in files_below(small.path) if not path.endswith(".b10-lock")] == []

    _run("mount", "-o", "remount,nr_inodes=1000", str(small.path))
    assert load().status is OperationStatus.SUCCESS
    assert read_tree(root) == read_tree(pod.inductor)
