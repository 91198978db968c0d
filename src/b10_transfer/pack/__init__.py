"""The pack: an immutable ``.tar.zst`` with a verified index. docs/format.md describes the bytes."""

from __future__ import annotations

from .index import PACK_ID, Frame, Index, Limits, Member, PackUnit
from .reader import PackReader, Piece, Slice
from .writer import Content, PackWriter, SourceFile

__all__ = [
    "PACK_ID",
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
]
