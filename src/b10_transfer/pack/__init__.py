"""The pack: an immutable ``.tar.zst`` with a verified index. docs/format.md describes the bytes."""

from __future__ import annotations

from .index import Index
from .limits import Amount, Budget, Limits
from .reader import PackReader, Piece, Slice, packed_bytes_of
from .units import PACK_ID, Frame, Member, PackUnit
from .writer import FRAME_RAW_BYTES, Content, PackWriter, SourceFile

__all__ = [
    "FRAME_RAW_BYTES",
    "PACK_ID",
    "Amount",
    "Budget",
    "Content",
    "Frame",
    "Index",
    "Limits",
    "Member",
    "PackReader",
    "PackUnit",
    "PackWriter",
    "Piece",
    "Slice",
    "SourceFile",
    "packed_bytes_of",
]
