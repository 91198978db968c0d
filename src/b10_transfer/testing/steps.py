"""Steps that the contract tests share."""

from __future__ import annotations

import io

from ..stores.base import ObjectReader, Store

REFUSED_NAMES = [
    "",
    ".",
    "..",
    "/",
    "/etc/passwd",
    "a/../b",
    "../a",
    "a/..",
    "a//b",
    "a/",
    "a/./b",
    "-a",
    "a/-b",
    "a b",
    "a\\b",
    "a\n",
    "a\0",
    "ä",
    "٣",
]
"""Names that no store accepts (:func:`b10_transfer.stores.is_name`)."""


class Unreliable(io.BytesIO):
    """A source that gives its content byte by byte, and then an error instead of an end."""

    def __init__(self, content: bytes, error: BaseException) -> None:
        super().__init__(content)
        self._error = error

    def read(self, size: int | None = -1, /) -> bytes:
        data = super().read(1)
        if not data or size is None or size < 0:
            raise self._error
        return data


def create(store: Store, name: str, data: bytes = b"content") -> bool:
    return store.create(name, io.BytesIO(data))


def opened(store: Store, name: str) -> ObjectReader:
    reader = store.open(name)
    assert reader is not None
    return reader


def content(store: Store, name: str) -> bytes | None:
    reader = store.open(name)
    if reader is None:
        return None
    with reader:
        return bytes(reader.read_at(0, reader.size_bytes))


def names(store: Store, folder: str) -> list[str]:
    return [info.name for info in store.list(folder)]
