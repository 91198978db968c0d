"""The end of a pack: a zstd skippable frame that holds the index, and a footer of fixed size that finds it.

::

    frame  frame  …  │ skippable header │ index (zstd) │ extension │ footer │
                     │ 8 bytes          │              │           │ 72     │

The extension is empty, or holds what must not be part of the index: its signature. A reader that does not know what it
holds passes over it.
"""

from __future__ import annotations

import hashlib
import os
import struct
from collections.abc import Callable
from typing import BinaryIO, NamedTuple

from ..errors import CorruptPackError, UnsupportedPackError
from .limits import MAX_EXTENSION_BYTES, MB
from .zstd import ZstdError, pack_frame, unpack_frame

_SKIPPABLE = struct.Struct("<II")
_SKIPPABLE_MAGIC = 0x184D2A5B
_TRAILER = 1
_MAGIC = b"b10pack\n"

_FOOTER = struct.Struct("<QQII32sQ8s")
"""Packed and raw size of the index, size of the extension, trailer format, SHA-256 of index and extension, size of
the whole pack, magic."""

FOOTER_BYTES = _FOOTER.size

Approval = Callable[["bytes | memoryview", bytes], None]
"""Given a packed index and the extension, raises PackError if the pack is not trusted."""


class Footer(NamedTuple):
    """The place of the index, its size and its digest."""

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
    return _encode(pack_frame(index), len(index), b"", frames_bytes)


def extend(pack: BinaryIO, make_extension: Callable[[bytes], bytes]) -> None:
    """Replace the extension of a finished pack by what ``make_extension`` makes of its packed index."""
    size = pack.seek(0, os.SEEK_END)
    pack.seek(size - FOOTER_BYTES)
    footer = decode_footer("unpublished", pack.read(FOOTER_BYTES), size)
    frames_bytes = size - footer.trailer_bytes
    pack.seek(frames_bytes + _SKIPPABLE.size)
    index = pack.read(footer.index_packed_bytes)
    pack.seek(frames_bytes)
    pack.write(_encode(index, footer.index_raw_bytes, make_extension(index), frames_bytes))
    pack.truncate()


def _encode(index: bytes, index_raw_bytes: int, extension: bytes, frames_bytes: int) -> bytes:
    covered = index + extension
    content_bytes = len(covered) + FOOTER_BYTES
    footer = _FOOTER.pack(
        len(index),
        index_raw_bytes,
        len(extension),
        _TRAILER,
        hashlib.sha256(covered).digest(),
        frames_bytes + _SKIPPABLE.size + content_bytes,
        _MAGIC,
    )
    return _SKIPPABLE.pack(_SKIPPABLE_MAGIC, content_bytes) + covered + footer


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
    if extension > MAX_EXTENSION_BYTES:
        raise CorruptPackError(
            pack, f"its signature claims {extension} bytes, the most allowed is {MAX_EXTENSION_BYTES}"
        )
    if packed > raw + raw // 128 + MB:  # packing never makes more of it
        raise CorruptPackError(pack, f"its index claims {packed} bytes packed, and {raw} unpacked")
    return footer


def decode_index(pack: str, footer: Footer, trailer: bytes | bytearray, approve: Approval | None = None) -> bytearray:
    """The index out of a whole trailer, checked against the footer's digest; raises CorruptPackError.

    ``approve`` is given the packed index and the extension before anything is unpacked, and raises if they will not do.
    """
    magic, content_bytes = _SKIPPABLE.unpack_from(trailer)
    if magic != _SKIPPABLE_MAGIC or content_bytes != len(trailer) - _SKIPPABLE.size:
        raise CorruptPackError(pack, "the frame that holds its index is damaged")
    # Views, because an index may have 64 MiB.
    with memoryview(trailer) as whole, whole[_SKIPPABLE.size : len(trailer) - FOOTER_BYTES] as covered:
        if hashlib.sha256(covered).digest() != footer.sha256:
            raise CorruptPackError(pack, "its index does not have the digest that was published")
        with covered[: footer.index_packed_bytes] as packed:
            if approve is not None:
                approve(packed, bytes(covered[footer.index_packed_bytes :]))
            try:
                return unpack_frame(packed, footer.index_raw_bytes)
            except ZstdError as error:
                raise CorruptPackError(pack, f"its index cannot be unpacked ({error})") from error
