"""Telling local file systems from those that may hang, by the kernel's table alone."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from b10_transfer.stores import locality
from b10_transfer.stores.directory import DirectoryStore
from b10_transfer.stores.locality import is_local, mounts

LINE = "36 35 98:0 / {} rw,noatime shared:1 - {} /dev/x rw,errors=continue\n"


@pytest.fixture
def table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """What is mounted where; ``/`` is an ext4."""
    kinds = {"/": "ext4"}
    monkeypatch.setattr(locality, "mounts", lambda: kinds)
    return kinds


def test_table_of_the_kernel_is_read(tmp_path: Path) -> None:
    path = tmp_path / "mountinfo"
    path.write_text(
        LINE.format("/", "overlay") + LINE.format("/mnt/a\\040b", "nfs4") + LINE.format("/mnt/a\\040b", "fuse.s3fs")
    )
    assert mounts(str(path)) == {"/": "overlay", "/mnt/a b": "fuse.s3fs"}


def test_missing_table_makes_nothing_local(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert mounts(str(tmp_path / "none")) == {}
    monkeypatch.setattr(locality, "mounts", dict)
    assert not is_local("/")


def test_plain_folder_is_local_and_so_is_what_is_not_there_yet(table: dict[str, str], tmp_path: Path) -> None:
    assert is_local(str(tmp_path))
    assert is_local(str(tmp_path / "missing" / "store"))


@pytest.mark.parametrize("kind", ["nfs", "nfs4", "fuse.s3fs", "fuseblk", "ceph", "lustre", "cifs", "9p", "virtiofs"])
def test_file_system_with_a_server_is_not(table: dict[str, str], tmp_path: Path, kind: str) -> None:
    table[str(tmp_path / "mount")] = kind
    assert not is_local(str(tmp_path / "mount"))
    assert not is_local(str(tmp_path / "mount" / "store"))
    assert not is_local(str(tmp_path)), "it is mounted inside"
    assert is_local(str(tmp_path / "mountain"))


def test_link_is_followed_without_looking_behind_the_mount(
    table: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table[str(tmp_path / "mount")] = "fuse.hung"
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to("folder/../mount/store")
    readlink = os.readlink

    def watched(path: str) -> str:
        assert "mount" not in path, "this call would hang"
        return readlink(path)

    monkeypatch.setattr(os, "readlink", watched)
    assert not is_local(str(tmp_path / "link" / "deeper"))


def test_links_in_a_circle_are_not_local(table: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to(tmp_path / "b")
    (tmp_path / "b").symlink_to("a")
    assert not is_local(str(tmp_path / "a"))


def test_store_of_a_local_file_system_needs_no_worker(table: dict[str, str], tmp_path: Path) -> None:
    from b10_transfer.concurrency.deadline import Deadline
    from b10_transfer.stores.worker.client import WorkerStore, directory_store

    with directory_store(tmp_path, make_parents=False, deadline=Deadline("load", 60)) as store:
        assert isinstance(store, DirectoryStore)
    table[str(tmp_path)] = "nfs4"
    with directory_store(tmp_path, make_parents=False, deadline=Deadline("load", 60)) as store:
        assert isinstance(store, WorkerStore)


def test_shared_memory_is_local_though_the_folder_it_is_mounted_in_is_no_disk(table: dict[str, str]) -> None:
    table |= {"/dev": "devtmpfs", "/dev/shm": "tmpfs"}
    assert is_local("/dev/shm/store")
