"""Local caches that another user could have written to are neither restored to nor saved from."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from b10_transfer import OperationStatus, load, save
from b10_transfer.adapters import CacheRoot
from b10_transfer.adapters.triton import TritonAdapter
from b10_transfer.config.reader import resolve
from b10_transfer.errors import ConfigurationError, LocalCacheError
from b10_transfer.local.ownership import check_private

if TYPE_CHECKING:
    from tests.conftest import IsolatedEnv

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can make files of another user")
STRANGER = 12345


def root_at(path: Path, *, may_be_shared: bool = False) -> CacheRoot:
    return CacheRoot(TritonAdapter(), path, may_be_shared=may_be_shared)


def test_root_of_this_user_is_private(tmp_path: Path) -> None:
    check_private(root_at(tmp_path))


def test_root_that_does_not_exist_is_private_if_its_parents_are(tmp_path: Path) -> None:
    check_private(root_at(tmp_path / "a" / "b"))
    (tmp_path / "a").mkdir()
    (tmp_path / "a").chmod(0o777)
    with pytest.raises(LocalCacheError, match=r"every user can write to .*/a \(mode 0777\)"):
        check_private(root_at(tmp_path / "a" / "b"))


@pytest.mark.parametrize(("mode", "is_private"), [(0o777, False), (0o1777, True), (0o775, True), (0o757, False)])
def test_folder_above_must_not_let_every_user_replace_the_root(tmp_path: Path, mode: int, is_private: bool) -> None:
    parent = tmp_path / "parent"
    (parent / "cache").mkdir(parents=True)
    parent.chmod(mode)
    if is_private:
        check_private(root_at(parent / "cache"))
    else:
        with pytest.raises(LocalCacheError):
            check_private(root_at(parent / "cache"))


@pytest.mark.parametrize("mode", [0o777, 0o1777])
def test_root_that_every_user_can_write_to_is_refused_whether_sticky_or_not(tmp_path: Path, mode: int) -> None:
    root = tmp_path / "cache"
    root.mkdir()
    root.chmod(mode)
    with pytest.raises(LocalCacheError, match="B10_SHARED_ROOTS=1"):
        check_private(root_at(root))
    check_private(root_at(root, may_be_shared=True))


@needs_root
def test_root_of_another_user_is_refused(tmp_path: Path) -> None:
    root = tmp_path / "cache"
    root.mkdir()
    os.chown(root, STRANGER, STRANGER)
    with pytest.raises(LocalCacheError, match=f"belongs to user {STRANGER}"):
        check_private(root_at(root))


@needs_root
def test_volume_that_kubernetes_gives_to_everybody_in_the_pod_is_private(tmp_path: Path) -> None:
    with mounted_tmpfs(tmp_path / "volume") as volume:
        volume.chmod(0o777)
        check_private(root_at(volume))
        check_private(root_at(volume / "cache"))
        (volume / "open").mkdir()
        (volume / "open").chmod(0o777)
        with pytest.raises(LocalCacheError):
            check_private(root_at(volume / "open" / "cache"))


@contextmanager
def mounted_tmpfs(path: Path) -> Iterator[Path]:
    path.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "none", str(path)], capture_output=True, check=False).returncode:
        pytest.skip("nothing can be mounted here")
    try:
        yield path
    finally:
        subprocess.run(["umount", str(path)], check=True)


def test_root_that_has_become_a_link_is_refused(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "cache").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(LocalCacheError, match="has become a link"):
        check_private(root_at(tmp_path / "cache"))


# Links on the way


@needs_root
def test_link_of_another_user_is_refused_wherever_it_is_on_the_way(tmp_path: Path) -> None:
    (tmp_path / "target" / "cache").mkdir(parents=True)
    theirs = tmp_path / "theirs"
    theirs.symlink_to(tmp_path / "target")
    os.chown(theirs, STRANGER, STRANGER, follow_symlinks=False)
    ours = tmp_path / "ours"
    ours.symlink_to("theirs")
    for path in (theirs / "cache", ours / "cache", ours / "cache" / ".." / "new", theirs):
        with pytest.raises(ConfigurationError, match=f"leads through {theirs}"):
            resolve("X", str(path))


def test_link_of_this_user_is_followed(tmp_path: Path) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "link").symlink_to("a/b")
    assert resolve("X", str(tmp_path / "link" / "..")) == tmp_path.resolve() / "a"


def test_links_that_lead_in_a_circle_end(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    assert resolve("X", str(tmp_path / "a")).name in ("a", "b")


# A pod


def test_nothing_is_saved_from_a_cache_that_every_user_can_write_to(
    isolated_env: IsolatedEnv, monkeypatch: pytest.MonkeyPatch
) -> None:
    isolated_env.fill(isolated_env.triton, {"KEY/a.so": b"planted"})
    isolated_env.triton.chmod(0o777)
    report = save()
    assert (report.status, str(isolated_env.triton) in report.reason) == (OperationStatus.ERROR, True)
    monkeypatch.setenv("B10_SHARED_ROOTS", "1")
    assert save().status is OperationStatus.SUCCESS


@pytest.mark.parametrize("merge", [False, True])
def test_nothing_is_restored_to_a_cache_that_every_user_can_write_to(
    isolated_env: IsolatedEnv, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, merge: bool
) -> None:
    isolated_env.fill(isolated_env.triton, {"KEY/a.so": b"a"})
    assert save().status is OperationStatus.SUCCESS
    new = tmp_path / "new"
    new.mkdir()
    new.chmod(0o777)
    monkeypatch.setenv("TRITON_CACHE_DIR", str(new))
    report = load(merge=merge)
    assert (report.status, str(new) in report.reason) == (OperationStatus.ERROR, True)
    assert list(new.iterdir()) == []


def test_restored_cache_is_for_this_user_alone(
    isolated_env: IsolatedEnv, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    isolated_env.fill(isolated_env.triton, {"KEY/a.so": b"a"})
    assert save().status is OperationStatus.SUCCESS
    previous = os.umask(0)
    try:
        monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path / "new"))
        assert load().status is OperationStatus.SUCCESS
    finally:
        os.umask(previous)
    assert (tmp_path / "new").stat().st_mode & 0o022 == 0
