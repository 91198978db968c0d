"""Putting units in place: all of a unit or none of it, and nothing that is there is replaced."""

from __future__ import annotations

import errno
import io
import json
import os
import stat
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from b10_transfer.adapters import ADAPTERS, CacheRoot
from b10_transfer.concurrency.deadline import Deadline, run_within
from b10_transfer.errors import DeadlineExceededError, LocalCacheError, NoSpaceError
from b10_transfer.local import bulk, staging, writing
from b10_transfer.local.bulk import portable
from b10_transfer.local.placing import Restored
from b10_transfer.local.presence import missing
from b10_transfer.local.restore import restore
from b10_transfer.repository.repository import Repository
from tests.descriptors import opened_below

if TYPE_CHECKING:
    from tests.conftest import FillTree, Packs, ReadTree

INDUCTOR, TRITON = (next(each for each in ADAPTERS if each.name == name) for name in ("inductor", "triton"))
UNITS = {
    "inductor/ey/key.": {"py": b"source", "main.so": b"library"},
    "inductor/fxgraph/ra/graph/": {"entry": b"graph"},
    "triton/KERNEL/": {"launcher.so": b"launcher"},
}
INDUCTOR_FILES = {"ey/key.py": b"source", "ey/key.main.so": b"library", "fxgraph/ra/graph/entry": b"graph"}


@pytest.fixture
def roots(tmp_path: Path) -> list[CacheRoot]:
    return [CacheRoot(INDUCTOR, tmp_path / "caches" / "inductor"), CacheRoot(TRITON, tmp_path / "caches" / "triton")]


@pytest.fixture
def inductor(roots: list[CacheRoot]) -> Path:
    return roots[0].path


@pytest.fixture
def repository(packs: Packs) -> Repository:
    repository = packs.repository()
    repository.publish(io.BytesIO(packs.write(UNITS)))
    return repository


def published(packs: Packs, *data: bytes) -> Repository:
    repository = packs.repository()
    for pack in data:
        repository.publish(io.BytesIO(pack))
    return repository


def load(repository: Repository, roots: list[CacheRoot], deadline: Deadline | None = None) -> Restored:
    union = repository.union()
    names = missing(union.units, roots)
    return restore(repository, union, names, roots, deadline or Deadline("load", 60))


def test_missing_roots_are_made_and_filled(
    repository: Repository, roots: list[CacheRoot], inductor: Path, read_tree: ReadTree
) -> None:
    restored = load(repository, roots)
    assert (restored.units, restored.files, restored.bytes) == (3, 4, 26)
    assert read_tree(inductor) == INDUCTOR_FILES
    assert read_tree(roots[1].path) == {"KERNEL/launcher.so": b"launcher"}


def test_nothing_is_left_beside_the_roots(repository: Repository, roots: list[CacheRoot], inductor: Path) -> None:
    load(repository, roots)
    assert sorted(os.listdir(inductor.parent)) == ["inductor", "triton"]


def test_modes_and_times_are_as_they_were(packs: Packs, roots: list[CacheRoot], inductor: Path) -> None:
    repository = packs.repository()
    repository.publish(io.BytesIO(packs.write(UNITS, mode=0o751, mtime_ns=1_234_567_890_123_456_789)))
    load(repository, roots)
    status = (inductor / "ey" / "key.main.so").stat()
    assert (stat.S_IMODE(status.st_mode), status.st_mtime_ns) == (0o751, 1_234_567_890_123_456_789)


@pytest.mark.parametrize(
    ("umask", "new", "groups"), [(0o022, 0o755, 0o2755), (0o077, 0o700, 0o2700), (0, 0o755, 0o2775)]
)
def test_root_that_exists_is_never_replaced_and_new_folders_follow_the_umask(
    repository: Repository, roots: list[CacheRoot], inductor: Path, umask: int, new: int, groups: int
) -> None:
    inductor.mkdir(parents=True)
    inductor.chmod(0o2775)
    if os.geteuid() == 0:
        os.chown(inductor, 0, 5000)
        inductor.chmod(0o2775)
    before = inductor.stat()
    previous = os.umask(umask)
    try:
        load(repository, roots)
    finally:
        os.umask(previous)
    after = inductor.stat()
    assert (after.st_ino, after.st_mode, after.st_gid) == (before.st_ino, before.st_mode, before.st_gid)
    folder = (inductor / "ey").stat()
    assert (stat.S_IMODE(folder.st_mode), folder.st_gid) == (groups, before.st_gid)
    assert stat.S_IMODE(roots[1].path.stat().st_mode) == new


@pytest.mark.parametrize("links", [True, False], ids=["hard links", "no hard links"])
def test_file_that_a_compiler_writes_meanwhile_is_not_replaced(
    repository: Repository,
    roots: list[CacheRoot],
    inductor: Path,
    monkeypatch: pytest.MonkeyPatch,
    read_tree: ReadTree,
    links: bool,
) -> None:
    link = os.link

    def compile_first(source: Path, target: Path, **options: Any) -> None:
        if target.name == "key.py":
            target.write_bytes(b"compiled here")
        if not links:
            raise OSError(errno.EPERM, os.strerror(errno.EPERM))
        link(source, target, **options)

    monkeypatch.setattr(os, "link", compile_first)
    inductor.mkdir(parents=True)
    load(repository, roots)
    assert read_tree(inductor) == {**INDUCTOR_FILES, "ey/key.py": b"compiled here"}


def test_missing_root_is_filled_at_one_moment(
    repository: Repository, roots: list[CacheRoot], inductor: Path, monkeypatch: pytest.MonkeyPatch, read_tree: ReadTree
) -> None:
    rename = os.rename
    seen: list[dict[str, bytes]] = []

    def look_and_rename(source: Any, target: Any) -> None:
        seen.append(read_tree(inductor))
        rename(source, target)
        seen.append(read_tree(inductor))

    monkeypatch.setattr(os, "rename", look_and_rename)
    load(repository, roots[:1])
    assert seen == [{}, INDUCTOR_FILES]


@pytest.mark.parametrize(
    ("local", "names"),
    [
        ({}, ["inductor/ey/key", "inductor/fxgraph/ra/graph"]),
        ({"ey/key.py": b""}, ["inductor/fxgraph/ra/graph"]),
        ({"ey/key.cpp": b""}, ["inductor/ey/key", "inductor/fxgraph/ra/graph"]),
        ({"ey/keys.py": b""}, ["inductor/ey/key", "inductor/fxgraph/ra/graph"]),
        ({"aa": b"a file in the way"}, ["inductor/ey/key", "inductor/fxgraph/ra/graph"]),
        ({"fxgraph/ra/graph/entry": b""}, ["inductor/ey/key"]),
        ({"fxgraph/ra/graph": b"a file"}, ["inductor/ey/key", "inductor/fxgraph/ra/graph"]),
        ({"ey/key.so": b"", "fxgraph/ra/graph/entry": b""}, ["inductor/ey/key"]),
        ({"ey/key.so": b"library", "fxgraph/ra/graph/entry": b""}, []),
    ],
)
def test_unit_is_missing_unless_its_compiler_has_finished_it(
    repository: Repository,
    roots: list[CacheRoot],
    inductor: Path,
    fill: FillTree,
    local: dict[str, bytes],
    names: list[str],
) -> None:
    fill(inductor, local)
    assert sorted(missing(repository.union().units, roots[:1])) == names


def test_folder_that_is_empty_is_missing_and_gets_filled(
    repository: Repository, roots: list[CacheRoot], inductor: Path, fill: FillTree, read_tree: ReadTree
) -> None:
    (inductor / "fxgraph" / "ra" / "graph").mkdir(parents=True)
    fill(inductor, {"ey/key.py": b"local"})
    load(repository, roots)
    assert read_tree(inductor) == {"ey/key.py": b"local", "fxgraph/ra/graph/entry": b"graph"}


def test_units_of_roots_that_were_not_asked_for_are_not_missing(repository: Repository, roots: list[CacheRoot]) -> None:
    assert missing(repository.union().units, []) == []
    assert missing(repository.union().units, roots[1:]) == ["triton/KERNEL"]


def test_units_that_are_there_stay_as_they_are(
    repository: Repository, roots: list[CacheRoot], inductor: Path, fill: FillTree, read_tree: ReadTree
) -> None:
    fill(inductor, {"ey/key.py": b"local", "fxgraph/ra/graph/entry": b"local", "th/other.py": b"local"})
    restored = load(repository, roots)
    assert restored.units == 1
    assert read_tree(inductor) == {"ey/key.py": b"local", "fxgraph/ra/graph/entry": b"local", "th/other.py": b"local"}


def test_units_that_appear_meanwhile_stay_as_they_are(
    repository: Repository, roots: list[CacheRoot], inductor: Path, fill: FillTree, read_tree: ReadTree
) -> None:
    union = repository.union()
    names = missing(union.units, roots)
    local = {"ey/key.py": b"local", "fxgraph/ra/graph/entry": b"local"}
    fill(inductor, local)
    restored = restore(repository, union, names, roots, Deadline("load", 60))
    assert restored.units == 1
    assert read_tree(inductor) == local


def test_missing_units_are_added_to_a_root_in_use(
    repository: Repository, roots: list[CacheRoot], inductor: Path, fill: FillTree, read_tree: ReadTree
) -> None:
    fill(inductor, {"th/other.py": b"local"})
    restored = load(repository, roots)
    assert restored.units == 3
    assert read_tree(inductor) == {"th/other.py": b"local", **INDUCTOR_FILES}


def test_file_systems_without_hard_links_are_filled_too(
    repository: Repository,
    roots: list[CacheRoot],
    inductor: Path,
    fill: FillTree,
    read_tree: ReadTree,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(os, "link", refuse)
    fill(inductor, {"th/other.py": b"local"})
    load(repository, roots)
    assert read_tree(inductor) == {"th/other.py": b"local", **INDUCTOR_FILES}


def test_root_that_cannot_be_renamed_over_is_filled_unit_by_unit(
    repository: Repository, roots: list[CacheRoot], inductor: Path, read_tree: ReadTree, monkeypatch: pytest.MonkeyPatch
) -> None:
    rename = os.rename

    def refuse_the_root(source: Any, target: Any) -> None:
        if Path(target) == inductor:
            raise OSError(errno.EBUSY, os.strerror(errno.EBUSY))
        rename(source, target)

    monkeypatch.setattr(os, "rename", refuse_the_root)
    load(repository, roots)
    assert read_tree(inductor) == INDUCTOR_FILES


def test_group_file_gets_the_paths_of_this_machine(packs: Packs, roots: list[CacheRoot]) -> None:
    repository = packs.repository()
    group = b'{"child_paths": {"kernel.cubin": "kernel.cubin"}}'
    repository.publish(
        io.BytesIO(packs.write({"triton/KEY/": {"__grp__kernel.json": group, "kernel.cubin": b"binary"}}))
    )
    load(repository, roots)
    kernel = roots[1].path / "KEY"
    placed = json.loads((kernel / "__grp__kernel.json").read_bytes())
    assert placed == {"child_paths": {"kernel.cubin": str(kernel / "kernel.cubin")}}


def test_units_come_from_the_latest_pack_that_holds_them(
    packs: Packs, repository: Repository, roots: list[CacheRoot], read_tree: ReadTree
) -> None:
    repository.publish(io.BytesIO(packs.write({"triton/KERNEL/": {"launcher.so": b"newer"}})))
    restored = load(repository, roots)
    assert read_tree(roots[1].path) == {"KERNEL/launcher.so": b"newer"}
    assert restored.packs == {pack.id for pack in repository.union().packs}


def test_nothing_is_placed_where_there_is_no_room(
    repository: Repository, roots: list[CacheRoot], inductor: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "statvfs", lambda _path: SimpleNamespace(f_bavail=1, f_frsize=4096, f_files=0))
    with pytest.raises(NoSpaceError, match="point TORCHINDUCTOR_CACHE_DIR at a larger file system") as raised:
        load(repository, roots)
    assert raised.value.free_bytes == 4096 < raised.value.needed_bytes
    assert os.listdir(inductor.parent) == []


def test_disk_that_fills_up_meanwhile_is_an_error_that_leaves_nothing(
    repository: Repository, roots: list[CacheRoot], inductor: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(staging, "write_files", fail)
    with pytest.raises(LocalCacheError, match="No space left on device"):
        load(repository, roots)
    assert os.listdir(inductor.parent) == []


@pytest.fixture(params=["in Python", "in C", "in C, beside"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """The ways in which files are written to staging."""
    way: str = request.param
    is_native = way != "in Python"
    monkeypatch.setattr(staging, "write_files", bulk.write_files if is_native else portable.write_files)
    monkeypatch.setattr(writing, "is_native", is_native)
    monkeypatch.setattr(writing, "has_idle_processor", lambda: way == "in C, beside")
    return way


@pytest.mark.usefixtures("way")
def test_files_of_any_size_are_restored(
    packs: Packs, roots: list[CacheRoot], inductor: Path, read_tree: ReadTree
) -> None:
    """Larger than a frame, and than several: those are continued, and must not be writable in the end."""
    sizes = [0, 1, 100_000, 2_000_000, 2_500_000, 7_000_000]
    files = {f"key{number}.so": os.urandom(size) for number, size in enumerate(sizes)}
    units = {f"inductor/ey/{name.partition('.')[0]}.": {"so": content} for name, content in files.items()}
    load(published(packs, packs.write(units, mode=0o444)), roots[:1])
    assert read_tree(inductor) == {f"ey/{name}": content for name, content in files.items()}
    assert {stat.S_IMODE((inductor / "ey" / name).stat().st_mode) for name in files} == {0o444}


@pytest.mark.usefixtures("way")
def test_pack_that_turns_out_damaged_leaves_nothing_in_staging(
    packs: Packs, roots: list[CacheRoot], inductor: Path, read_tree: ReadTree
) -> None:
    """Its first frames are being written when a later one is found to be wrong; an earlier one has one of its units."""
    noise = {f"inductor/ey/key{number}.": {"so": os.urandom(1_500_000)} for number in range(6)}
    older = packs.write({"inductor/ey/key0.": {"so": b"older"}})
    damaged = bytearray(packs.write(noise))
    damaged[5 * 1_500_000] ^= 1
    restored = load(published(packs, older, bytes(damaged)), roots[:1])
    assert len(restored.union.rejected) == 1
    assert read_tree(inductor) == {"ey/key0.so": b"older"}
    assert os.listdir(inductor.parent) == [inductor.name]


@pytest.mark.parametrize("batches", [1, 2])
def test_write_that_hangs_ends_with_the_deadline_and_goes_on_nowhere_else(
    packs: Packs, roots: list[CacheRoot], inductor: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, batches: int
) -> None:
    """Its tree's descriptor stays open: the next file that this process opens must not get the number.

    When it ends after all, it closes that and removes what it wrote.
    """
    goes_on, trees = threading.Event(), []

    def hang(tree: int, parts: Any, *options: int) -> None:
        trees.append(tree)
        goes_on.wait(60)
        portable.write_files(tree, parts, *options)

    monkeypatch.setattr(staging, "write_files", hang)
    monkeypatch.setattr(writing, "is_native", True)
    monkeypatch.setattr(writing, "has_idle_processor", lambda: True)
    monkeypatch.setattr(writing, "_BATCH_FILES", 1)
    noise = {f"inductor/ey/key{number}.": {"so": os.urandom(1_500_000 // batches)} for number in range(6)}
    repository, deadline = published(packs, packs.write(noise)), Deadline("load", 0.5)
    with pytest.raises(DeadlineExceededError):
        # As the public calls do it: if both threads hang they are left behind.
        run_within(deadline, lambda: load(repository, roots[:1], deadline))
    assert len(trees) == batches
    other = os.open(tmp_path, os.O_RDONLY)
    assert other not in trees
    os.close(other)
    goes_on.set()
    while os.listdir(inductor.parent) or opened_below(inductor.parent):
        time.sleep(0.01)


def test_nothing_is_placed_behind_the_deadline(repository: Repository, roots: list[CacheRoot], inductor: Path) -> None:
    deadline = Deadline("load", 60)
    deadline.cancel()
    with pytest.raises(DeadlineExceededError):
        load(repository, roots, deadline)
    assert os.listdir(inductor.parent) == []


def test_restoring_nothing_places_nothing(repository: Repository, roots: list[CacheRoot], inductor: Path) -> None:
    restored = restore(repository, repository.union(), [], roots, Deadline("load", 60))
    assert (restored.units, restored.files, restored.packs) == (0, 0, set())
    assert os.listdir(inductor.parent) == []


def test_empty_files_are_restored_wherever_they_lie(
    packs: Packs, roots: list[CacheRoot], fill: FillTree, inductor: Path, read_tree: ReadTree
) -> None:
    """Between files that are there already, so that their part of the pack is not needed."""
    noise = os.urandom(3_000_000)
    repository = packs.repository()
    repository.publish(
        io.BytesIO(
            packs.write(
                {
                    "inductor/ir/first.": {"so": b"first"},
                    "inductor/ar/large.": {"so": noise},
                    "inductor/mp/empty.": {"py": b""},
                    "inductor/ar/larger.": {"so": noise},
                    "inductor/as/last.": {"so": b"last"},
                    "inductor/in/final.": {"py": b""},
                }
            )
        )
    )
    fill(inductor, {"ar/large.so": b"local", "ar/larger.so": b"local"})
    load(repository, roots)
    assert read_tree(inductor) == {
        "ir/first.so": b"first",
        "ar/large.so": b"local",
        "mp/empty.py": b"",
        "ar/larger.so": b"local",
        "as/last.so": b"last",
        "in/final.py": b"",
    }
