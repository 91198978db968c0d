"""What is taken out of the local caches, and what is left for the next save."""

from __future__ import annotations

import errno
import io
import json
import logging
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from b10_transfer.adapters import ADAPTERS, CacheRoot
from b10_transfer.concurrency.deadline import Deadline
from b10_transfer.errors import LocalCacheError
from b10_transfer.local import snapshot, sources
from b10_transfer.local.bulk import portable
from b10_transfer.local.files import LocalUnit
from b10_transfer.local.snapshot import Packed, has_artifacts, lacking, take
from b10_transfer.pack import Member, PackUnit, PackWriter

if TYPE_CHECKING:
    from tests.conftest import FillTree, Packs

INDUCTOR, TRITON = (next(each for each in ADAPTERS if each.name == name) for name in ("inductor", "triton"))
KERNEL = {"KERNEL/kernel.cubin": b"binary", "KERNEL/launcher.so": b"library", "KERNEL/kernel.json": b"{}"}
GROUP = b'{"child_paths": {"kernel.cubin": "/gone/kernel.cubin"}}'


@pytest.fixture
def inductor(tmp_path: Path) -> CacheRoot:
    return CacheRoot(INDUCTOR, tmp_path / "inductor")


@pytest.fixture
def triton(tmp_path: Path) -> CacheRoot:
    return CacheRoot(TRITON, tmp_path / "triton")


def packed(packs: Packs, units: list[LocalUnit]) -> tuple[dict[str, bytes], int]:
    """The files that a save of these units publishes, and how many units it left out."""
    spool = io.BytesIO()
    with PackWriter(spool, packs.limits, Deadline("save", 60)) as writer:
        left_out = Packed()
        snapshot.pack(snapshot.in_order(units), writer, left_out)
        if left_out.unreadable and writer.is_empty:
            raise left_out.unreadable[0]
        writer.finish(packs.namespace, packs.environment)
    repository = packs.repository()
    repository.publish(spool)
    assert repository.union(verify_frames=True).rejected == ()
    return packs.read(repository), left_out.changed + len(left_out.unfit)


def found(*roots: CacheRoot) -> dict[str, list[str]]:
    units = take(roots, Deadline("save", 60)).units
    return {unit.name: [file.path for file in unit.files] for unit in units}


def test_files_are_grouped_into_units(inductor: CacheRoot, triton: CacheRoot, fill: FillTree) -> None:
    fill(
        inductor.path,
        {"ey/key.py": b"", "ey/key.main.so": b"library", "th/other.py": b"", "fxgraph/ra/graph/entry": b""},
    )
    fill(triton.path, {"KERNEL/launcher.so": b"", "KERNEL/other.so": b""})
    assert found(inductor, triton) == {
        "inductor/ey/key": ["ey/key.main.so", "ey/key.py"],
        "inductor/th/other": ["th/other.py"],
        "inductor/fxgraph/ra/graph": ["fxgraph/ra/graph/entry"],
        "triton/KERNEL": ["KERNEL/launcher.so", "KERNEL/other.so"],
    }


def test_what_is_no_artifact_is_not_taken(inductor: CacheRoot, fill: FillTree, tmp_path: Path) -> None:
    fill(tmp_path, {"elsewhere": b"secret"})
    fill(inductor.path, {"ey/key.py": b"", "aa/.1.2.tmp": b"", "locks/key.lock": b"", "aa/__pycache__/key.pyc": b""})
    (inductor.path / "aa" / "link.py").symlink_to(tmp_path / "elsewhere")
    (inductor.path / "bb").symlink_to(tmp_path)
    os.mkfifo(inductor.path / "aa" / "pipe.py")
    (inductor.path / "cc").mkdir()
    assert found(inductor) == {"inductor/ey/key": ["ey/key.py"]}


def test_unfinished_units_are_counted_and_left(inductor: CacheRoot, triton: CacheRoot, fill: FillTree) -> None:
    fill(inductor.path, {"ey/key.main.cpp": b"", "on/done.py": b""})
    fill(triton.path, {"KERNEL/kernel.ttir": b""})
    taken = take([inductor, triton], Deadline("save", 60))
    assert [unit.name for unit in taken.units] == ["inductor/on/done"]
    assert taken.incomplete == 2


def test_roots_that_do_not_exist_hold_nothing(inductor: CacheRoot, triton: CacheRoot) -> None:
    assert found(inductor, triton) == {}
    assert not has_artifacts(inductor)


def test_nested_root_is_left_to_itself(inductor: CacheRoot, triton: CacheRoot, fill: FillTree) -> None:
    nesting = CacheRoot(INDUCTOR, inductor.path, (inductor.path / "kernels",))
    fill(inductor.path, {"ey/key.py": b"", "kernels/KERNEL/launcher.so": b""})
    assert found(nesting) == {"inductor/ey/key": ["ey/key.py"]}


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, False),
        ({"locks/key.lock": b"", "aa/.1.tmp": b"", "precompiled_headers/x.gch": b""}, False),
        ({".b10-lock": b"", ".b10-staging-0/ey/key.py": b""}, False),
        ({"ey/key.py": b""}, True),
        ({"ey/key.main.cpp": b""}, False),
    ],
)
def test_root_has_artifacts_once_a_compiler_wrote_any(
    inductor: CacheRoot, fill: FillTree, files: dict[str, bytes], expected: bool
) -> None:
    fill(inductor.path, files)
    assert has_artifacts(inductor) is expected


def test_folders_alone_are_no_artifacts(inductor: CacheRoot) -> None:
    (inductor.path / "aa" / "bb").mkdir(parents=True)
    assert not has_artifacts(inductor)


@pytest.mark.parametrize("name", ["ümlaut", "back\\slash"])
def test_unit_whose_name_packs_do_not_hold_is_left_out_with_a_warning(
    inductor: CacheRoot, fill: FillTree, caplog: pytest.LogCaptureFixture, name: str
) -> None:
    fill(inductor.path, {f"dynamo/code_state_{name}.pkl": b"", "ey/key.py": b""})
    assert found(inductor) == {"inductor/ey/key": ["ey/key.py"]}
    [record] = caplog.records
    assert record.levelno == logging.WARNING
    assert "is not saved" in record.getMessage()


def test_root_that_cannot_be_read_is_named_with_the_reason(
    inductor: CacheRoot, fill: FillTree, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_path: object) -> None:
        raise PermissionError(13, "Permission denied")

    fill(inductor.path, {"ey/key.py": b""})
    monkeypatch.setattr(os, "scandir", refuse)
    taken = take([inductor], Deadline("save", 60))
    assert taken.units == ()
    assert re.search(r"could not list .*inductor.*: Permission denied", str(taken.failed["inductor"]))


# Which units a store lacks


def stored(name: str, *paths: str) -> dict[str, PackUnit]:
    members = tuple(Member(f"{name}{path}", 5, 0o644, 1, 0, "0" * 64) for path in paths)
    return {name: PackUnit(name, "stem", members)}


@pytest.mark.parametrize(
    ("paths", "is_lacking"),
    [
        ([".py", ".main.cpp", ".main.so"], False),
        ([".py", ".main.cpp"], True),
        ([".py"], True),
        ([".py", ".main.cpp", ".main.so", ".best_config"], False),
        ([".py", ".best_config"], False),
        ([".other"], False),
    ],
    ids=["the same", "more", "much more", "fewer", "others", "none of them"],
)
def test_store_lacks_a_unit_that_has_all_its_files_and_more(
    inductor: CacheRoot, fill: FillTree, paths: list[str], is_lacking: bool
) -> None:
    fill(inductor.path, {f"ey/key{end}": b"local" for end in (".py", ".main.cpp", ".main.so")})
    units = take([inductor], Deadline("save", 60)).units
    assert bool(lacking(units, stored("inductor/ey/key", *paths))) is is_lacking


def test_store_lacks_a_unit_that_it_does_not_know(inductor: CacheRoot, fill: FillTree) -> None:
    fill(inductor.path, {"ey/key.py": b"", "th/other.py": b""})
    units = take([inductor], Deadline("save", 60)).units
    assert [unit.name for unit in lacking(units, stored("inductor/ey/key", ".py"))] == ["inductor/th/other"]


def test_content_does_not_make_a_unit_new(inductor: CacheRoot, fill: FillTree) -> None:
    """Artifacts are named by what went into them; their bytes hold timings."""
    fill(inductor.path, {"ey/key.py": b"a content of another length"})
    assert lacking(take([inductor], Deadline("save", 60)).units, stored("inductor/ey/key", ".py")) == []


# Packing while a compiler writes


def test_units_are_packed_as_they_lie(packs: Packs, inductor: CacheRoot, triton: CacheRoot, fill: FillTree) -> None:
    fill(inductor.path, {"ey/key.py": b"source"})
    fill(triton.path, {"KERNEL/launcher.so": b"library", "KERNEL/empty.so": b""})
    units = take([inductor, triton], Deadline("save", 60)).units
    assert packed(packs, list(units)) == (
        {"inductor/ey/key.py": b"source", "triton/KERNEL/launcher.so": b"library", "triton/KERNEL/empty.so": b""},
        0,
    )


def test_modes_and_times_are_kept(packs: Packs, inductor: CacheRoot, fill: FillTree) -> None:
    fill(inductor.path, {"ey/key.so": b"library"})
    os.chmod(inductor.path / "ey" / "key.so", 0o4755)
    os.utime(inductor.path / "ey" / "key.so", ns=(5, 1_700_000_000_123_456_789))
    spool = io.BytesIO()
    with PackWriter(spool, packs.limits, Deadline("save", 60)) as writer:
        snapshot.pack(snapshot.in_order(take([inductor], Deadline("save", 60)).units), writer, Packed())
        index = writer.finish(packs.namespace, packs.environment)
    [member] = index.units[0].members
    assert (member.mode, member.mtime_ns) == (0o755, 1_700_000_000_123_456_789)


def test_group_file_is_packed_without_paths_of_this_machine(packs: Packs, triton: CacheRoot, fill: FillTree) -> None:
    fill(triton.path, {**KERNEL, "KERNEL/__grp__kernel.json": GROUP})
    files, changed = packed(packs, list(take([triton], Deadline("save", 60)).units))
    assert files["triton/KERNEL/__grp__kernel.json"] == b'{"child_paths": {"kernel.cubin": "kernel.cubin"}}'
    assert changed == 0


@pytest.mark.parametrize("content", [b"", b"{}", b"rubbish", GROUP.replace(b"kernel.cubin", b"missing.cubin")])
def test_unit_whose_group_file_is_not_sound_is_left_out(
    packs: Packs, triton: CacheRoot, fill: FillTree, content: bytes
) -> None:
    fill(triton.path, {**KERNEL, "KERNEL/__grp__kernel.json": content, "SOUND/launcher.so": b"library"})
    units = list(take([triton], Deadline("save", 60)).units)
    assert packed(packs, units) == ({"triton/SOUND/launcher.so": b"library"}, 1)


Change = Callable[[Path], object]


def turn_into_link(path: Path) -> None:
    os.unlink(path / "launcher.so")
    (path / "launcher.so").symlink_to("other.so")


CHANGES: dict[str, Change] = {
    "rewritten": lambda path: (path / "launcher.so").write_bytes(b"rewritten"),
    "rewritten to the same size": lambda path: (path / "launcher.so").write_bytes(b"LIBRARY"),
    "replaced": lambda path: os.replace(path / "other.so", path / "launcher.so"),
    "grown": lambda path: (path / "launcher.so").write_bytes(bytes(9_000_000)),
    "cut": lambda path: os.truncate(path / "launcher.so", 3),
    "emptied": lambda path: os.truncate(path / "launcher.so", 0),
    "removed": lambda path: os.unlink(path / "launcher.so"),
    "a link": turn_into_link,
    "one more file": lambda path: (path / "more.so").write_bytes(b"more"),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_unit_that_changed_since_it_was_found_is_left_out(
    packs: Packs, triton: CacheRoot, fill: FillTree, change: Change
) -> None:
    fill(triton.path, {"KERNEL/launcher.so": b"library", "KERNEL/other.so": b"LIBRARY", "SOUND/launcher.so": b"sound"})
    units = list(take([triton], Deadline("save", 60)).units)
    change(triton.path / "KERNEL")
    assert packed(packs, units) == ({"triton/SOUND/launcher.so": b"sound"}, 1)


def test_folder_that_vanished_since_it_was_found_is_left_out(packs: Packs, triton: CacheRoot, fill: FillTree) -> None:
    fill(triton.path, {"KERNEL/launcher.so": b"library", "SOUND/launcher.so": b"sound"})
    units = list(take([triton], Deadline("save", 60)).units)
    os.rename(triton.path / "KERNEL", triton.path.parent / "gone")
    assert packed(packs, units) == ({"triton/SOUND/launcher.so": b"sound"}, 1)


@pytest.mark.parametrize("error", [errno.ENOENT, errno.ENOTDIR])
def test_folder_that_vanishes_behind_its_files_is_left_out(
    packs: Packs, triton: CacheRoot, fill: FillTree, monkeypatch: pytest.MonkeyPatch, error: int
) -> None:
    fill(triton.path, {"KERNEL/launcher.so": b"library", "SOUND/launcher.so": b"sound"})
    units = list(take([triton], Deadline("save", 60)).units)
    refuse_listing(monkeypatch, triton.path / "KERNEL", error)
    assert packed(packs, units) == ({"triton/SOUND/launcher.so": b"sound"}, 1)


def test_folder_that_cannot_be_listed_is_an_error_that_names_it(
    packs: Packs, triton: CacheRoot, fill: FillTree, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(triton.path, {"KERNEL/launcher.so": b"library"})
    units = list(take([triton], Deadline("save", 60)).units)
    refuse_listing(monkeypatch, triton.path / "KERNEL", errno.EIO)
    with pytest.raises(LocalCacheError, match=r"triton/KERNEL.*Input/output error"):
        packed(packs, units)


def refuse_listing(monkeypatch: pytest.MonkeyPatch, folder: Path, error: int) -> None:
    listdir = os.listdir
    refused = os.stat(folder)

    def refuse(path: int) -> list[str]:
        if os.path.samestat(os.fstat(path), refused):
            raise OSError(error, os.strerror(error))
        return listdir(path)

    monkeypatch.setattr(os, "listdir", refuse)


@pytest.mark.parametrize("change", ["grown", "cut", "rewritten"])
def test_file_that_changes_while_it_is_read_is_left_out_and_harms_no_other(
    packs: Packs, triton: CacheRoot, fill: FillTree, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    fill(triton.path, {"AAAA/launcher.so": b"sound" * 1000, "KERNEL/launcher.so": b"library" * 1000})
    units = list(take([triton], Deadline("save", 60)).units)
    target = os.stat(triton.path / "KERNEL" / "launcher.so")
    readv = os.readv
    changed: list[bool] = []

    def read(descriptor: int, buffers: Any) -> int:
        if os.path.samestat(os.fstat(descriptor), target) and not changed:
            changed.append(True)
            CHANGES[change](triton.path / "KERNEL")
        return readv(descriptor, buffers)

    monkeypatch.setattr(os, "readv", read)
    monkeypatch.setattr(sources, "read_files", portable.read_files)
    assert packed(packs, units) == ({"triton/AAAA/launcher.so": b"sound" * 1000}, 1)
    assert changed


@pytest.mark.parametrize("name", ["kernel.cubin", "__grp__kernel.json"])
def test_file_that_cannot_be_read_is_an_error_and_no_change(
    packs: Packs, triton: CacheRoot, fill: FillTree, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """A disk that fails: the next save would not find it any better."""
    group = json.dumps({"child_paths": {"kernel.cubin": f"{triton.path}/KERNEL/kernel.cubin"}}).encode()
    fill(triton.path, {"KERNEL/kernel.cubin": b"binary", "KERNEL/__grp__kernel.json": group})
    units = list(take([triton], Deadline("save", 60)).units)
    failing = os.stat(triton.path / "KERNEL" / name)
    readv = os.readv

    def read(descriptor: int, buffers: Any) -> int:
        if os.path.samestat(os.fstat(descriptor), failing):
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return readv(descriptor, buffers)

    monkeypatch.setattr(os, "readv", read)
    monkeypatch.setattr(sources, "read_files", portable.read_files)
    with pytest.raises(LocalCacheError, match="Input/output error"):
        packed(packs, units)


def test_what_is_no_artifact_does_not_make_a_unit_changed(packs: Packs, triton: CacheRoot, fill: FillTree) -> None:
    """As Triton leaves it behind, and as a save finds it each time again."""
    fill(triton.path, {"KERNEL/launcher.so": b"library", "KERNEL/tmp.pid_1_ab/kernel.ptx": b"", "KERNEL/lock": b""})
    (triton.path / "KERNEL" / "empty").mkdir()
    (triton.path / "KERNEL" / "link").symlink_to("launcher.so")
    units = list(take([triton], Deadline("save", 60)).units)
    assert packed(packs, units) == ({"triton/KERNEL/launcher.so": b"library"}, 0)


def test_order_in_which_units_were_found_does_not_matter(packs: Packs, triton: CacheRoot, fill: FillTree) -> None:
    fill(triton.path, {f"KERNEL{number}/launcher.so": bytes(number) for number in range(9)})
    units = take([triton], Deadline("save", 60)).units
    spools = []
    for order in (units, units[::-1]):
        spool = io.BytesIO()
        with PackWriter(spool, packs.limits, Deadline("save", 60)) as writer:
            snapshot.pack(snapshot.in_order(order), writer, Packed())
            writer.finish(packs.namespace, packs.environment)
        spools.append(spool.getvalue())
    assert spools[0] == spools[1]
