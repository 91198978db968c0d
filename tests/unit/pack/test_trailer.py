"""The end of a pack."""

from __future__ import annotations

import shutil
import struct
import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st

from b10_transfer.errors import CorruptPackError, UnsupportedPackError
from b10_transfer.pack.trailer import FOOTER_BYTES, decode_footer, decode_index, encode

FOOTER = struct.Struct("<QQII32sQ8s")


@given(st.binary(max_size=2000), st.integers(0, 1 << 40))
def test_index_comes_out_again(index: bytes, frames_bytes: int) -> None:
    end = encode(index, frames_bytes)
    footer = decode_footer("pack", end[-FOOTER_BYTES:], frames_bytes + len(end))
    assert footer.trailer_bytes == len(end)
    assert decode_index("pack", footer, end) == index


def test_footer_is_as_the_format_says() -> None:
    end = encode(b"index", 1000)
    packed, raw, extension, format_, _sha256, size, magic = FOOTER.unpack(end[-72:])
    assert (raw, extension, format_, size, magic) == (5, 0, 1, 1000 + len(end), b"b10pack\n")
    assert len(end) == 8 + packed + 72
    assert struct.unpack("<II", end[:8]) == (0x184D2A5B, len(end) - 8)


@pytest.mark.skipif(shutil.which("zstd") is None, reason="no zstd (Debian has it)")
def test_other_tools_skip_the_trailer() -> None:
    frame = subprocess.run(["zstd", "-q"], input=b"content", capture_output=True, check=True).stdout
    whole = frame + encode(b"index", len(frame))
    assert subprocess.run(["zstd", "-dq"], input=whole, capture_output=True, check=True).stdout == b"content"


@pytest.mark.parametrize("pack_bytes", [0, 999, 1001, 1 << 40])
def test_pack_of_another_size_than_was_written_is_corrupt(pack_bytes: int) -> None:
    end = encode(b"index", 1000)
    with pytest.raises(CorruptPackError, match=f"it has {pack_bytes} bytes where {1000 + len(end)} were written"):
        decode_footer("pack", end[-FOOTER_BYTES:], pack_bytes)


def test_file_that_does_not_end_as_a_pack_is_corrupt() -> None:
    with pytest.raises(CorruptPackError, match="does not end as a pack does"):
        decode_footer("pack", bytes(FOOTER_BYTES), FOOTER_BYTES)


def test_newer_trailer_is_said_to_be_newer() -> None:
    fields = list(FOOTER.unpack(encode(b"index", 0)[-FOOTER_BYTES:]))
    fields[3] = 2
    with pytest.raises(UnsupportedPackError, match="trailer format 2, this version reads 1"):
        decode_footer("pack", FOOTER.pack(*fields), fields[5])


def test_extension_over_the_limit_is_refused_before_it_is_read() -> None:
    fields = list(FOOTER.unpack(encode(b"index", 0)[-FOOTER_BYTES:]))
    fields[2], fields[5] = 64 * 1024 + 1, fields[5] + 64 * 1024 + 1
    with pytest.raises(CorruptPackError, match="signature claims 65537 bytes, the most allowed is 65536"):
        decode_footer("pack", FOOTER.pack(*fields), fields[5])


def test_packed_index_that_no_packing_makes_is_refused_before_it_is_read() -> None:
    fields = list(FOOTER.unpack(encode(b"index", 0)[-FOOTER_BYTES:]))
    fields[0], fields[5] = 2 << 20, fields[5] + (2 << 20)
    with pytest.raises(CorruptPackError, match="claims 2097152 bytes packed, and 5 unpacked"):
        decode_footer("pack", FOOTER.pack(*fields), fields[5])


def test_index_with_another_digest_is_corrupt() -> None:
    end = bytearray(encode(b"index", 0))
    footer = decode_footer("pack", bytes(end[-FOOTER_BYTES:]), len(end))
    end[10] ^= 1
    with pytest.raises(CorruptPackError, match="digest"):
        decode_index("pack", footer, bytes(end))
