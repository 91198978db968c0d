"""Packs that were damaged, or made to do harm: none yields wrong content, an unforeseen error or a file elsewhere."""

from __future__ import annotations

import copy
import dataclasses
import hashlib
import io
import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from b10_transfer.adapters import ADAPTERS, CacheRoot
from b10_transfer.concurrency.deadline import Deadline
from b10_transfer.environment import Environment
from b10_transfer.errors import CorruptPackError, PackError, PackTooLargeError, UnsupportedPackError
from b10_transfer.local.placing import Restored
from b10_transfer.local.presence import missing
from b10_transfer.local.restore import restore
from b10_transfer.pack import Index, Limits, trailer
from b10_transfer.pack.trailer import FOOTER_BYTES
from b10_transfer.pack.zstd import pack_frame
from b10_transfer.repository.repository import ReadRepository, Repository
from b10_transfer.stores.directory import DirectoryStore
from b10_transfer.testing.memory import MemoryStore

if TYPE_CHECKING:
    from tests.conftest import Packs, ReadTree

UNITS = {
    "inductor/ey/key.": {"py": b"def call(): ...", "so.load_ok": b""},
    "triton/KERNEL/": {"kernel.cubin": b"\x7fELF binary", "kernel.json": b"{}"},
}
CONTENT = {prefix + suffix: data for prefix, files in UNITS.items() for suffix, data in files.items()}
ID = "018bcfe56800-0123456789abcdef"
LATER_ID = "018bcfe56801-0123456789abcdef"


@pytest.fixture(scope="module")
def sound(packs: Packs) -> bytes:
    return packs.write(UNITS)


def store_with(packs: Packs, pack: bytes, pack_id: str = ID) -> MemoryStore:
    store = MemoryStore()
    store.create(f"v1/{packs.namespace}/{packs.environment.id}/packs/{pack_id}.tar.zst", io.BytesIO(pack))
    return store


def repository_with(packs: Packs, pack: bytes) -> Repository:
    return packs.repository(store_with(packs, pack))


def assert_harmless(packs: Packs, repository: Repository) -> None:
    """A load rejects the pack or reads the published bytes; a save, which verifies every byte, rejects it."""
    try:
        found = packs.read(repository)
    except PackError:
        found = {}
    assert found in ({}, CONTENT)
    survey = repository.union(verify_frames=True)
    assert survey.packs == ()
    assert [pack.id for pack in survey.rejected] == [ID]


def load(repository: ReadRepository, folder: Path) -> Restored:
    """Restore all there is to new cache roots in ``folder``."""
    roots = [CacheRoot(adapter, folder / adapter.name) for adapter in ADAPTERS]
    union = repository.union()
    return restore(repository, union, missing(union.units, roots), roots, Deadline("load", 60))


# Damage


@pytest.mark.parametrize("flip", [0xFF, 0x01], ids=["all bits", "lowest bit"])
def test_change_of_any_one_byte_is_noticed(packs: Packs, sound: bytes, flip: int) -> None:
    for position in range(len(sound)):
        damaged = bytearray(sound)
        damaged[position] ^= flip
        assert_harmless(packs, repository_with(packs, bytes(damaged)))


def test_truncation_at_any_length_is_noticed(packs: Packs, sound: bytes) -> None:
    for length in range(len(sound)):
        assert_harmless(packs, repository_with(packs, sound[:length]))


@pytest.mark.parametrize("end", [b"\0", b"x" * 1000, bytes(FOOTER_BYTES)], ids=["zero byte", "text", "zero footer"])
def test_appended_bytes_are_noticed(packs: Packs, sound: bytes, end: bytes) -> None:
    assert_harmless(packs, repository_with(packs, sound + end))
    assert_harmless(packs, repository_with(packs, end + sound))


def test_hole_of_zeros_is_noticed_wherever_it_is(packs: Packs, sound: bytes) -> None:
    """As a machine leaves it that lost power while it wrote."""
    for start in range(0, len(sound) - 64, 16):
        assert_harmless(packs, repository_with(packs, sound[:start] + bytes(64) + sound[start + 64 :]))


@given(st.data())
@settings(max_examples=200)
def test_any_other_damage_is_noticed(packs: Packs, sound: bytes, data: st.DataObject) -> None:
    start = data.draw(st.integers(0, len(sound)))
    end = data.draw(st.integers(start, len(sound)))
    filling = data.draw(st.one_of(st.binary(max_size=100), st.just(sound), st.just(sound[start:end][::-1])))
    damaged = sound[:start] + filling + sound[end:]
    if damaged != sound:
        assert_harmless(packs, repository_with(packs, damaged))


@given(st.binary(max_size=400))
def test_random_bytes_are_no_pack(packs: Packs, data: bytes) -> None:
    assert_harmless(packs, repository_with(packs, data))


@pytest.mark.parametrize("cut", [0, 1, 100, FOOTER_BYTES], ids="{} bytes left".format)
def test_damaged_file_of_a_directory_store_is_ignored(packs: Packs, sound: bytes, tmp_path: Path, cut: int) -> None:
    repository = packs.repository(DirectoryStore(tmp_path / "store"))
    pack_id = repository.publish(io.BytesIO(sound))
    assert packs.read(repository) == CONTENT
    [file] = (tmp_path / "store").glob(f"v1/*/*/packs/{pack_id}.tar.zst")
    file.write_bytes(sound[:cut])
    assert repository.union().units == {}
    assert [pack.id for pack in repository.union().rejected] == [pack_id]


def test_pack_of_another_environment_is_rejected(packs: Packs, sound: bytes) -> None:
    other = Environment({"torch": "2.12.0", "machine": "x86_64"})
    store = MemoryStore()
    store.create(f"v1/{packs.namespace}/{other.id}/packs/{ID}.tar.zst", io.BytesIO(sound))
    repository = ReadRepository(store, packs.namespace, other, packs.limits, Deadline("read", 60))
    [rejected] = repository.union().rejected
    assert isinstance(rejected.error, CorruptPackError)
    assert packs.environment.id in str(rejected.error)


def test_pack_of_another_namespace_is_rejected(packs: Packs, sound: bytes) -> None:
    store = MemoryStore()
    store.create(f"v1/other/{packs.environment.id}/packs/{ID}.tar.zst", io.BytesIO(sound))
    repository = ReadRepository(store, "other", packs.environment, packs.limits, Deadline("read", 60))
    [rejected] = repository.union().rejected
    assert isinstance(rejected.error, CorruptPackError)
    assert "'default'" in str(rejected.error)


def test_frames_of_one_pack_do_not_go_with_the_index_of_another(packs: Packs, sound: bytes) -> None:
    other = packs.write({**UNITS, "inductor/ey/key.": {"py": b"def evil(): ...", "so.load_ok": b""}})
    frames = json.loads(packs.index_of(sound))["frames"]
    other_frames = json.loads(packs.index_of(other))["frames"]
    length, other_length = (sum(frame[0] for frame in listed) for listed in (frames, other_frames))
    spliced = other[:other_length] + sound[length:]
    assert_harmless(packs, repository_with(packs, spliced))


def test_damage_that_only_shows_on_reading_leaves_nothing_of_the_pack(
    packs: Packs, sound: bytes, tmp_path: Path, read_tree: ReadTree
) -> None:
    damaged = bytearray(sound)
    damaged[20] ^= 1
    restored = load(repository_with(packs, bytes(damaged)), tmp_path)
    assert restored.units == 0
    assert [pack.id for pack in restored.union.rejected] == [ID]
    assert read_tree(tmp_path) == {}


def test_damaged_packs_units_come_from_an_earlier_pack(
    packs: Packs, sound: bytes, tmp_path: Path, read_tree: ReadTree
) -> None:
    store = store_with(packs, packs.write({"triton/KERNEL/": {"kernel.cubin": b"earlier"}}))
    damaged = bytearray(sound)
    damaged[20] ^= 1
    store.create(f"v1/{packs.namespace}/{packs.environment.id}/packs/{LATER_ID}.tar.zst", io.BytesIO(bytes(damaged)))
    restored = load(packs.repository(store), tmp_path)
    assert [pack.id for pack in restored.union.rejected] == [LATER_ID]
    assert read_tree(tmp_path) == {"triton/KERNEL/kernel.cubin": b"earlier"}


# Indexes of an attacker, with correct digests: values of the sound pack's index are changed.

Change = Callable[[dict[str, Any]], object]


def stem(path: Any, members: list[Any] | None = None) -> dict[str, Any]:
    """A unit that is one file, whose path is its name: only the path's own rules speak against it."""
    return {"name": path, "kind": "stem", "members": [member(path)] if members is None else members}


def member(path: Any, size: Any = 0, mode: Any = 0o644, mtime_ns: Any = 0, offset: Any = 0) -> list[Any]:
    return [path, size, mode, mtime_ns, offset, "0" * 64]


PATHS: list[Any] = [
    "",
    "/",
    "/etc/passwd",
    "//etc/passwd",
    "..",
    "../inductor/aa",
    "inductor",
    "inductor/",
    "inductor//aa",
    "inductor/aa/",
    "inductor/.",
    "inductor/./aa",
    "inductor/..",
    "inductor/../../etc/passwd",
    "inductor/aa/../../../etc/passwd",
    "inductor/aa\\bb",
    "inductor/..\\..\\aa",
    "inductor/aa\0bb",
    "inductor/aa\nbb",
    "inductor/aa\x7fbb",
    "inductor/aa\x1b[2J",
    "inductor/\u00e9t\u00e9",
    "inductor/\u202eaa",
    "inductor/\ud800",
    "inductor/ aa",
    "inductor/aa ",
    "inductor/" + "a" * 256,
    "inductor/" + "a/" * 600 + "a",
    "evil/aa",
    "Inductor/aa",
    "C:/aa",
    None,
    True,
    5,
    ["inductor/aa"],
    {"inductor": "aa"},
]


@pytest.fixture
def harmless(
    packs: Packs, sound: bytes, tmp_path: Path, read_tree: ReadTree
) -> Callable[[bytes, type[PackError]], PackError]:
    """Checks that a pack with a given index is rejected in the way given, and that a load writes nothing."""

    def check(index: bytes, kind: type[PackError]) -> PackError:
        repository = repository_with(packs, packs.with_index(sound, index))
        restored = load(repository, tmp_path / "roots")
        assert restored.units == 0
        [rejected] = restored.union.rejected
        assert isinstance(rejected.error, kind)
        assert rejected.id == rejected.error.pack == ID
        assert read_tree(tmp_path) == {}
        return rejected.error

    return check


Harmless = Callable[[bytes, type[PackError]], PackError]


@pytest.fixture
def refused(packs: Packs, sound: bytes, harmless: Harmless) -> Callable[[Change], PackError]:
    """Checks that a pack counts as corrupt after a change to its index."""

    def check(change: Change) -> PackError:
        document = json.loads(packs.index_of(sound))
        change(document)
        return harmless(json.dumps(document).encode(), CorruptPackError)

    return check


Refused = Callable[[Change], PackError]


def test_sound_pack_passes_the_same_way(packs: Packs, sound: bytes, tmp_path: Path, read_tree: ReadTree) -> None:
    """Without this, the tests below could pass for the wrong reason."""
    same = packs.with_index(sound, json.dumps(json.loads(packs.index_of(sound))).encode())
    assert load(repository_with(packs, same), tmp_path).units == 2
    # (Nothing here is a Triton group file, which would be rewritten.)
    assert read_tree(tmp_path) == CONTENT


def test_units_added_to_the_index_of_a_sound_pack_are_read(packs: Packs, sound: bytes, tmp_path: Path) -> None:
    """Without this, the tests of paths below could pass for the wrong reason."""
    document = json.loads(packs.index_of(sound))
    document["units"].append(stem("inductor/no/another", [member("inductor/no/another.py")]))
    assert load(repository_with(packs, packs.with_index(sound, json.dumps(document).encode())), tmp_path).units == 3


@pytest.mark.parametrize("path", PATHS, ids=lambda path: ascii(path)[:40])
def test_path_that_is_not_plain_is_refused(refused: Refused, path: Any) -> None:
    refused(lambda document: document["units"].append(stem(path)))


BELOW_A_FOLDER = [
    path for path in PATHS if isinstance(path, str) and path not in ("inductor", "evil/aa", "Inductor/aa", "C:/aa")
]


@pytest.mark.parametrize("path", BELOW_A_FOLDER, ids=lambda path: ascii(path)[:40])
def test_file_whose_path_is_not_plain_is_refused_in_a_unit_whose_name_is(refused: Refused, path: str) -> None:
    unit = {"name": "inductor/unit", "kind": "folder", "members": [member(f"inductor/unit/{path}")]}
    refused(lambda document: document["units"].append(unit))


@pytest.mark.parametrize(
    ("kind", "name", "path"),
    [
        ("folder", "inductor/unit", "inductor/unit"),
        ("folder", "inductor/unit", "inductor/unit.py"),
        ("folder", "inductor/unit", "inductor/units/file"),
        ("folder", "inductor/unit", "triton/unit/file"),
        ("folder", "inductor/unit", "inductor/file"),
        ("stem", "inductor/unit", "inductor/unit/file"),
        ("stem", "inductor/unit", "inductor/unit.d/file"),
        ("stem", "inductor/unit", "inductor/units.py"),
        ("stem", "inductor/unit", "inductor/file"),
        ("stem", "inductor/unit", "inductor"),
    ],
)
def test_file_outside_its_unit_is_refused(refused: Refused, kind: str, name: str, path: str) -> None:
    refused(lambda document: document["units"].append({"name": name, "kind": kind, "members": [member(path)]}))


@pytest.mark.parametrize("kind", ["link", "device", "FOLDER", "", None, True, [], {}, 5], ids=repr)
def test_unknown_kind_of_unit_is_refused(refused: Refused, kind: Any) -> None:
    refused(lambda document: document["units"][0].update(kind=kind))


@pytest.mark.parametrize("origin", ["x", "../x", None, 5, [], ID, "ffffffffffff-0123456789abcdef"], ids=repr)
def test_origin_that_is_no_earlier_pack_is_refused(refused: Refused, origin: Any) -> None:
    """Otherwise an old pack could pass for the latest."""
    refused(lambda document: document["units"][0].update(origin=origin))


def test_unit_without_files_is_refused(refused: Refused) -> None:
    refused(lambda document: document["units"].append(stem("inductor/unit", [])))


@pytest.mark.parametrize("name", ["triton/KERNEL", "triton/kernel", "triton/Kernel"])
def test_duplicate_unit_is_refused_in_any_case(refused: Refused, name: str) -> None:
    unit = {"name": name, "kind": "folder", "members": [member(f"{name}/other")]}
    refused(lambda document: document["units"].append(unit))


@pytest.mark.parametrize("path", ["triton/KERNEL/kernel.cubin", "triton/KERNEL/Kernel.CUBIN"])
def test_duplicate_file_is_refused_in_any_case(refused: Refused, path: str) -> None:
    refused(lambda document: document["units"][1]["members"].append(member(path)))


def test_folders_that_differ_by_case_alone_are_refused(refused: Refused) -> None:
    unit = {"name": "inductor/bb", "kind": "folder", "members": [member("inductor/bb/c/x"), member("inductor/bb/C/y")]}
    refused(lambda document: document["units"].append(unit))


def test_folders_above_units_that_differ_by_case_alone_are_refused(refused: Refused) -> None:
    refused(lambda document: document["units"].append(stem("inductor/EY/other")))


@pytest.mark.parametrize("path", ["triton/KERNEL/kernel.cubin/x", "triton/KERNEL/KERNEL.cubin/x"])
def test_path_that_is_both_file_and_folder_is_refused(refused: Refused, path: str) -> None:
    refused(lambda document: document["units"][1]["members"].append(member(path)))


def test_file_of_one_unit_that_is_a_folder_of_another_is_refused(refused: Refused) -> None:
    refused(lambda document: document["units"].append(stem("inductor/ey/key.py/x")))


@pytest.mark.parametrize("name", ["triton/KERNEL/deeper", "triton/kernel/deeper", "triton/KERNEL/deeper/still"])
def test_unit_inside_another_is_refused(refused: Refused, name: str) -> None:
    refused(lambda document: document["units"].append(stem(name)))


def test_unit_around_others_is_refused(refused: Refused) -> None:
    unit = {"name": "inductor/aa", "kind": "folder", "members": [member("inductor/th/other")]}
    refused(lambda document: document["units"].append(unit))


@pytest.mark.parametrize(
    ("unit", "kind", "path"),
    [
        ("inductor/aa", "folder", "inductor/ey/key.py"),
        ("inductor/fxgraph", "folder", "inductor/fxgraph/ey/key/graph"),
        ("inductor/aotautograd/key/graph", "stem", "inductor/aotautograd/key/graph"),
        ("triton/KEY/kernel", "stem", "triton/KEY/kernel.cubin"),
    ],
)
def test_unit_that_its_adapter_would_not_make_is_refused(refused: Refused, unit: str, kind: str, path: str) -> None:
    """Units that different packs hold would otherwise be in each other's way."""
    refused(lambda document: document.update(units=[{"name": unit, "kind": kind, "members": [member(path)]}]))


@pytest.mark.parametrize(
    ("unit", "kind", "path"),
    [
        ("inductor/locks/key", "stem", "inductor/locks/key.lock"),
        ("inductor/precompiled_headers", "folder", "inductor/precompiled_headers/header.gch"),
        ("inductor/.b10-staging-0", "folder", "inductor/.b10-staging-0/file"),
        ("inductor/job/credentials", "stem", "inductor/job/credentials.json"),
        ("inductor/fxgraph/ra/graph", "folder", "inductor/fxgraph/ra/graph/token"),
        ("triton/huggingface", "folder", "triton/huggingface/token"),
        ("triton/KEY/deeper", "folder", "triton/KEY/deeper/kernel.cubin"),
        ("triton/KEY", "folder", "triton/KEY/kernel.lock"),
        ("triton/KEY", "folder", "triton/KEY/config.json"),
    ],
)
def test_unit_that_no_compiler_writes_is_ignored(
    packs: Packs, sound: bytes, tmp_path: Path, read_tree: ReadTree, unit: str, kind: str, path: str
) -> None:
    document = json.loads(packs.index_of(sound))
    document["units"].append({"name": unit, "kind": kind, "members": [member(path)]})
    repository = repository_with(packs, packs.with_index(sound, json.dumps(document).encode()))
    assert repository.union(verify_frames=True).units.keys() == {"inductor/ey/key", "triton/KERNEL"}
    load(repository, tmp_path)
    assert read_tree(tmp_path) == CONTENT


@pytest.mark.parametrize(
    "path",
    ["triton/KERNEL/kernel.cubin", "triton/KERNEL/kernel.cubin/deeper", "triton/KERNEL", "inductor/ey/key.py/deeper"],
)
def test_conflicting_pack_does_not_harm_another(
    packs: Packs, sound: bytes, tmp_path: Path, read_tree: ReadTree, path: str
) -> None:
    document = json.loads(packs.index_of(sound))
    document["units"] = [stem(path)]
    store = store_with(packs, sound)
    hostile = packs.with_index(sound, json.dumps(document).encode())
    store.create(f"v1/{packs.namespace}/{packs.environment.id}/packs/{LATER_ID}.tar.zst", io.BytesIO(hostile))
    load(packs.repository(store), tmp_path)
    assert read_tree(tmp_path) == CONTENT


@pytest.mark.parametrize(
    "root", ["", "..", "/", "a/b", "Inductor", "1a", "a" * 33, "a\n", None, 5, ["inductor"]], ids=repr
)
def test_root_whose_name_is_not_plain_is_refused(refused: Refused, root: Any) -> None:
    refused(lambda document: document["roots"].append(root))


@pytest.mark.parametrize("roots", [[], ["inductor"], ["triton"]], ids=str)
def test_unit_outside_the_roots_is_refused(refused: Refused, roots: list[str]) -> None:
    refused(lambda document: document.update(roots=roots))


def test_units_of_a_cache_that_this_version_does_not_know_are_ignored(
    packs: Packs, sound: bytes, tmp_path: Path
) -> None:
    document = json.loads(packs.index_of(sound))
    units = {unit["name"] for unit in document["units"]}
    document["roots"].append("jitless")
    document["units"].append(stem("jitless/cache"))
    repository = repository_with(packs, packs.with_index(sound, json.dumps(document).encode()))
    restored = load(repository, tmp_path / "roots")
    assert set(restored.names) == units
    assert restored.union.rejected == ()
    assert not (tmp_path / "roots" / "jitless").exists()


def test_pack_of_caches_that_this_version_does_not_know_is_left_alone(
    packs: Packs, sound: bytes, harmless: Harmless
) -> None:
    document = json.loads(packs.index_of(sound))
    document.update(roots=["jitless"], units=[stem("jitless/cache")])
    error = harmless(json.dumps(document).encode(), UnsupportedPackError)
    assert "jitless" in str(error)


NO_NUMBERS: list[Any] = [-1, 1.0, 0.5, True, None, "1", [1], {}, 1 << 62 | 1, 10**30, float("nan"), float("inf")]
MEMBER_FIELDS = {"size": 1, "mode": 2, "mtime": 3, "offset": 4}


@pytest.mark.parametrize("field", MEMBER_FIELDS)
@pytest.mark.parametrize("value", NO_NUMBERS, ids=repr)
def test_number_of_a_file_that_is_none_is_refused(refused: Refused, field: str, value: Any) -> None:
    if field == "mtime" and value == -1:
        value = -(1 << 62) - 1  # before 1970 is fine
    refused(lambda document: document["units"][0]["members"][0].__setitem__(MEMBER_FIELDS[field], value))


@pytest.mark.parametrize("mode", [0o4755, 0o2755, 0o1777, 0o100644, 0o120777, 1 << 40], ids=oct)
def test_mode_with_more_than_permissions_is_refused(refused: Refused, mode: int) -> None:
    refused(lambda document: document["units"][0]["members"][0].__setitem__(2, mode))


@pytest.mark.parametrize("digest", ["", "0" * 63, "0" * 65, "A" * 64, "g" * 64, "0" * 64 + "\n", None, 0, []], ids=repr)
def test_digest_that_is_none_is_refused(refused: Refused, digest: Any) -> None:
    refused(lambda document: document["units"][0]["members"][0].__setitem__(5, digest))
    refused(lambda document: document["frames"][0].__setitem__(2, digest))


def test_files_that_overlap_are_refused(refused: Refused) -> None:
    def overlap(document: dict[str, Any]) -> None:
        first, second = document["units"][1]["members"]
        second[4] = first[4] + 1

    refused(overlap)


def test_file_that_grows_into_the_next_is_refused(refused: Refused) -> None:
    def grow(document: dict[str, Any]) -> None:
        first, second = sorted(document["units"][1]["members"], key=lambda fields: fields[4])
        first[1] = second[4] - first[4] + 1

    refused(grow)


@pytest.mark.parametrize("field", ["size", "offset"])
@pytest.mark.parametrize("value", [1 << 20, 1 << 40, 1 << 61], ids=str)
def test_file_that_ends_behind_the_stream_is_refused(
    packs: Packs, sound: bytes, harmless: Harmless, field: str, value: int
) -> None:
    document = json.loads(packs.index_of(sound))
    last = max((fields for unit in document["units"] for fields in unit["members"]), key=lambda fields: fields[4])
    last[MEMBER_FIELDS[field]] = value
    harmless(json.dumps(document).encode(), PackError)


@pytest.mark.parametrize("value", [0, -1, 1.0, True, None, "1", [], 10**30], ids=repr)
@pytest.mark.parametrize("field", [0, 1], ids=["packed size", "raw size"])
def test_frame_whose_size_is_none_is_refused(refused: Refused, field: int, value: Any) -> None:
    refused(lambda document: document["frames"][0].__setitem__(field, value))


@pytest.mark.parametrize("size", [8 * 1024 * 1024 + 1, 1 << 40], ids=str)
def test_frame_that_would_fill_the_memory_is_refused(refused: Refused, size: int) -> None:
    refused(lambda document: document["frames"][0].__setitem__(1, size))


@pytest.mark.parametrize("lie", [-1, 1, 1 << 20, 1 << 61], ids=str)
def test_frames_that_do_not_fill_the_space_before_the_index_are_refused(refused: Refused, lie: int) -> None:
    def change(document: dict[str, Any]) -> None:
        document["frames"][0][0] += lie

    refused(change)


def test_frames_that_hold_more_than_the_files_are_refused(packs: Packs, sound: bytes) -> None:
    """A few hundred packed bytes are 8 MiB of zeros: a pack full of them would be unpacked for hours."""
    document = json.loads(packs.index_of(sound))
    zeros = bytes(8 << 20)
    frame = pack_frame(zeros)
    document["frames"].append([len(frame), len(zeros), hashlib.sha256(frame).hexdigest()])
    footer = trailer.decode_footer("sound", sound[-FOOTER_BYTES:], len(sound))
    frames = sound[: -footer.trailer_bytes] + frame
    bomb = frames + trailer.encode(json.dumps(document).encode(), len(frames))
    [rejected] = repository_with(packs, bomb).union().rejected
    assert isinstance(rejected.error, CorruptPackError)
    assert "more than its files" in str(rejected.error)


def test_frame_that_is_not_there_is_refused(refused: Refused) -> None:
    refused(lambda document: document["frames"].append([100, 100, "0" * 64]))
    refused(lambda document: document["frames"].clear())


@pytest.mark.parametrize("lie", [-1, 1, 512], ids=str)
def test_frame_of_another_size_than_declared_is_refused(refused: Refused, lie: int) -> None:
    def change(document: dict[str, Any]) -> None:
        document["frames"][0][1] += lie

    refused(change)


def frame_only(packs: Packs, sound: bytes, frame: bytes, raw_bytes: int, size: int) -> bytes:
    """A pack that is one frame, of which a file takes the first bytes; all digests are right."""
    document = json.loads(packs.index_of(sound))
    digest = hashlib.sha256(frame).hexdigest()
    document["frames"] = [[len(frame), raw_bytes, digest]]
    document["units"] = [stem("inductor/om/bomb", [member("inductor/om/bomb.py", size)])]
    document["roots"] = ["inductor"]
    return frame + trailer.encode(json.dumps(document).encode(), len(frame))


@pytest.mark.parametrize(
    "frame",
    [
        pack_frame(bytes(64 * 1024 * 1024)),
        pack_frame(b"x" * 4096) + pack_frame(b"y"),
        pack_frame(b"x" * 4096) + b"rubbish",
        pack_frame(b"x" * 4096)[:-1],
        pack_frame(b""),
        struct.pack("<II", 0x184D2A50, 4092) + bytes(4092),
        b"not zstd",
        # The content in one raw block, after as many empty ones: each of them is checked.
        pack_frame(b"x" * 4096)[:7] + bytes(3 * 5000) + struct.pack("<I", 4096 << 3 | 1)[:3] + b"x" * 4096,
    ],
    ids=["bomb", "two frames", "rubbish behind", "cut short", "empty", "skippable", "no frame", "many blocks"],
)
def test_frame_that_unpacks_to_another_size_than_declared_is_refused(
    packs: Packs, sound: bytes, tmp_path: Path, read_tree: ReadTree, frame: bytes
) -> None:
    restored = load(repository_with(packs, frame_only(packs, sound, frame, 4096, 100)), tmp_path)
    [rejected] = restored.union.rejected
    assert isinstance(rejected.error, CorruptPackError)
    assert read_tree(tmp_path) == {}


def test_frame_made_by_hand_is_read_if_all_is_right(
    packs: Packs, sound: bytes, tmp_path: Path, read_tree: ReadTree
) -> None:
    """Without this, the test above could pass for the wrong reason."""
    load(repository_with(packs, frame_only(packs, sound, pack_frame(b"x" * 4096), 4096, 100)), tmp_path)
    assert read_tree(tmp_path) == {"inductor/om/bomb.py": b"x" * 100}


@pytest.mark.parametrize(
    "content",
    [b"[]", b"null", b'"x"', b'{"child_paths": {"a": "../a"}}', b"[" * 100_000],
    ids=["list", "null", "text", "path", "deep"],
)
def test_pack_with_an_invalid_triton_group_file_is_ignored(
    packs: Packs, tmp_path: Path, read_tree: ReadTree, content: bytes
) -> None:
    hostile = packs.write({"triton/KERNEL/": {"__grp__kernel.json": content, "kernel.cubin": b"binary"}})
    restored = load(repository_with(packs, hostile), tmp_path)
    [rejected] = restored.union.rejected
    assert isinstance(rejected.error, CorruptPackError)
    assert read_tree(tmp_path) == {}


NO_INDEXES = [
    b"",
    b"null",
    b"5",
    b"[]",
    b'"index"',
    b"{",
    b"{}",
    b"\xff\xfe",
    b'{"format":null}',
    b'{"format":1}',
    b"[" * 100_000,
    b'{"format":1,"units":' + b"[" * 100_000,
    b'{"a":' * 100_000,
    b"1" * 10_000,
    b'{"format":1,"frames":[[' + b"9" * 10_000 + b',1,"0"]]}',
    b'{"format":1}' + b" " * 1000 + b"{}",
]


@pytest.mark.parametrize("index", NO_INDEXES, ids=lambda index: ascii(index[:24]))
def test_index_that_is_none_is_refused(harmless: Harmless, index: bytes) -> None:
    harmless(index, PackError)


@pytest.mark.parametrize("field", ["format", "namespace", "environment", "roots", "frames", "units"])
@pytest.mark.parametrize("value", ["missing", None, 5, True, "text", [5], [[]], {"a": "b"}, [None]], ids=repr)
def test_field_of_another_type_is_refused(
    packs: Packs, sound: bytes, harmless: Harmless, field: str, value: Any
) -> None:
    if field == "format" and value is True:
        return  # equals 1
    document = json.loads(packs.index_of(sound))
    if value == "missing":
        del document[field]
    else:
        document[field] = value
    harmless(json.dumps(document).encode(), PackError)


@pytest.mark.parametrize("fields", [[], ["x"] * 5, ["x"] * 7, "abcdef", None, {"a": 1}], ids=repr)
def test_file_with_another_number_of_fields_is_refused(refused: Refused, fields: Any) -> None:
    refused(lambda document: document["units"][0]["members"].__setitem__(0, fields))


@pytest.mark.parametrize("value", [None, 5, ["a"], {"a": 5}, {"a": None}, {"a": {"b": "c"}}], ids=repr)
@pytest.mark.parametrize("field", ["parts", "recorded"])
def test_environment_that_is_not_texts_is_refused(refused: Refused, field: str, value: Any) -> None:
    refused(lambda document: document["environment"].__setitem__(field, value))


@pytest.mark.parametrize("number", [0, 2, 99, "2"], ids=repr)
def test_index_of_another_format_is_left_alone(packs: Packs, sound: bytes, harmless: Harmless, number: Any) -> None:
    document = json.loads(packs.index_of(sound)) | {"format": number}
    harmless(json.dumps(document).encode(), UnsupportedPackError)


@pytest.mark.parametrize(
    "text", ["x\nERROR all is lost", "\x1b[2J", "\u202e", "x" * 100_000], ids=lambda text: ascii(text[:9])
)
def test_text_of_a_hostile_index_is_quoted_short_and_on_one_line(
    packs: Packs, sound: bytes, harmless: Harmless, text: str
) -> None:
    document = json.loads(packs.index_of(sound))
    changes: list[Change] = [
        lambda changed: changed.update(format=text),
        lambda changed: changed.update(namespace=text),
        lambda changed: changed["environment"].update(id=text),
        lambda changed: changed["units"].append(stem(text)),
        lambda changed: changed["roots"].append(text),
        lambda changed: changed["units"][0].update(kind=text),
        lambda changed: changed["units"][0]["members"][0].__setitem__(1, text),
    ]
    for change in changes:
        changed = copy.deepcopy(document)
        change(changed)
        message = str(harmless(json.dumps(changed).encode(), PackError))
        assert message.isprintable()
        assert len(message) < 2000


# Footers made by an attacker

FOOTER = struct.Struct("<QQII32sQ8s")
FOOTER_FIELDS = {"packed size": 0, "raw size": 1, "extension": 2, "pack size": 5}


@pytest.mark.parametrize("field", FOOTER_FIELDS)
@pytest.mark.parametrize("lie", [-1, 1, 1 << 20, 1 << 31, 1 << 60], ids=str)
def test_footer_whose_sizes_lie_is_refused(packs: Packs, sound: bytes, field: str, lie: int) -> None:
    fields = list(FOOTER.unpack(sound[-FOOTER_BYTES:]))
    limit = 1 << (32 if field == "extension" else 64)
    fields[FOOTER_FIELDS[field]] = (fields[FOOTER_FIELDS[field]] + lie) % limit
    if fields[FOOTER_FIELDS[field]] != FOOTER.unpack(sound[-FOOTER_BYTES:])[FOOTER_FIELDS[field]]:
        assert_harmless(packs, repository_with(packs, sound[:-FOOTER_BYTES] + FOOTER.pack(*fields)))


def test_index_that_unpacks_to_more_than_declared_is_refused(packs: Packs, sound: bytes) -> None:
    fields = list(FOOTER.unpack(sound[-FOOTER_BYTES:]))
    bomb = packs.with_index(sound, b" " * (16 << 20))
    bomb_fields = list(FOOTER.unpack(bomb[-FOOTER_BYTES:]))
    bomb_fields[1] = fields[1]
    assert_harmless(packs, repository_with(packs, bomb[:-FOOTER_BYTES] + FOOTER.pack(*bomb_fields)))


def test_index_over_the_limit_is_refused_before_it_is_unpacked(
    packs: Packs, sound: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trailer, "unpack_frame", None)
    limits = dataclasses.replace(packs.limits, index_bytes=100)
    repository = ReadRepository(
        store_with(packs, sound), packs.namespace, packs.environment, limits, Deadline("read", 60)
    )
    [rejected] = repository.union().rejected
    assert isinstance(rejected.error, PackTooLargeError)
    assert "the most allowed is 100" in str(rejected.error)


def test_trailer_of_another_format_is_left_alone(packs: Packs, sound: bytes) -> None:
    fields = list(FOOTER.unpack(sound[-FOOTER_BYTES:]))
    fields[3] = 2
    [rejected] = repository_with(packs, sound[:-FOOTER_BYTES] + FOOTER.pack(*fields)).union().rejected
    assert isinstance(rejected.error, UnsupportedPackError)


def test_extension_that_this_version_does_not_know_is_passed_over(packs: Packs, sound: bytes) -> None:
    """A later version may put a signature there."""
    packed, raw, _extension, format_, _sha256, size, magic = FOOTER.unpack(sound[-FOOTER_BYTES:])
    start = len(sound) - FOOTER_BYTES - packed - 8
    extension = b"signature"
    covered = sound[start + 8 : -FOOTER_BYTES] + extension
    sha256 = hashlib.sha256(covered).digest()
    footer = FOOTER.pack(packed, raw, len(extension), format_, sha256, size + len(extension), magic)
    header = struct.pack("<II", 0x184D2A5B, len(covered) + FOOTER_BYTES)
    assert packs.read(repository_with(packs, sound[:start] + header + covered + footer)) == CONTENT


# Limits


@pytest.mark.parametrize(
    "limits",
    [Limits(10_000, 10, 10), Limits(10_000, 10_000, 3), Limits(100, 10_000, 10)],
    ids=["raw bytes", "files", "packed bytes"],
)
def test_sound_pack_over_this_readers_limits_is_not_read(packs: Packs, sound: bytes, limits: Limits) -> None:
    repository = ReadRepository(
        store_with(packs, sound), packs.namespace, packs.environment, limits, Deadline("read", 60)
    )
    [rejected] = repository.union().rejected
    assert isinstance(rejected.error, PackTooLargeError)
    assert "MAX_CACHE_SIZE_MB" in str(rejected.error)


# Whatever else an attacker may think of

JSON = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(),
        st.floats(),
        st.text(max_size=20),
        st.sampled_from([*CONTENT, "inductor", "triton/KERNEL", "folder", "stem", "0" * 64]),
    ),
    lambda children: st.one_of(
        st.lists(children, max_size=4), st.dictionaries(st.text(max_size=5), children, max_size=4)
    ),
    max_leaves=8,
)


def places(value: Any) -> list[tuple[Any, Any]]:
    """Every container and key in a document."""
    keys: list[Any] = (
        list(value) if isinstance(value, dict) else list(range(len(value))) if isinstance(value, list) else []
    )
    return [(value, key) for key in keys] + [place for key in keys for place in places(value[key])]


@given(st.data())
@settings(max_examples=300)
def test_no_change_to_an_index_gives_an_unforeseen_error(packs: Packs, sound: bytes, data: st.DataObject) -> None:
    document = json.loads(packs.index_of(sound))
    for _ in range(data.draw(st.integers(1, 3))):
        found = places(document)
        container, key = found[data.draw(st.integers(0, len(found) - 1))]
        container[key] = data.draw(JSON)
    try:
        index = Index.decode("hostile", json.dumps(document).encode(), packs.limits)
    except PackError:
        return
    assert all(name.count("/") and ".." not in name.split("/") for name in (unit.name for unit in index.units))
    repository = repository_with(packs, packs.with_index(sound, json.dumps(document).encode()))
    try:
        found_content = packs.read(repository)
    except PackError:
        return
    sizes = {fields.path: fields.size for unit in index.units for fields in unit.members}
    assert {path: len(content) for path, content in found_content.items()} in (sizes, {})
