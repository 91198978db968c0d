"""Another user of the machine can write to the node's cache: nothing outside it is touched or waited for."""

from __future__ import annotations

import fcntl
import hashlib
import os
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from b10_transfer import OperationStatus, load, save
from b10_transfer.concurrency.deadline import Deadline
from b10_transfer.stores import tiered
from b10_transfer.stores.base import TAIL_BYTES, ObjectInfo
from b10_transfer.stores.directory import DirectoryStore
from b10_transfer.stores.tiered import TieredStore
from tests.conftest import IsolatedEnv
from tests.security.pods import make_victim, photograph, set_old

CONTENT = secrets.token_bytes(900_000)


@pytest.fixture
def node(isolated_env: IsolatedEnv, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """An empty node's cache that everybody may write to, and a store with a pack of some size."""
    monkeypatch.setenv("B10_CACHES", "triton")
    isolated_env.fill(isolated_env.triton, {"KEY/a.so": CONTENT})
    assert save().status is OperationStatus.SUCCESS
    folder = tmp_path / "node"
    folder.mkdir()
    folder.chmod(0o1777)
    monkeypatch.setenv("B10_NODE_CACHE", str(folder))
    monkeypatch.setattr("b10_transfer.stores.worker.client.is_local", lambda _path: False)
    return folder


def place(env: IsolatedEnv, node: Path) -> Path:
    """The folder of the store's copies."""
    return node / hashlib.sha256(str(env.store).encode()).hexdigest()[:16]


def load_elsewhere(monkeypatch: pytest.MonkeyPatch, root: Path) -> OperationStatus:
    with monkeypatch.context() as patch:
        patch.setenv("TRITON_CACHE_DIR", str(root))
        status = load().status
    assert (root / "KEY" / "a.so").read_bytes() == CONTENT
    return status


@pytest.mark.parametrize("depth", ["", "v1", "v1/default", "v1/default/ENVIRONMENT", "v1/default/ENVIRONMENT/packs"])
def test_folder_that_is_a_link_leads_nothing_out_of_the_node_cache(
    isolated_env: IsolatedEnv, node: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, depth: str
) -> None:
    [environment] = (isolated_env.store / "v1" / "default").iterdir()
    victim = make_victim(tmp_path / "victim")
    before = photograph(victim)
    link = place(isolated_env, node) / depth.replace("ENVIRONMENT", environment.name)
    link.parent.mkdir(parents=True, exist_ok=True)
    link.symlink_to(victim)
    (node / ".staging").symlink_to(victim)
    assert load_elsewhere(monkeypatch, tmp_path / "one") is OperationStatus.SUCCESS
    assert photograph(victim) == before


def test_staging_that_is_a_link_leads_nothing_out_of_the_node_cache(
    node: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    victim = make_victim(tmp_path / "victim")
    before = photograph(victim)
    (node / ".staging").symlink_to(victim)
    assert load_elsewhere(monkeypatch, tmp_path / "one") is OperationStatus.SUCCESS
    assert photograph(victim) == before


def lock_of(env: IsolatedEnv, node: Path) -> Path:
    [pack] = env.store.rglob("*.tar.zst")
    name = f"{place(env, node).name}/{pack.relative_to(env.store).as_posix()}"
    return node / f".fetching-{hashlib.sha256(name.encode()).hexdigest()[:16]}"


@pytest.fixture
def held_lock(isolated_env: IsolatedEnv, node: Path) -> Iterator[Path]:
    path = lock_of(isolated_env, node)
    with open(path, "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield path


def test_lock_that_is_held_for_ever_costs_a_part_of_the_deadline_and_the_store_is_read(
    held_lock: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("B10_DEADLINE_SECONDS", "8")
    assert load_elsewhere(monkeypatch, tmp_path / "one") is OperationStatus.SUCCESS


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file to another user")
def test_lock_of_another_user_is_ignored(held_lock: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    os.chown(held_lock, 4242, 4242)
    monkeypatch.setattr(tiered.TieredStore, "_wait_for", lambda *_: pytest.fail("it is waited for"))
    assert load_elsewhere(monkeypatch, tmp_path / "one") is OperationStatus.SUCCESS


@pytest.mark.parametrize("kind", ["fifo", "link", "folder"])
def test_lock_that_is_no_file_is_not_waited_for(
    isolated_env: IsolatedEnv, node: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, kind: str
) -> None:
    path = lock_of(isolated_env, node)
    {"fifo": os.mkfifo, "link": lambda path: path.symlink_to("/etc/passwd"), "folder": Path.mkdir}[kind](path)
    assert load_elsewhere(monkeypatch, tmp_path / "one") is OperationStatus.SUCCESS


def test_what_killed_fetches_left_goes_and_other_files_stay(
    isolated_env: IsolatedEnv, node: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (node / ".staging").mkdir()
    left = [node / ".staging" / f"{number:032x}.tmp" for number in range(3)]
    kept = [node / ".staging" / "id_rsa", node / "notes.txt", node / f".fetching-{'0' * 15}"]
    dead_lock = node / f".fetching-{'0' * 16}"
    for path in (*left, *kept, dead_lock):
        path.write_bytes(b"half a pack")
    set_old(node)
    assert load_elsewhere(monkeypatch, tmp_path / "one") is OperationStatus.SUCCESS
    assert not any(path.exists() for path in (*left, dead_lock))
    assert all(path.exists() for path in kept)
    assert list(node.glob(".fetching-*")) == [node / f".fetching-{'0' * 15}"]


def test_store_is_not_listed_again_for_each_fetch(isolated_env: IsolatedEnv, node: Path) -> None:
    shutil.rmtree(isolated_env.triton)
    for number in range(4):
        isolated_env.fill(isolated_env.triton, {f"N{number}/a.so": secrets.token_bytes(400_000)})
        assert save().status is OperationStatus.SUCCESS
    listed = []

    class Counting(DirectoryStore):
        def list(self, folder: str) -> list[ObjectInfo]:
            listed.append(folder)
            return super().list(folder)

    store = TieredStore(Counting(isolated_env.store), node, Deadline("load", 60))
    [packs] = isolated_env.store.glob("v1/*/*/packs")
    infos = store.list(packs.relative_to(isolated_env.store).as_posix())
    listed.clear()
    for info in infos:
        with store.open(info.name) as reader:  # type: ignore[union-attr]
            reader.read_at(0, 1000)
    assert len(list(node.rglob("*.tar.zst"))) == len(infos) > 3
    assert listed == []


def test_no_read_of_an_index_comes_from_a_copy(isolated_env: IsolatedEnv, node: Path) -> None:
    """The contract of ``ObjectReader.read_at``: a read that begins in the last TAIL_BYTES is the store's."""
    [pack] = isolated_env.store.rglob("*.tar.zst")
    name = pack.relative_to(isolated_env.store).as_posix()
    store = TieredStore(DirectoryStore(isolated_env.store), node, Deadline("load", 60))
    size = pack.stat().st_size
    with store.open(name) as reader:  # type: ignore[union-attr]
        reader.read_at(0, 10)
        [copy] = node.rglob("*.tar.zst")
        copy.write_bytes(bytes(size))
        data = pack.read_bytes()
        for start in (size - TAIL_BYTES, size - 1, size - 1000):
            assert reader.read_at(start, size - start) == data[start:]
        assert reader.reread_at(0, 1000) == data[:1000]
