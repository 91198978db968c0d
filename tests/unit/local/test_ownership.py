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
from b10_transfer.concurrency.deadline import Deadline
from b10_transfer.config.reader import resolve
from b10_transfer.errors import ConfigurationError, LocalCacheError
from b10_transfer.local.files import RootScan
from b10_transfer.local.ownership import User, check_private, is_private, open_private, user_to_restore_as
from b10_transfer.local.snapshot import take

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
def test_folder_above_must_not_belong_to_another_user(tmp_path: Path) -> None:
    """Its owner could exchange the cache for another one, whoever the cache belongs to."""
    root = tmp_path / "theirs" / "cache"
    root.mkdir(parents=True)
    os.chown(root.parent, STRANGER, STRANGER)
    with pytest.raises(LocalCacheError, match=f"{root.parent} belongs to user {STRANGER}"):
        check_private(root_at(root))
    assert not is_private(root)
    check_private(root_at(root, may_be_shared=True))
    assert is_private(root, may_be_shared=True)


@needs_root
def test_root_restores_for_the_user_to_whom_it_gave_a_folder(tmp_path: Path) -> None:
    given = tmp_path / "given"
    (given / "cache").mkdir(parents=True)
    assert user_to_restore_as(root_at(given / "cache")) is None
    os.chown(given, STRANGER, 54321)
    assert user_to_restore_as(root_at(given / "cache" / "new")) == User(STRANGER, 54321)
    os.chown(given / "cache", 999, 999)
    with pytest.raises(LocalCacheError, match="cache belongs to user 999"):
        user_to_restore_as(root_at(given / "cache"))


@needs_root
@pytest.mark.parametrize("may_be_shared", [False, True])
def test_root_does_not_restore_for_a_user_who_made_a_folder_where_everybody_can(
    tmp_path: Path, may_be_shared: bool
) -> None:
    tmp_path.chmod(0o1777)
    (tmp_path / "root").mkdir()
    os.chown(tmp_path / "root", STRANGER, STRANGER)
    root = root_at(tmp_path / "root" / "cache", may_be_shared=may_be_shared)
    if may_be_shared:
        assert user_to_restore_as(root) == User(STRANGER, STRANGER)
    else:
        with pytest.raises(LocalCacheError, match=f"root belongs to user {STRANGER}"):
            user_to_restore_as(root)


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


# What is opened


def test_what_was_opened_is_read_even_if_its_path_leads_elsewhere_later(tmp_path: Path) -> None:
    root = tmp_path / "cache"
    (root / "KEY").mkdir(parents=True)
    (root / "KEY" / "a.so").write_bytes(b"ours")
    opened = open_private(root_at(root))
    assert opened is not None
    root.rename(tmp_path / "aside")
    (root / "KEY").mkdir(parents=True)
    (root / "KEY" / "planted.so").write_bytes(b"theirs")
    assert [file.path for _unit, files in RootScan(opened).units() for file in files] == ["KEY/a.so"]


def test_link_in_a_root_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "elsewhere" / "KEY").mkdir(parents=True)
    (tmp_path / "elsewhere" / "KEY" / "a.so").write_bytes(b"secret")
    root = tmp_path / "cache"
    root.mkdir()
    (root / "KEY").symlink_to(tmp_path / "elsewhere" / "KEY")
    (root / "OTHER").mkdir()
    (root / "OTHER" / "a.so").symlink_to(tmp_path / "elsewhere" / "KEY" / "a.so")
    opened = open_private(root_at(root))
    assert opened is not None
    assert list(RootScan(opened).units()) == []
    with pytest.raises(OSError, match=r"Not a directory|symbolic links"):
        opened.open_folder("KEY")


@pytest.mark.parametrize(
    ("mode", "is_taken"), [(0o644, True), (0o664, True), (0o666, False)], ids=["private", "group", "everybody"]
)
def test_entry_that_every_user_can_write_to_is_left_out(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, mode: int, is_taken: bool
) -> None:
    root = reachable(tmp_path) / "cache"
    for name in ("KEY", "OPEN"):
        (root / name).mkdir(parents=True)
        (root / name / "a.so").write_bytes(b"library")
    (root / "KEY" / "a.so").chmod(mode)
    (root / "OPEN").chmod(0o777)
    units = {unit.name for unit in take([root_at(root)], Deadline("save", 60)).units}
    assert units == ({"triton/KEY"} if is_taken else set())
    assert "another user could have written" in caplog.text
    root.chmod(0o700)  # now nobody else can enter it
    assert len(take([root_at(root)], Deadline("save", 60)).units) == 2


@needs_root
@pytest.mark.parametrize("group_writes", [False, True])
def test_entry_of_another_user_is_left_out_unless_the_root_is_its_groups(tmp_path: Path, group_writes: bool) -> None:
    root = reachable(tmp_path) / "cache"
    for name in ("MINE", "THEIRS"):
        (root / name).mkdir(parents=True)
        (root / name / "a.so").write_bytes(b"library")
    os.chown(root / "THEIRS" / "a.so", STRANGER, STRANGER)
    root.chmod(0o775 if group_writes else 0o755)
    units = {unit.name for unit in take([root_at(root)], Deadline("save", 60)).units}
    assert units == ({"triton/MINE", "triton/THEIRS"} if group_writes else {"triton/MINE"})


def reachable(path: Path) -> Path:
    """A folder that every user can enter; pytest makes its own for one user alone."""
    for folder in (path, *path.parents):
        if folder.stat().st_uid == path.stat().st_uid and not folder.stat().st_mode & 0o001:
            folder.chmod(folder.stat().st_mode | 0o001)
    return path


def test_foreign_folder_in_a_container_without_its_owner_is_the_machines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in Apptainer: whoever is not mapped appears as one user, root of the machine included."""
    tmp_path.chmod(0o755)
    (tmp_path / "machines").mkdir()
    lstat = os.lstat

    def unmapped(path: str) -> os.stat_result:
        status = lstat(path)
        if not str(path).endswith("machines"):
            return status
        return os.stat_result([*status[:4], 65534, *status[5:10]])

    monkeypatch.setattr(os, "lstat", unmapped)
    monkeypatch.setattr("b10_transfer.local.ownership._is_unmapped", lambda uid: uid == 65534)
    assert is_private(tmp_path / "machines" / "cache")
    tmp_path.chmod(0o1777)
    assert not is_private(tmp_path / "machines" / "cache")


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
