"""Tar headers, as Python's tarfile reads them."""

from __future__ import annotations

import io
import tarfile

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from b10_transfer.pack import tar


def parsed(header: bytes) -> tarfile.TarInfo:
    """The first entry of an archive that begins with ``header``."""
    with tarfile.open(fileobj=io.BytesIO(header + tar.END)) as archive:
        entry = archive.next()
    assert entry is not None
    return entry


PATHS = st.text("abc/._-~", min_size=1, max_size=1024).filter(lambda path: path.strip("/") == path)


@given(PATHS, st.integers(0, 1 << 62), st.integers(0, 0o777), st.integers(0, 1 << 62))
@example("a" * 99, 0, 0o644, 0)
@example("a" * 100, 0, 0o644, 0)
@example("a" * 101, 0, 0o644, 0)
@example("a/" * 500 + "a", 0, 0o644, 0)
@example("a", 8**11 - 1, 0o644, 8**11 - 1)
@example("a", 8**11, 0o644, 8**11 * 1_000_000_000)
def test_python_reads_what_was_written(path: str, size: int, mode: int, mtime_ns: int) -> None:
    header = tar.header(path, size, mode, mtime_ns)
    assert len(header) % tar.BLOCK == 0
    entry = parsed(header)
    assert (entry.name, entry.size, entry.mode) == (path, size, mode)
    assert entry.isreg()
    assert (entry.uid, entry.gid, entry.linkname) == (0, 0, "")


@given(PATHS, st.integers(0, 1 << 35), st.integers(0, 0o777), st.integers(-(1 << 62), 1 << 62))
@example("a" * 100, 8**11 - 1, 0o644, 10**18)
@example("a", 0, 0o644, 10**18 - 1)
@example("a", 0, 0o644, 10**19 - 1)
@example("a", 0, 0o644, 10**19)
@example("é" * 60, 0, 0o644, 10**18)
def test_short_way_to_a_header_leads_to_the_same(path: str, size: int, mode: int, mtime_ns: int) -> None:
    assert tar.header(path, size, mode, mtime_ns) == tar._any_header(path, size, mode, mtime_ns)


@given(st.integers(-(1 << 62), 1 << 62))
@example(0)
@example(1)
@example(999_999_999)
@example(-1)
@example(-1_000_000_001)
def test_time_is_exact_to_the_nanosecond_before_1970_too(mtime_ns: int) -> None:
    text = parsed(tar.header("a", 0, 0o644, mtime_ns)).pax_headers["mtime"]
    seconds, _, nanoseconds = text.partition(".")
    sign = -1 if text.startswith("-") else 1
    assert int(seconds) * 1_000_000_000 + sign * int(nanoseconds) == mtime_ns


@pytest.mark.parametrize(("size", "padding"), [(0, 0), (1, 511), (511, 1), (512, 0), (513, 511)])
def test_content_is_filled_up_to_whole_blocks(size: int, padding: int) -> None:
    assert tar.padding(size) == bytes(padding)


def test_headers_of_equal_files_are_equal() -> None:
    assert tar.header("a", 1, 0o644, 5) == tar.header("a", 1, 0o644, 5)


def test_archive_of_several_files_is_read_to_its_end() -> None:
    contents = {"a": b"", "b/c": b"x" * 513, "d" * 150: b"y" * 512}
    data = b"".join(
        tar.header(path, len(content), 0o644, 0) + content + tar.padding(len(content))
        for path, content in contents.items()
    )
    with tarfile.open(fileobj=io.BytesIO(data + tar.END)) as archive:
        found = {}
        for entry in archive:
            file = archive.extractfile(entry)
            assert file is not None
            found[entry.name] = file.read()
    assert found == contents
