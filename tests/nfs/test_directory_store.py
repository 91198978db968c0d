"""The directory store on NFS: what its clients remember, and what they keep."""

from __future__ import annotations

import io
import os
import time
from pathlib import Path

import pytest

from b10_transfer.errors import StoreError
from b10_transfer.stores.directory import DirectoryStore

from .server import Server, behind, seen_through, version_of


@pytest.fixture
def store(store_place: Path) -> DirectoryStore:
    return DirectoryStore(store_place / "store")


@pytest.fixture
def elsewhere(store_place: Path) -> DirectoryStore:
    """The same store on another client, one that speaks the other version."""
    other = "v3" if version_of(store_place) == "v4.2" else "v4.2"
    return DirectoryStore(seen_through(store_place, other) / "store")


def names(store: DirectoryStore, folder: str) -> list[str]:
    return [info.name for info in store.list(folder)]


def test_object_that_another_client_created_is_listed_at_once(store: DirectoryStore, elsewhere: DirectoryStore) -> None:
    store.create("a/first", io.BytesIO(b"content"))
    assert names(store, "a") == ["a/first"]
    time.sleep(0.1)  # version 3 tells changes apart by times, which are those of timer ticks
    elsewhere.create("a/second", io.BytesIO(b"content"))
    assert names(store, "a") == ["a/first", "a/second"]


def test_folder_that_was_missing_a_moment_ago_is_seen_at_once(store: DirectoryStore, elsewhere: DirectoryStore) -> None:
    """A client remembers for up to a minute that it was not there."""
    for _ in range(2):
        assert store.list("a/deep/folder") == []
        assert store.folders("a") == []
    time.sleep(0.1)
    elsewhere.create("a/deep/folder/object", io.BytesIO(b"content"))
    assert names(store, "a/deep/folder") == ["a/deep/folder/object"]
    assert store.folders("a") == ["a/deep"]


def test_object_is_created_in_a_folder_that_was_missing_a_moment_ago(
    store: DirectoryStore, elsewhere: DirectoryStore
) -> None:
    assert store.open("a/deep/object") is None
    assert elsewhere.create("a/deep/object", io.BytesIO(b"theirs"))
    assert store.create("a/deep/other", io.BytesIO(b"mine"))
    assert not store.create("a/deep/object", io.BytesIO(b"mine"))
    assert names(elsewhere, "a/deep") == ["a/deep/object", "a/deep/other"]


def test_file_that_was_deleted_while_open_is_no_object(store: DirectoryStore, store_place: Path) -> None:
    store.create("a/object", io.BytesIO(b"content"))
    with (store_place / "store" / "a" / "object").open("rb"):
        assert store.delete("a/object")
        [kept] = os.listdir(store_place / "store" / "a")
        assert kept.startswith(".nfs")
        assert store.list("a") == []
        assert store.create("a/object", io.BytesIO(b"another"))
        assert names(store, "a") == ["a/object"]


def test_staging_file_that_was_deleted_while_open_disturbs_no_cleaning_up(
    store: DirectoryStore, store_place: Path
) -> None:
    store.now()
    staging = store_place / "store" / ".staging"
    (staging / "slow.tmp").write_bytes(b"half")
    with (staging / "slow.tmp").open("rb"):
        os.utime(staging / "slow.tmp", (0, 0))
        assert store.remove_abandoned(60) == 1
        assert [name[:4] for name in os.listdir(staging)] == [".nfs"]
        assert store.remove_abandoned(60) == 0


def test_object_that_was_cut_short_on_the_server_is_an_error_and_not_short(
    server: Server, store: DirectoryStore, store_place: Path
) -> None:
    store.create("a/object", io.BytesIO(bytes(1_000_000)))
    reader = store.open("a/object")
    assert reader is not None
    os.truncate(behind(store_place) / "store" / "a" / "object", 10)
    server.drop_caches()
    time.sleep(4)  # until the client asks for the size again
    with reader, pytest.raises(StoreError):
        reader.read_at(500_000, 100_000)
