"""The content of an object as an upload takes it: the beginning first, then the rest in parts."""

from __future__ import annotations

from .ranges import MB

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from ..base import Source

REQUESTS = 3
"""An upload in parts begins, sends parts and completes. Only obstore knows how many parts it has sent."""


def read_at_most(source: Source, most_bytes: int) -> bytearray:
    """The first bytes of a source, at most so many."""
    found = bytearray()
    while len(found) < most_bytes and (part := source.read(min(MB, most_bytes - len(found)))):
        found += part
    return found


def parts(head: bytearray, source: Source) -> Iterator[bytes | bytearray]:
    """The part that was read already, and then the rest of the source."""
    yield head
    while part := source.read(MB):
        yield bytes(part)
