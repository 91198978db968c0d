"""Whatever is packed comes out again: through this package's reader, through tar, and through Python's tarfile."""

from __future__ import annotations

import io
import itertools
import os
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest import mock

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from b10_transfer.concurrency.deadline import Deadline
from b10_transfer.pack import Index, Member, PackReader, PackWriter, SourceFile, writer
from b10_transfer.testing.memory import MemoryStore

if TYPE_CHECKING:
    from tests.conftest import Packs


@dataclass(frozen=True)
class File:
    path: str
    data: bytes
    mode: int
    mtime_ns: int

    def source(self) -> SourceFile:
        return SourceFile(self.path, len(self.data), self.mode, self.mtime_ns, lambda _: InParts(self.data))


class InParts(io.BytesIO):
    """An open file that returns fewer bytes than requested, as files may."""

    def readinto(self, buffer: Any, /) -> int:
        return super().readinto(memoryview(buffer)[:1000])


class Changing(io.RawIOBase):
    """An open file that is written to meanwhile: it has so many bytes, and leaving it is an error as it is for files
    of a cache."""

    def __init__(self, size: int) -> None:
        self._left = size

    def readinto(self, buffer: Any, /) -> int:
        count = min(len(buffer), self._left)
        self._left -= count
        return count

    def __exit__(self, error_type: object, *_: object) -> None:
        if error_type is None:
            raise ChangedError


@dataclass(frozen=True)
class Unit:
    name: str
    kind: str
    files: tuple[File, ...]


class ChangedError(Exception):
    """A file was written to while it was packed."""


# Folders end in "d" and files in "f": no path is both.
WORDS = st.text("abcxyz0129_-.~+= ", max_size=12).map(lambda text: f"n{text}")
FOLDERS = st.lists(WORDS.map(lambda word: f"{word}d"), max_size=3)
LONG_WORDS = st.integers(1, 240).map(lambda length: "n" * length)
NAMES = st.one_of(WORDS, LONG_WORDS).map(lambda word: f"{word}f")
CONTENTS = st.one_of(
    st.binary(max_size=300),
    st.just(b""),
    st.builds(lambda piece, times: piece * times, st.binary(min_size=1, max_size=50), st.integers(1, 400)),
)
MODES = st.sampled_from([0o400, 0o444, 0o600, 0o644, 0o755, 0o777])
TIMES = st.integers(0, 4_000_000_000_999_999_999)


@st.composite
def folder_units(draw: st.DrawFn, key: str) -> Unit:
    name = f"triton/{key}"
    paths = draw(st.lists(st.builds(lambda f, n: "/".join([name, *f, n]), FOLDERS, NAMES), min_size=1, max_size=5))
    files = [File(path, draw(CONTENTS), draw(MODES), draw(TIMES)) for path in dict.fromkeys(paths)]
    return Unit(name, "folder", tuple(files))


@st.composite
def stem_units(draw: st.DrawFn, key: str) -> Unit:
    name = f"inductor/{key[:2]}/{key}"
    ends = draw(st.lists(st.sampled_from(["", ".py", ".so", ".main.cpp", ".best_config"]), min_size=1, unique=True))
    return Unit(name, "stem", tuple(File(name + end, draw(CONTENTS), draw(MODES), draw(TIMES)) for end in ends))


@st.composite
def unit_lists(draw: st.DrawFn) -> list[Unit]:
    keys = draw(st.lists(st.text("abcdefgh", min_size=4, max_size=10), max_size=6, unique=True))
    return [draw(draw(st.sampled_from([folder_units, stem_units]))(key)) for key in keys]


FRAME_SIZES = st.sampled_from([700, 4096, 20_000, writer.FRAME_RAW_BYTES])


def add(pack: PackWriter, unit: Unit) -> None:
    pack.add_unit(unit.name, unit.kind, [file.source() for file in unit.files])


def write(packs: Packs, units: Iterable[Unit], frame_bytes: int) -> bytes:
    out = io.BytesIO()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(writer, "FRAME_RAW_BYTES", frame_bytes)
        with PackWriter(out, packs.limits, Deadline("write", 60)) as pack:
            for unit in units:
                add(pack, unit)
            pack.finish(packs.namespace, packs.environment)
    return out.getvalue()


def opened(packs: Packs, data: bytes) -> tuple[PackReader, Index]:
    store = MemoryStore()
    store.create("pack", io.BytesIO(data))
    source = store.open("pack")
    assert source is not None
    reader = PackReader("pack", source, packs.limits, Deadline("read", 60))
    return reader, reader.read_index()


def expected(units: Iterable[Unit]) -> dict[str, bytes]:
    return {file.path: file.data for unit in units for file in unit.files}


def members_of(index: Index) -> list[Member]:
    return [member for unit in index.units for member in unit.members]


@given(unit_lists(), FRAME_SIZES)
def test_packed_units_are_read_back(packs: Packs, units: list[Unit], frame_bytes: int) -> None:
    reader, index = opened(packs, write(packs, units, frame_bytes))
    for _piece in reader.read_members(index, (), every_frame=True):
        pass
    assert packs.contents(reader, index, members_of(index)) == expected(units)


@given(unit_lists(), FRAME_SIZES)
def test_index_lists_the_packed_units(packs: Packs, units: list[Unit], frame_bytes: int) -> None:
    _reader, index = opened(packs, write(packs, units, frame_bytes))
    assert {(unit.name, unit.kind) for unit in index.units} == {(unit.name, unit.kind) for unit in units}
    listed = {(unit.name, m.path, m.size, m.mode, m.mtime_ns) for unit in index.units for m in unit.members}
    assert listed == {
        (unit.name, file.path, len(file.data), file.mode, file.mtime_ns) for unit in units for file in unit.files
    }
    assert (index.namespace, index.environment_id) == (packs.namespace, packs.environment.id)
    assert (index.parts, index.recorded) == (packs.environment.parts, packs.environment.recorded)
    assert index.roots == tuple(sorted({unit.name.partition("/")[0] for unit in units}))


@given(unit_lists(), FRAME_SIZES, st.data())
def test_any_part_of_a_pack_reads_as_it_does_in_the_whole(
    packs: Packs, units: list[Unit], frame_bytes: int, data: st.DataObject
) -> None:
    reader, index = opened(packs, write(packs, units, frame_bytes))
    wanted = [member for member in members_of(index) if data.draw(st.booleans())]
    paths = {member.path for member in wanted}
    contents = packs.contents(reader, index, wanted)
    assert contents == {path: content for path, content in expected(units).items() if path in paths}


@given(unit_lists(), FRAME_SIZES, st.booleans())
def test_a_pack_reads_the_same_with_one_thread_and_with_two(
    packs: Packs, units: list[Unit], frame_bytes: int, waits: bool
) -> None:
    reader, index = opened(packs, write(packs, units, frame_bytes))
    with mock.patch.object(reader._source, "waits", waits):
        assert packs.contents(reader, index, members_of(index)) == expected(units)


@given(unit_lists(), FRAME_SIZES, st.data())
def test_pieces_of_a_file_are_in_order_with_the_first_and_last_marked(
    packs: Packs, units: list[Unit], frame_bytes: int, data: st.DataObject
) -> None:
    reader, index = opened(packs, write(packs, units, frame_bytes))
    wanted = [member for member in members_of(index) if data.draw(st.booleans())]
    pieces = list(reader.read_members(index, wanted))
    for member, group in itertools.groupby(pieces, key=lambda piece: piece.member):
        of_member = list(group)
        others = [False] * (len(of_member) - 1)
        assert [piece.is_first for piece in of_member] == [True, *others]
        assert [piece.is_last for piece in of_member] == [*others, True]
        assert member.size or len(of_member) == 1
        wanted.remove(member)
    assert wanted == []


@given(unit_lists(), FRAME_SIZES)
def test_equal_input_gives_equal_bytes(packs: Packs, units: list[Unit], frame_bytes: int) -> None:
    assert write(packs, units, frame_bytes) == write(packs, units, frame_bytes)


@given(unit_lists(), FRAME_SIZES)
def test_no_frame_is_larger_than_readers_allow(packs: Packs, units: list[Unit], frame_bytes: int) -> None:
    _reader, index = opened(packs, write(packs, units, frame_bytes))
    assert all(frame.raw_bytes <= frame_bytes for frame in index.frames)


@given(unit_lists(), unit_lists(), FRAME_SIZES, st.data())
def test_unit_that_is_taken_back_leaves_no_trace(
    packs: Packs, units: list[Unit], others: list[Unit], frame_bytes: int, data: st.DataObject
) -> None:
    """As when a compiler writes to a unit while it is packed: its files are shorter or longer than they were, too."""
    out = io.BytesIO()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(writer, "FRAME_RAW_BYTES", frame_bytes)
        with PackWriter(out, packs.limits, Deadline("write", 60)) as pack:
            for unit in units:
                add(pack, unit)
                for other in data.draw(st.lists(st.sampled_from(others), max_size=1)) if others else ():
                    add_changing(pack, other, data.draw(st.sampled_from([0, 500, 50_000])))
            pack.finish(packs.namespace, packs.environment)
    reader, index = opened(packs, out.getvalue())
    _reader, untouched = opened(packs, write(packs, units, frame_bytes))
    assert index.units == untouched.units
    assert packs.contents(reader, index, members_of(index)) == expected(units)


def add_changing(pack: PackWriter, unit: Unit, final_size: int) -> None:
    changed = [
        SourceFile(file.path, len(file.data), file.mode, file.mtime_ns, lambda _: Changing(final_size))
        for file in unit.files[-1:]
    ]
    with pytest.raises((ChangedError, ValueError)):
        pack.add_unit(unit.name, unit.kind, [*(file.source() for file in unit.files[:-1]), *changed])


def test_file_that_grows_while_it_is_packed_does_no_harm_to_those_before_it(packs: Packs) -> None:
    sound = Unit("triton/SOUND", "folder", (File("triton/SOUND/kernel.cubin", b"sound" * 1000, 0o644, 1),))
    grown = Unit("triton/GROWN", "folder", (File("triton/GROWN/kernel.cubin", b"small", 0o644, 1),))
    out = io.BytesIO()
    with PackWriter(out, packs.limits, Deadline("write", 60)) as pack:
        add(pack, sound)
        add_changing(pack, grown, 2 * writer.FRAME_RAW_BYTES)
        pack.finish(packs.namespace, packs.environment)
    reader, index = opened(packs, out.getvalue())
    assert packs.contents(reader, index, members_of(index)) == expected([sound])


@given(unit_lists(), FRAME_SIZES)
@settings(max_examples=8)
def test_tar_reads_a_pack(packs: Packs, units: list[Unit], frame_bytes: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        pack, tree = Path(folder, "pack.tar.zst"), Path(folder, "tree")
        pack.write_bytes(write(packs, units, frame_bytes))
        tree.mkdir()
        command: list[str | Path] = ["tar", "--zstd", "--warning=no-timestamp", "-xpf", pack, "-C", tree]
        result = subprocess.run(command, capture_output=True, text=True, check=True)
        assert result.stderr == ""
        found = {path for path in tree.rglob("*") if path.is_file()}
        assert {path.relative_to(tree).as_posix() for path in found} == expected(units).keys()
        for file in (file for unit in units for file in unit.files):
            status = os.stat(tree / file.path)
            assert (status.st_mode & 0o7777, status.st_mtime_ns) == (file.mode, file.mtime_ns)
            assert (tree / file.path).read_bytes() == file.data


needs_zstd = pytest.mark.skipif(shutil.which("zstd") is None, reason="no zstd (Debian has it)")


@needs_zstd
@given(unit_lists(), FRAME_SIZES)
@settings(max_examples=8)
def test_pythons_tarfile_reads_a_pack(packs: Packs, units: list[Unit], frame_bytes: int) -> None:
    stream = subprocess.run(
        ["zstd", "-dcq"], input=write(packs, units, frame_bytes), capture_output=True, check=True
    ).stdout
    with tarfile.open(fileobj=io.BytesIO(stream)) as archive:
        entries = archive.getmembers()
        assert all(entry.isreg() for entry in entries)
        found, times = {}, {}
        for entry in entries:
            extracted = archive.extractfile(entry)
            assert extracted is not None
            found[entry.name] = (extracted.read(), entry.mode)
            times[entry.name] = entry.mtime
    files = [file for unit in units for file in unit.files]
    assert found == {file.path: (file.data, file.mode) for file in files}
    # As precise as a float is that holds seconds.
    assert all(abs(times[file.path] - file.mtime_ns / 1e9) < 1e-5 for file in files)


@needs_zstd
@given(unit_lists(), FRAME_SIZES)
@settings(max_examples=20)
def test_index_gives_each_files_place_in_the_tar_stream(packs: Packs, units: list[Unit], frame_bytes: int) -> None:
    data = write(packs, units, frame_bytes)
    stream = subprocess.run(["zstd", "-dcq"], input=data, capture_output=True, check=True).stdout
    _reader, index = opened(packs, data)
    places = {m.path: stream[m.offset : m.offset + m.size] for m in members_of(index)}
    assert places == expected(units)


def test_pack_of_many_megabytes_comes_out_again(packs: Packs) -> None:
    noise = os.urandom(1 << 20)
    units = [
        Unit("inductor/aa/large", "stem", (File("inductor/aa/large.so", noise * 9, 0o755, 1),)),
        Unit("inductor/aa/small", "stem", (File("inductor/aa/small.py", b"print()", 0o644, 2),)),
    ]
    reader, index = opened(packs, write(packs, units, writer.FRAME_RAW_BYTES))
    assert len(index.frames) > 2
    assert packs.contents(reader, index, members_of(index)) == expected(units)
