"""The writer of packs: its limits, and that it notices files that are not as announced."""

from __future__ import annotations

import io
import os
from typing import TYPE_CHECKING

import pytest

from b10_transfer.concurrency.deadline import Deadline
from b10_transfer.errors import DeadlineExceededError, PackFullError, SaveTooLargeError
from b10_transfer.pack import Limits, PackWriter, SourceFile
from b10_transfer.repository.repository import Repository
from b10_transfer.testing.memory import MemoryStore

if TYPE_CHECKING:
    from tests.conftest import Packs

MB = 1024 * 1024


def file(path: str, data: bytes, size: int | None = None) -> SourceFile:
    return SourceFile(path, len(data) if size is None else size, 0o644, 1, lambda _: io.BytesIO(data))


def add(writer: PackWriter, name: str, contents: dict[str, bytes]) -> None:
    writer.add_unit(name, "folder", [file(f"{name}/{key}", data) for key, data in contents.items()])


def test_unit_that_packs_to_more_than_the_limit_is_given_up_on_the_way() -> None:
    out = io.BytesIO()
    limits = Limits(packed_bytes=MB, raw_bytes=1000 * MB)
    with (
        PackWriter(out, limits, Deadline("save", 60)) as writer,
        pytest.raises(
            SaveTooLargeError, match=r"unit triton/BIG has an archive of at least .* limit of 1\.0 MiB"
        ) as raised,
    ):
        add(writer, "triton/BIG", {str(number): os.urandom(MB) for number in range(40)})
    assert raised.value.variable == "MAX_CACHE_SIZE_MB"
    assert len(out.getvalue()) < 20 * MB


def test_unit_that_no_longer_fits_belongs_into_another_pack(packs: Packs) -> None:
    """And this one holds those before it, within the limit, as if nobody had tried."""
    limits = Limits(packed_bytes=MB, raw_bytes=1000 * MB)
    noise = {str(number): os.urandom(100_000) for number in range(20)}
    out = io.BytesIO()
    added = []
    with PackWriter(out, limits, Deadline("save", 60)) as writer:
        with pytest.raises(PackFullError, match="no room for unit triton"):
            for key, data in noise.items():
                add(writer, f"triton/{key}", {"file.so": data})
                added.append(key)
        index = writer.finish(packs.namespace, packs.environment)
    assert len(added) >= 8
    assert len(out.getvalue()) <= limits.packed_bytes
    assert [unit.name for unit in index.units] == sorted(f"triton/{key}" for key in added)
    repository = packs.repository()
    repository.publish(out)
    assert packs.read(repository) == {f"triton/{key}/file.so": noise[key] for key in added}


def test_what_packs_well_fills_a_pack_far_beyond_its_size(packs: Packs) -> None:
    limits = Limits(packed_bytes=MB, raw_bytes=1000 * MB)
    out = io.BytesIO()
    with PackWriter(out, limits, Deadline("save", 60)) as writer:
        for number in range(40):
            add(writer, f"triton/{number}", {"file": bytes(MB)})
        writer.finish(packs.namespace, packs.environment)
    assert len(out.getvalue()) < MB


def test_unit_over_the_limit_of_raw_bytes_is_not_read() -> None:
    def refuse(_: SourceFile) -> io.BytesIO:
        pytest.fail("it was read")

    huge = SourceFile("triton/KEY/file.so", 2 * MB, 0o644, 1, refuse)
    with (
        PackWriter(io.BytesIO(), Limits(packed_bytes=MB, raw_bytes=MB), Deadline("save", 60)) as writer,
        pytest.raises(SaveTooLargeError, match=r"unit triton/KEY has files of 2\.0 MiB.* MAX_CACHE_SIZE_MB"),
    ):
        writer.add_unit("triton/KEY", "folder", [huge])


@pytest.mark.parametrize(
    ("limits", "variable"),
    [
        (Limits(MB, 10 * MB, members=3), "B10_MAX_FILES"),
        (Limits(MB, 10 * MB, index_bytes=66_600), "B10_MAX_FILES"),
        (Limits(MB, 10 * MB, load_memory=266_000), "B10_MAX_FILES"),
        (Limits(MB, 10 * MB, load_bytes=5 * 4096), "B10_MAX_RESTORE_MB"),
        (Limits(MB, 3000), "MAX_CACHE_SIZE_MB"),
    ],
    ids=["files", "index", "memory", "room", "bytes"],
)
def test_every_limit_of_a_reader_splits_and_names_its_variable(packs: Packs, limits: Limits, variable: str) -> None:
    contents = {"a": bytes(600), "b": bytes(600)}
    with PackWriter(io.BytesIO(), limits, Deadline("save", 60)) as writer:
        with pytest.raises(PackFullError):
            for number in range(100):
                add(writer, f"triton/{number}", contents)
        assert not writer.is_empty
        with pytest.raises(SaveTooLargeError, match="unit triton/HUGE has") as raised:
            add(writer, "triton/HUGE", {str(number): bytes(100) for number in range(1000)})
        assert raised.value.variable == variable


def test_pack_within_a_writers_limits_is_within_its_readers(packs: Packs) -> None:
    """A save never publishes what no load would read. The names count for more than they are in an index."""
    names = [f"triton/K{number:03d}" + "X" * (number % 60) for number in range(400)]
    for limits in (
        Limits(MB, MB, members=300),
        Limits(MB, MB, index_bytes=200_000),
        Limits(MB, MB, load_memory=500_000),
        Limits(MB, 40_000),
        Limits(40_000, MB),
        Limits(MB, MB, load_bytes=500 * 4096),
    ):
        out = io.BytesIO()
        with PackWriter(out, limits, Deadline("save", 60)) as writer:
            with pytest.raises(PackFullError):
                for name in names:
                    add(writer, name, {f'"a,b[{{{"x" * (len(name) % 50)}.so': os.urandom(100), "c.so": b"y" * 100})
            index = writer.finish(packs.namespace, packs.environment)
        repository = Repository(MemoryStore(), packs.namespace, packs.environment, limits, Deadline("read", 60))
        repository.publish(out)
        union = repository.union()
        assert union.rejected == ()
        assert list(union.units) == [unit.name for unit in index.units]
        [pack] = union.packs
        assert (pack.index.memory, pack.index.room_bytes) == (index.memory, index.room_bytes)


def test_file_that_ends_too_early_is_noticed(packs: Packs) -> None:
    with PackWriter(io.BytesIO(), packs.limits, Deadline("save", 60)) as writer:
        with pytest.raises(ValueError, match=r"triton/KEY/file\.so"):
            writer.add_unit("triton/KEY", "folder", [file("triton/KEY/file.so", b"short", size=10)])
        assert writer.is_empty


def test_unit_whose_check_fails_is_not_added(packs: Packs) -> None:
    def fail() -> None:
        raise RuntimeError("changed")

    with PackWriter(io.BytesIO(), packs.limits, Deadline("save", 60)) as writer:
        with pytest.raises(RuntimeError, match="changed"):
            writer.add_unit("triton/KEY", "folder", [file("triton/KEY/file.so", b"content")], fail)
        assert writer.is_empty
        writer.add_unit("triton/KEY", "folder", [file("triton/KEY/file.so", b"content")], lambda: None)
        assert not writer.is_empty


def test_nothing_is_added_behind_the_deadline(packs: Packs) -> None:
    deadline = Deadline("save", 60)
    with PackWriter(io.BytesIO(), packs.limits, deadline) as writer:
        deadline.cancel()
        with pytest.raises(DeadlineExceededError, match="packing artifacts"):
            writer.add_unit("triton/KEY", "folder", [file("triton/KEY/file.so", b"content")])


def test_writer_says_what_it_has_written(packs: Packs) -> None:
    out = io.BytesIO()
    with PackWriter(out, packs.limits, Deadline("save", 60)) as writer:
        writer.add_unit("triton/B", "folder", [file("triton/B/file", b"content")])
        writer.add_unit("inductor/aa/a", "stem", [file("inductor/aa/a.py", b"source")])
        index = writer.finish(packs.namespace, packs.environment)
    assert [unit.name for unit in index.units] == ["inductor/aa/a", "triton/B"]
    assert index.roots == ("inductor", "triton")
    assert index.encode() == packs.index_of(out.getvalue())
