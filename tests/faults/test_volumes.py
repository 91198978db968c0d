"""A cache on a volume of its own: what a file system puts there, and the rights that an operator gave it, stay."""

from __future__ import annotations

import io
import os
import struct
import tempfile
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from b10_transfer.adapters import ADAPTERS, Adapter, CacheRoot, flashinfer_knobs, vllm_modelinfos
from b10_transfer.concurrency.deadline import Deadline
from b10_transfer.local import snapshot
from b10_transfer.local.files import RootScan
from b10_transfer.local.ownership import open_private
from b10_transfer.local.restore import restore
from b10_transfer.maintenance.clear import Sweep
from b10_transfer.pack import PackWriter
from tests.conftest import FillTree, Packs, ReadTree
from tests.shapes import ARTIFACTS, tree
from tests.users import another_user

EACH_ADAPTER = pytest.mark.parametrize("adapter", ADAPTERS, ids=lambda adapter: adapter.name)
USER = 12345
_ACL = {"access": "system.posix_acl_access", "default": "system.posix_acl_default"}
_NOBODY = 0xFFFFFFFF


@pytest.fixture(autouse=True)
def installed_vllm(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vllm_modelinfos, "_installed_version", lambda: "0.32.0")
    monkeypatch.setattr(flashinfer_knobs, "_installed_version", lambda: "0.7.4")


@pytest.fixture
def volume() -> Iterator[Path]:
    """A directory that every user can get to, with what an ext4 file system of its own has: root's ``lost+found``."""
    with tempfile.TemporaryDirectory(dir="/tmp", prefix="b10-volume-") as name:
        path = Path(name).resolve()
        path.chmod(0o755)
        (path / "cache" / "lost+found").mkdir(parents=True)
        # Root's, and closed. To an ordinary user, who cannot make such a folder, one of mode 0 is as closed.
        (path / "cache" / "lost+found").chmod(0o700 if os.geteuid() == 0 else 0)
        try:
            yield path / "cache"
        finally:
            with suppress(FileNotFoundError):
                (path / "cache" / "lost+found").chmod(0o700)


@contextmanager
def ordinary_user(*places: Path) -> Iterator[None]:
    """Be an ordinary user to whom these places belong."""
    if os.geteuid() != 0:
        yield
        return
    for place in places:
        for path in (place, *(path for path in place.rglob("*") if path.name != "lost+found")):
            os.chown(path, USER, USER)
    with another_user(USER):
        yield


def packed(packs: Packs, root: CacheRoot) -> bytes:
    """A pack of all units of a cache."""
    out = io.BytesIO()
    with PackWriter(out, packs.limits, Deadline("save", 60)) as writer:
        snapshot.pack(deque(snapshot.take([root], Deadline("save", 60)).units), writer, snapshot.Packed())
        writer.finish(packs.namespace, packs.environment)
    return out.getvalue()


@EACH_ADAPTER
def test_lost_and_found_in_a_cache_is_ignored(
    volume: Path, fill: FillTree, read_tree: ReadTree, adapter: Adapter
) -> None:
    root = CacheRoot(adapter, volume)
    fill(volume, ARTIFACTS[adapter.name])
    with ordinary_user(volume):
        found = snapshot.take([root], Deadline("save", 60))
        assert not found.failed
        assert {file.path for unit in found.units for file in unit.files} == set(ARTIFACTS[adapter.name])
        assert found.unrecognised[adapter.name] == 0
        assert snapshot.has_artifacts(root) is not adapter.accompanies
        opened = open_private(root)
        assert opened is not None
        assert list(RootScan(opened).units())
        assert opened.left_out == []
        sweep = Sweep()
        sweep.clear(opened, Deadline("clear", 60))
        assert sweep.errors == []
    assert [entry.name for entry in volume.iterdir()] == ["lost+found"]


@EACH_ADAPTER
def test_load_into_a_cache_with_lost_and_found(
    volume: Path, fill: FillTree, packs: Packs, tmp_path: Path, adapter: Adapter
) -> None:
    fill(tmp_path / "source", tree(adapter.name))
    repository = packs.repository()
    repository.publish(io.BytesIO(packed(packs, CacheRoot(adapter, tmp_path / "source"))))
    union = repository.union()
    with ordinary_user(volume):
        root = CacheRoot(adapter, volume)
        assert not snapshot.has_artifacts(root)
        restored = restore(repository, union, union.units, [root], Deadline("load", 60))
        assert (restored.failures, sorted(restored.names)) == ([], sorted(union.units))
        present = {path for path in ARTIFACTS[adapter.name] if (volume / path).exists()}
    assert present == set(ARTIFACTS[adapter.name])
    assert (volume / "lost+found").is_dir()


def acl(*entries: tuple[int, int, int]) -> bytes:
    """An access control list as the kernel takes it: tag, permissions and user or group of each entry."""
    return struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *entry) for entry in entries)


@EACH_ADAPTER
def test_access_control_lists_of_a_cache_stay_and_new_files_get_its_default_one(
    fill: FillTree, packs: Packs, tmp_path: Path, adapter: Adapter
) -> None:
    """The user 4242 may read and write, by an entry of a list; other users may not."""
    cache = tmp_path / "cache"
    cache.mkdir(mode=0o770)
    listed = acl((1, 7, _NOBODY), (2, 7, 4242), (4, 7, _NOBODY), (16, 7, _NOBODY), (32, 0, _NOBODY))
    try:
        for name in _ACL.values():
            os.setxattr(cache, name, listed)
    except OSError:
        pytest.skip("this file system has no access control lists")
    before = os.stat(cache)
    fill(tmp_path / "source", tree(adapter.name))
    repository = packs.repository()
    repository.publish(io.BytesIO(packed(packs, CacheRoot(adapter, tmp_path / "source"))))
    union = repository.union()
    restored = restore(repository, union, union.units, [CacheRoot(adapter, cache)], Deadline("load", 60))
    assert restored.failures == []
    after = os.stat(cache)
    assert (after.st_ino, after.st_mode, after.st_uid, after.st_gid) == (
        before.st_ino,
        before.st_mode,
        before.st_uid,
        before.st_gid,
    )
    assert {name: os.getxattr(cache, name) for name in _ACL.values()} == dict.fromkeys(_ACL.values(), listed)
    for path in ARTIFACTS[adapter.name]:
        for place in (cache / path, *(cache / path).parents):
            if place.is_relative_to(cache) and place != cache:
                entries = os.getxattr(place, _ACL["access"])
                assert struct.pack("<HHI", 2, 7, 4242) in entries, place
