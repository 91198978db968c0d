"""The end of a pack: a zstd skippable frame that holds the index, and a footer of fixed size that finds it.

::

    frame  frame  …  │ skippable header │ index (zstd) │ extension │ footer │
                     │ 8 bytes          │              │           │ 72     │

The extension is empty in this version. It is there for what must not be part of the index, such as its signature;
a reader that does not know what it holds passes over it.
"""

from __future__ import annotations

import hashlib
import struct
from dataclasses import dataclass

from ..errors import CorruptPackError, UnsupportedPackError
from .index import MAX_INDEX_RAW_BYTES
from .zstd import ZstdError, pack_frame, unpack_frame

_SKIPPABLE = struct.Struct("<II")
_SKIPPABLE_MAGIC = 0x184D2A5B
_TRAILER = 1
_MAGIC = b"b10pack\n"

_FOOTER = struct.Struct("<QQII32sQ8s")
"""Packed and raw size of the index, size of the extension, trailer format, SHA-256 of index and extension, size of
the whole pack, magic."""

FOOTER_BYTES = _FOOTER.size


@dataclass(frozen=True)
class Footer:
    """Where the index is, and what it must be."""

    index_packed_bytes: int
    index_raw_bytes: int
    extension_bytes: int
    sha256: bytes

    @property
    def trailer_bytes(self) -> int:
        """Size of everything behind the last frame."""
        return _SKIPPABLE.size + self.index_packed_bytes + self.extension_bytes + FOOTER_BYTES


def encode(index: bytes, frames_bytes: int) -> bytes:
    """Everything behind the last frame of a pack whose frames have ``frames_bytes``."""
    packed = pack_frame(index)
    content_bytes = len(packed) + FOOTER_BYTES
    footer = _FOOTER.pack(
        len(packed),
        len(index),
        0,
        _TRAILER,
        hashlib.sha256(packed).digest(),
        frames_bytes + _SKIPPABLE.size + content_bytes,
        _MAGIC,
    )
    return _SKIPPABLE.pack(_SKIPPABLE_MAGIC, content_bytes) + packed + footer


def decode_footer(pack: str, data: bytes | bytearray, pack_bytes: int) -> Footer:
    """Read the last ``FOOTER_BYTES`` of a pack of ``pack_bytes``; raises CorruptPackError or UnsupportedPackError."""
    packed, raw, extension, trailer, sha256, size, magic = _FOOTER.unpack(data)
    if magic != _MAGIC:
        raise CorruptPackError(pack, "it does not end as a pack does (truncated, or not a pack)")
    if trailer != _TRAILER:
        raise UnsupportedPackError(pack, f"has trailer format {trailer}, this version reads {_TRAILER}")
    footer = Footer(packed, raw, extension, sha256)
    if size != pack_bytes or footer.trailer_bytes > pack_bytes:
        raise CorruptPackError(pack, f"it has {pack_bytes} bytes where {size} were written")
    if raw > MAX_INDEX_RAW_BYTES or packed > MAX_INDEX_RAW_BYTES:
        raise CorruptPackError(
            pack, f"its index claims {max(raw, packed)} bytes, the most allowed is {MAX_INDEX_RAW_BYTES}"
        )
    return footer


def decode_index(pack: str, footer: Footer, trailer: bytes | bytearray) -> bytes:
    """The index out of a whole trailer, checked against the footer's digest; raises CorruptPackError."""
    magic, content_bytes = _SKIPPABLE.unpack_from(trailer)
    if magic != _SKIPPABLE_MAGIC or content_bytes != len(trailer) - _SKIPPABLE.size:
        raise CorruptPackError(pack, "the frame that holds its index is damaged")
    start = _SKIPPABLE.size
    covered = trailer[start : len(trailer) - FOOTER_BYTES]
    if hashlib.sha256(covered).digest() != footer.sha256:
        raise CorruptPackError(pack, "its index does not have the digest that was published")
    try:
        return unpack_frame(covered[: footer.index_packed_bytes], footer.index_raw_bytes)
    except ZstdError as error:
        raise CorruptPackError(pack, f"its index cannot be unpacked ({error})") from error
