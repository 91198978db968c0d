"""A library that a killed linker has left is not complete; a finished one is."""

from __future__ import annotations

import os
import struct
import sys
import tempfile
from pathlib import Path

import pytest
import zstandard
from hypothesis import example, given
from hypothesis import strategies as st

from b10_transfer import OperationStatus, load, save
from b10_transfer.adapters.elf import is_whole_library
from tests.conftest import FillTree, IsolatedEnv, ReadTree

NO_BITS, PROGRAM_BITS, LOADED, NOTE = 8, 1, 1, 4
MODULE = next(Path(zstandard.__file__).parent.glob("*.so"))
KEY = "cabc2def3ghi4jkl5mno6pqr7stu2vwx3yza4bcd5efg6hij7klm"


def elf(*, bits: int = 64, order: str = "<", sections: int = 3, segments: int = 1, gap: int = 100) -> bytes:
    """A small library: header, segments, content, and the table of sections last, as linkers write it."""
    is_64 = bits == 64
    header_size, segment_size, section_size = (64, 56, 64) if is_64 else (52, 32, 40)
    content_at = header_size + segments * segment_size
    sections_at = content_at + gap if sections else 0
    identity = b"\x7fELF" + bytes([2 if is_64 else 1, 1 if order == "<" else 2, 1]) + bytes(9)
    word = "Q" if is_64 else "I"
    header = identity + struct.pack(
        f"{order}HHI3{word}I6H",
        *(3, 62, 1, 0, header_size if segments else 0, sections_at, 0),
        *(header_size, segment_size, segments, section_size, sections, 0),
    )
    if is_64:
        segment = struct.pack(f"{order}II6Q", LOADED, 5, 0, 0, 0, content_at + gap, content_at + gap + 10**6, 4096)
        entries = [(0, 0, 0), (PROGRAM_BITS, content_at, gap), (NO_BITS, content_at + gap, 10**6)]
        table = [struct.pack(f"{order}II4QIIQQ", 0, kind, 0, 0, at, size, 0, 0, 0, 0) for kind, at, size in entries]
    else:
        segment = struct.pack(f"{order}8I", LOADED, 0, 0, 0, content_at + gap, content_at + gap + 10**6, 5, 4096)
        entries = [(0, 0, 0), (PROGRAM_BITS, content_at, gap), (NO_BITS, content_at + gap, 10**6)]
        table = [struct.pack(f"{order}10I", 0, kind, 0, 0, at, size, 0, 0, 0, 0) for kind, at, size in entries]
    assert len(header) == header_size
    return header + segment * segments + b"c" * gap + b"".join(table[:sections])


FORMS = [
    pytest.param({"bits": bits, "order": order}, id=f"{bits} bit {'little' if order == '<' else 'big'} endian")
    for bits in (64, 32)
    for order in "<>"
]


def is_whole(data: bytes) -> bool:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "library.so"
        path.write_bytes(data)
        return is_whole_library(path)


@pytest.mark.parametrize("form", FORMS)
def test_finished_library_is_whole(form: dict[str, object]) -> None:
    library = elf(**form)  # type: ignore[arg-type]
    assert is_whole(library)
    assert is_whole(library + b"a signature behind it")


@pytest.mark.parametrize("form", FORMS)
def test_library_that_ends_early_is_not_whole_wherever_it_ends(form: dict[str, object]) -> None:
    library = elf(**form)  # type: ignore[arg-type]
    assert [length for length in range(len(library)) if is_whole(library[:length])] == []


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("tables", [{"sections": 0}, {"segments": 0}], ids=["no sections", "no segments"])
def test_library_without_one_of_the_tables(form: dict[str, object], tables: dict[str, int]) -> None:
    """A stripped library has no sections, an object file has no segments."""
    library = elf(**form, **tables)  # type: ignore[arg-type]
    assert is_whole(library)
    assert not is_whole(library[:-1])


@pytest.mark.parametrize("form", FORMS)
def test_header_alone_is_not_whole(form: dict[str, object]) -> None:
    assert not is_whole(elf(**form, sections=0, segments=0))  # type: ignore[arg-type]


@pytest.mark.parametrize("source", [sys.executable, MODULE], ids=["an executable", "a module"])
def test_real_library_is_whole_and_no_part_of_it_is(source: str | Path) -> None:
    data = Path(source).read_bytes()
    assert data[:4] == b"\x7fELF"
    assert is_whole(data)
    lengths = {*range(0, len(data), max(len(data) // 60, 1)), 1, 4, 63, 64, len(data) - 1, len(data) - 100}
    assert [length for length in sorted(lengths) if is_whole(data[:length])] == []


@pytest.mark.parametrize("data", [b"", b"\x7f", b"\x7fEL", bytes(4), bytes(5000)], ids=ascii)
def test_what_a_linker_begins_with_is_not_whole(data: bytes) -> None:
    assert not is_whole(data)


@pytest.mark.parametrize("data", [b"#!/bin/sh\n", b"x", b"!<arch>\n", b"\xcf\xfa\xed\xfe" + bytes(60)], ids=ascii)
def test_what_is_no_elf_file_is_not_judged(data: bytes) -> None:
    assert is_whole(data)


def test_what_cannot_be_read_is_not_whole(tmp_path: Path) -> None:
    (tmp_path / "link.so").symlink_to(MODULE)
    (tmp_path / "folder.so").mkdir()
    os.mkfifo(tmp_path / "pipe.so")
    assert [name for name in ("link.so", "folder.so", "pipe.so") if is_whole_library(tmp_path / name)] == []


@given(st.binary(max_size=300))
@example(b"\x7fELF\x02\x01" + b"\xff" * 58)
def test_any_bytes_have_an_answer(data: bytes) -> None:
    assert is_whole(data) in (True, False)


@given(st.sampled_from([form.values[0] for form in FORMS]), st.data())
def test_any_header_has_an_answer(form: dict[str, object], data: st.DataObject) -> None:
    library = bytearray(elf(**form))  # type: ignore[arg-type]
    for at in data.draw(st.lists(st.integers(4, 63), max_size=8)):
        library[at : at + 1] = data.draw(st.sampled_from([b"\0", b"\1", b"\x40", b"\xff"]))
    assert is_whole(bytes(library)) in (True, False)


@pytest.mark.parametrize("form", FORMS)
def test_table_of_no_entries_may_claim_to_be_anywhere(form: dict[str, object]) -> None:
    is_64 = form["bits"] == 64
    library = bytearray(elf(**form, sections=0))  # type: ignore[arg-type]
    library[40 if is_64 else 32 : 48 if is_64 else 36] = b"\xff" * (8 if is_64 else 4)
    assert is_whole(bytes(library))


def test_library_that_torch_has_not_finished_is_not_published_and_the_others_are(
    isolated_env: IsolatedEnv, fill: FillTree, read_tree: ReadTree, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """torch 2.4 links straight to the library's name and leaves no other mark behind when it is killed."""
    library = elf()
    half, whole = f"ab/{KEY}", f"zb/czb{KEY[3:]}"
    fill(
        isolated_env.inductor,
        {
            f"{half}.cpp": b"source",
            f"{half}.so": library[:150],
            f"{whole}.cpp": b"source",
            f"{whole}.so": library,
            "fxgraph/ab/fabkey/graph": b"a graph",
        },
    )
    report = save()
    assert (report.status, report.units, report.left_for_next_save) == (OperationStatus.SUCCESS, 2, 1)
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "restored"))
    assert load().units == 2
    assert sorted(read_tree(tmp_path / "restored")) == ["fxgraph/ab/fabkey/graph", f"{whole}.cpp", f"{whole}.so"]
    # The next pod compiles it, and the next save publishes it.
    fill(isolated_env.inductor, {f"{half}.so": library})
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(isolated_env.inductor))
    assert save().units == 1
