"""A node's own directory in front of a store: it saves fetching, and is believed in nothing."""

from __future__ import annotations

import os
import secrets
import threading
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import pytest

from b10_transfer import OperationStatus, load, save
from b10_transfer.concurrency.deadline import Deadline
from b10_transfer.errors import StoreError
from b10_transfer.stores import opening
from b10_transfer.stores.base import ObjectReader
from b10_transfer.stores.directory import DirectoryStore
from b10_transfer.stores.tiered import TieredStore

if TYPE_CHECKING:
    from tests.conftest import IsolatedEnv, ReadTree

CONTENT = secrets.token_bytes(1_500_000)


class CountingStore(DirectoryStore):
    """Counts the bytes that are read from it."""

    fetched: ClassVar[Counter[str]] = Counter()

    def open(self, name: str) -> ObjectReader | None:
        reader = super().open(name)
        if reader is None:
            return None
        read_at = reader.read_at

        def counted(offset: int, length: int) -> bytes | bytearray:
            CountingStore.fetched[name.rpartition("/")[2]] += length
            return read_at(offset, length)

        reader.read_at = counted  # type: ignore[method-assign]
        return reader


@pytest.fixture
def node(isolated_env: IsolatedEnv, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The node's directory; the store counts what is fetched from it, and holds one pack that hardly compresses."""
    isolated_env.fill(isolated_env.triton, {"KEY/a.so": CONTENT, "KEY/b.so": b"b"})
    assert save().status is OperationStatus.SUCCESS
    CountingStore.fetched.clear()
    monkeypatch.setattr("b10_transfer.stores.worker.client.DirectoryStore", CountingStore)
    monkeypatch.setenv("B10_NODE_CACHE", str(tmp_path / "node"))
    return tmp_path / "node"


def start_pod(monkeypatch: pytest.MonkeyPatch, root: Path) -> OperationStatus:
    monkeypatch.setenv("TRITON_CACHE_DIR", str(root))
    return load().status


def fetched_bytes() -> int:
    return sum(CountingStore.fetched.values())


def copy_in(node: Path) -> Path:
    [copy] = node.rglob("*.tar.zst")
    return copy


def test_second_pod_of_a_node_fetches_the_end_of_a_pack_alone(
    node: Path, monkeypatch: pytest.MonkeyPatch, read_tree: ReadTree, tmp_path: Path
) -> None:
    assert start_pod(monkeypatch, tmp_path / "one") is OperationStatus.SUCCESS
    first = fetched_bytes()
    assert first >= len(CONTENT)
    CountingStore.fetched.clear()
    assert start_pod(monkeypatch, tmp_path / "two") is OperationStatus.SUCCESS
    assert fetched_bytes() < len(CONTENT) / 2
    assert read_tree(tmp_path / "two") == {"KEY/a.so": CONTENT, "KEY/b.so": b"b"}


@pytest.mark.parametrize("damage", ["flipped", "truncated", "replaced", "emptied", "folder", "link"])
def test_damaged_copy_is_found_out_and_fetched_again(
    node: Path, monkeypatch: pytest.MonkeyPatch, read_tree: ReadTree, tmp_path: Path, damage: str
) -> None:
    assert start_pod(monkeypatch, tmp_path / "one") is OperationStatus.SUCCESS
    copy = copy_in(node)
    data = bytearray(copy.read_bytes())
    copy.unlink()
    if damage == "folder":
        copy.mkdir()
    elif damage == "link":
        copy.symlink_to("/etc/passwd")
    else:
        data[1000] ^= 1
        copy.write_bytes(
            {
                "flipped": bytes(data),
                "truncated": bytes(data[:-1]),
                "replaced": secrets.token_bytes(len(data)),
                "emptied": b"",
            }[damage]
        )
    assert start_pod(monkeypatch, tmp_path / "two") is OperationStatus.SUCCESS
    assert read_tree(tmp_path / "two") == {"KEY/a.so": CONTENT, "KEY/b.so": b"b"}


def test_sound_pack_of_somebody_else_in_the_place_of_a_copy_is_not_believed(
    isolated_env: IsolatedEnv, node: Path, monkeypatch: pytest.MonkeyPatch, read_tree: ReadTree, tmp_path: Path
) -> None:
    """A hostile node directory holds a pack that is right in itself: same names, same size, other content."""
    assert start_pod(monkeypatch, tmp_path / "one") is OperationStatus.SUCCESS
    evil = tmp_path / "evil"
    isolated_env.fill(evil, {"KEY/a.so": secrets.token_bytes(len(CONTENT)), "KEY/b.so": b"b"})
    monkeypatch.setenv("TRITON_CACHE_DIR", str(evil))
    assert save(store=tmp_path / "evil-store").status is OperationStatus.SUCCESS
    [forged] = (tmp_path / "evil-store").rglob("*.tar.zst")
    copy = copy_in(node)
    size = copy.stat().st_size
    copy.unlink()
    copy.write_bytes(forged.read_bytes()[:size].ljust(size, b"\0"))
    assert start_pod(monkeypatch, tmp_path / "two") is OperationStatus.SUCCESS
    assert read_tree(tmp_path / "two")["KEY/a.so"] == CONTENT


def test_damage_that_a_load_found_is_healed_by_a_pod_that_restored_the_pack_before(
    isolated_env: IsolatedEnv, node: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert start_pod(monkeypatch, tmp_path / "one") is OperationStatus.SUCCESS
    [pack] = isolated_env.store.rglob("*.tar.zst")
    data = bytearray(pack.read_bytes())
    data[1000] ^= 1
    pack.chmod(0o644)
    pack.write_bytes(data)
    for copy in node.rglob("*.tar.zst"):
        copy.unlink()
    assert start_pod(monkeypatch, tmp_path / "two") is OperationStatus.DOES_NOT_EXIST
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path / "one"))
    report = save()
    assert (report.status, report.quarantined_packs) == (
        OperationStatus.SUCCESS,
        (pack.name.removesuffix(".tar.zst"),),
    )


@pytest.mark.parametrize("obstacle", ["a file", "not writable"])
def test_node_directory_that_cannot_be_used_is_done_without(
    isolated_env: IsolatedEnv, node: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, obstacle: str
) -> None:
    if obstacle == "a file":
        node.write_text("in the way")
    else:

        def refuse(*_: object) -> bool:
            raise StoreError("write", str(node), "no space left on device")

        monkeypatch.setattr("b10_transfer.stores.tiered.DirectoryStore.create", refuse)
    assert start_pod(monkeypatch, tmp_path / "one") is OperationStatus.SUCCESS


def test_node_directory_on_a_mount_is_done_without(
    node: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(opening, "is_local", lambda _path: False)
    assert start_pod(monkeypatch, tmp_path / "one") is OperationStatus.SUCCESS
    assert "is not used: it is not on a local file system" in caplog.text
    assert not node.exists()


def test_copies_of_what_the_store_no_longer_has_are_removed(
    isolated_env: IsolatedEnv, node: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert start_pod(monkeypatch, tmp_path / "one") is OperationStatus.SUCCESS
    old = copy_in(node)
    for pack in isolated_env.store.rglob("*.tar.zst"):
        pack.unlink()
    isolated_env.fill(tmp_path / "one", {"NEW/a.so": secrets.token_bytes(1_000_000)})
    assert save().status is OperationStatus.SUCCESS
    assert start_pod(monkeypatch, tmp_path / "two") is OperationStatus.SUCCESS
    assert copy_in(node) != old


def test_copies_of_another_environment_that_the_store_no_longer_has_go_with_the_next_fetch(
    isolated_env: IsolatedEnv, node: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """An earlier image's, say, whose packs were pruned."""
    assert start_pod(monkeypatch, tmp_path / "one") is OperationStatus.SUCCESS
    old = copy_in(node)
    other = old.parents[2] / ("0" * 32) / "packs" / old.name
    other.parent.mkdir(parents=True)
    old.rename(other)
    assert start_pod(monkeypatch, tmp_path / "two") is OperationStatus.SUCCESS
    assert copy_in(node) == old, "fetched again, and the other is gone"


def test_pods_that_start_together_fetch_once(isolated_env: IsolatedEnv, node: Path) -> None:
    [pack] = isolated_env.store.rglob("*.tar.zst")
    name = pack.relative_to(isolated_env.store).as_posix()
    contents = []

    def pod() -> None:
        store = TieredStore(CountingStore(isolated_env.store), node, Deadline("load", 60))
        reader = store.open(name)
        assert reader is not None
        with reader:
            contents.append(bytes(reader.read_at(0, 1_000_000)))

    threads = [threading.Thread(target=pod) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert contents == [pack.read_bytes()[:1_000_000]] * 8
    assert fetched_bytes() <= pack.stat().st_size


def test_two_stores_share_a_node_directory(
    isolated_env: IsolatedEnv, node: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert start_pod(monkeypatch, tmp_path / "one") is OperationStatus.SUCCESS
    os.rename(isolated_env.store, tmp_path / "moved")
    monkeypatch.setenv("B10_STORE", str(tmp_path / "moved"))
    assert start_pod(monkeypatch, tmp_path / "two") is OperationStatus.SUCCESS
    assert len(list(node.rglob("*.tar.zst"))) == 2
