"""The contract of a store: named, immutable objects, created whole or not at all.

Names are relative, ``/``-separated and made of the characters of :data:`NAME`. Every method raises
:class:`~b10_transfer.errors.StoreError`, with the foreign error as its cause, when the store cannot do what was
asked. Absence is an answer (``None``, ``False``, an empty list), never an error. Stores neither retry nor log.

What only reads takes a :class:`ReadStore`; a :class:`Store` can write too.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from typing import BinaryIO, NamedTuple

NAME = re.compile(r"\.?[A-Za-z0-9_][A-Za-z0-9_.-]*(/\.?[A-Za-z0-9_][A-Za-z0-9_.-]*)*", re.ASCII)
"""What an object's name looks like; no component is ``.``, ``..`` or empty."""


class ObjectInfo(NamedTuple):
    """One object in a listing."""

    name: str
    size_bytes: int
    modified_s: float
    """When it appeared, in seconds on the store's own clock (see :meth:`Store.now`)."""


class ObjectReader(ABC):
    """An open object. Deleting the object may or may not end what an open reader can read."""

    size_bytes: int

    @abstractmethod
    def read_at(self, offset: int, length: int) -> bytes:
        """Exactly ``length`` bytes from ``offset``; raises :class:`StoreError` if there are fewer."""

    @abstractmethod
    def close(self) -> None:
        """Release what the reader holds. Calling it twice is fine."""

    def __enter__(self) -> ObjectReader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class ReadStore(ABC):
    """A store that can be read. Nothing here writes, not even a lock."""

    location: str
    """Where the store is, for people."""

    @abstractmethod
    def list(self, folder: str) -> list[ObjectInfo]:
        """Objects directly below ``folder``, sorted by name; empty if there is no such folder.

        An object whose creation ended before the call is listed, unless the file system itself serves stale listings
        (NFS may, for some seconds). One that is created or deleted meanwhile may or may not be.
        """

    @abstractmethod
    def open(self, name: str) -> ObjectReader | None:
        """Open an object for reading; ``None`` if there is none."""


class Store(ReadStore):
    """A store that can be read and written."""

    @abstractmethod
    def create(self, name: str, source: BinaryIO) -> bool:
        """Publish all that ``source`` holds from its position on, under ``name``.

        The object appears whole or not at all, durably, and never replaces another: of any number of concurrent
        creators of one name exactly one gets True. False means that the name was taken. After an error the object
        is absent, or whole if only the acknowledgement of its creation was lost.
        """

    @abstractmethod
    def delete(self, name: str) -> bool:
        """Remove an object; False if there was none."""

    @abstractmethod
    def now(self) -> float:
        """Seconds on the clock that :attr:`ObjectInfo.modified_s` is read from.

        Ages of objects are differences to this, so that a wrong clock on a pod makes nothing look old.
        """

    @abstractmethod
    def remove_abandoned(self, older_than_s: float) -> int:
        """Remove what creators that died have left behind, if it has not grown for that long; how many were removed.

        Touches nothing that a live creator is still writing and nothing that is listed as an object.
        """
