"""The writer of packs: its limits, and that it notices files that are not as announced."""

from __future__ import annotations

import io
import os
from typing import TYPE_CHECKING

import pytest

from b10_transfer.concurrency.deadline import Deadline
from b10_transfer.errors import DeadlineExceededError, SaveTooLargeError
from b10_transfer.pack import Limits, PackWriter, SourceFile

if TYPE_CHECKING:
    from tests.conftest import Packs

MB = 1024 * 1024


def file(path: str, data: bytes, size: int | None = None) -> SourceFile:
    return SourceFile(path, len(data) if size is None else size, 0o644, 1, lambda _: io.BytesIO(data))


def test_pack_over_the_limit_of_packed_bytes_is_given_up_on_the_way(packs: Packs) -> None:
    out = io.BytesIO()
    limits = Limits(packed_bytes=MB, raw_bytes=1000 * MB)
    noise = os.urandom(MB)
    with (
        PackWriter(out, limits, Deadline("save", 60)) as writer,
        pytest.raises(SaveTooLargeError, match=r"over the limit of 1\.0 MiB"),
    ):
        for number in range(100):
            writer.add_unit(f"triton/{number}", "folder", [file(f"triton/{number}/file", noise)])
    assert len(out.getvalue()) < 20 * MB


def test_pack_over_the_limit_with_its_index_is_given_up_at_the_end(packs: Packs) -> None:
    with PackWriter(io.BytesIO(), Limits(packed_bytes=300, raw_bytes=MB), Deadline("save", 60)) as writer:
        writer.add_unit("triton/KEY", "folder", [file(f"triton/KEY/{number}", b"") for number in range(5)])
        with pytest.raises(SaveTooLargeError, match="an archive of at least"):
            writer.finish(packs.namespace, packs.environment)


def test_unit_over_the_limit_of_raw_bytes_is_not_read() -> None:
    def refuse(_: SourceFile) -> io.BytesIO:
        pytest.fail("it was read")

    huge = SourceFile("triton/KEY/file", 2 * MB, 0o644, 1, refuse)
    with (
        PackWriter(io.BytesIO(), Limits(packed_bytes=MB, raw_bytes=MB), Deadline("save", 60)) as writer,
        pytest.raises(SaveTooLargeError, match=r"2\.0 MiB of files"),
    ):
        writer.add_unit("triton/KEY", "folder", [huge])


def test_units_over_the_limit_of_files_are_not_added() -> None:
    limits = Limits(packed_bytes=MB, raw_bytes=MB, members=3)
    with PackWriter(io.BytesIO(), limits, Deadline("save", 60)) as writer:
        writer.add_unit("triton/ONE", "folder", [file("triton/ONE/a", b""), file("triton/ONE/b", b"")])
        with pytest.raises(SaveTooLargeError, match="4 files, over the limit of 3 files"):
            writer.add_unit("triton/TWO", "folder", [file("triton/TWO/a", b""), file("triton/TWO/b", b"")])


def test_pack_within_a_writers_limits_is_within_its_readers(packs: Packs) -> None:
    """A save never publishes what no load would read."""
    pack = packs.write({"triton/KEY/": {"a": b"x" * 1000, "b": b"y" * 1000}})
    for limits in (Limits(len(pack), 2000, 2), Limits(len(pack) + 1, 2001, 3)):
        out = io.BytesIO()
        with PackWriter(out, limits, Deadline("save", 60)) as writer:
            writer.add_unit(
                "triton/KEY", "folder", [file("triton/KEY/a", b"x" * 1000), file("triton/KEY/b", b"y" * 1000)]
            )
            writer.finish(packs.namespace, packs.environment)
        assert len(out.getvalue()) <= limits.packed_bytes


def test_file_that_ends_too_early_is_noticed(packs: Packs) -> None:
    with PackWriter(io.BytesIO(), packs.limits, Deadline("save", 60)) as writer:
        with pytest.raises(ValueError, match="triton/KEY/file"):
            writer.add_unit("triton/KEY", "folder", [file("triton/KEY/file", b"short", size=10)])
        assert writer.is_empty


def test_unit_whose_check_fails_is_not_added(packs: Packs) -> None:
    def fail() -> None:
        raise RuntimeError("changed")

    with PackWriter(io.BytesIO(), packs.limits, Deadline("save", 60)) as writer:
        with pytest.raises(RuntimeError, match="changed"):
            writer.add_unit("triton/KEY", "folder", [file("triton/KEY/file", b"content")], fail)
        assert writer.is_empty
        writer.add_unit("triton/KEY", "folder", [file("triton/KEY/file", b"content")], lambda: None)
        assert not writer.is_empty


def test_nothing_is_added_behind_the_deadline(packs: Packs) -> None:
    deadline = Deadline("save", 60)
    with PackWriter(io.BytesIO(), packs.limits, deadline) as writer:
        deadline.cancel()
        with pytest.raises(DeadlineExceededError, match="packing artifacts"):
            writer.add_unit("triton/KEY", "folder", [file("triton/KEY/file", b"content")])


def test_writer_says_what_it_has_written(packs: Packs) -> None:
    out = io.BytesIO()
    with PackWriter(out, packs.limits, Deadline("save", 60)) as writer:
        writer.add_unit("triton/B", "folder", [file("triton/B/file", b"content")])
        writer.add_unit("inductor/aa/a", "stem", [file("inductor/aa/a.py", b"source")])
        index = writer.finish(packs.namespace, packs.environment)
    assert [unit.name for unit in index.units] == ["inductor/aa/a", "triton/B"]
    assert index.roots == ("inductor", "triton")
    assert index.encode() == packs.index_of(out.getvalue())
