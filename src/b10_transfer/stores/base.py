"""The contract of a store: named, immutable objects, created whole or not at all.

Names are relative, ``/``-separated and plain (:func:`is_name`). Every method raises
:class:`~b10_transfer.errors.StoreError`, with the foreign error as its cause, when the store cannot do what was
asked. Absence is an answer (``None``, ``False``, an empty list), never an error. Stores neither retry nor log.

What only reads takes a :class:`ReadStore`; a :class:`Store` can write too.

This module, like all that the worker process imports, keeps to modules that cost nothing to import: every load waits
for that process to start, and ``typing``, ``re``, ``pathlib`` and ``json`` would double the wait.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

from ..errors import StoreError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Protocol

    class Source(Protocol):
        """The part of a binary file that a store uses."""

        def read(self, size: int = -1, /) -> bytes | bytearray: ...


TAIL_BYTES = 256 * 1024
"""A read that begins in the last so many bytes never comes from a copy (see :meth:`ObjectReader.read_at`)."""
MOST_LISTED = 100_000
"""A listing of more objects is an error: otherwise a writer of the store could use up the memory of its readers."""
_CHARACTERS = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-")


def is_name(name: str) -> bool:
    """Whether this can name an object or a folder of them.

    Components are letters, digits, ``.``, ``_`` and ``-``; none is empty, begins with ``-``, or is ``.`` or ``..``.
    """
    return all(
        part not in ("", ".", "..") and part[0] != "-" and _CHARACTERS.issuperset(part) for part in name.split("/")
    )


class TooManyObjectsError(StoreError):
    """A listing has more than :data:`MOST_LISTED` objects."""


def check_count(count: int, folder: str) -> None:
    """Raise TooManyObjectsError if a folder, given with the store's location, has more objects than may be listed."""
    if count > MOST_LISTED:
        detail = f"it holds more than {MOST_LISTED} objects; delete those that this package has not created"
        raise TooManyObjectsError("list", folder, detail)


class ObjectInfo:
    """One object in a listing."""

    __slots__ = ("modified_s", "name", "size_bytes")

    def __init__(self, name: str, size_bytes: int, modified_s: float) -> None:
        self.name = name
        self.size_bytes = size_bytes
        self.modified_s = modified_s
        """When it appeared, in seconds on the store's own clock (see :meth:`Store.now`)."""


class StoreFacts:
    """Facts about the place of a store, for people."""

    __slots__ = ("exclusive", "exists", "free_bytes", "hard_links", "read_only")

    def __init__(
        self,
        *,
        exists: bool,
        free_bytes: int | None = None,
        hard_links: bool | None = None,
        exclusive: bool | None = None,
        read_only: str = "",
    ) -> None:
        self.exists = exists
        """False if the first object that is created makes the place as well."""
        self.free_bytes = free_bytes
        """Room for more objects; None if there is no such limit, or if it is unknown."""
        self.hard_links = hard_links
        """Whether objects get their names by hard links; None unless this store has created one in a directory."""
        self.exclusive = exclusive
        """False where the store has found out that two creators of one name may both be told that they created it."""
        self.read_only = read_only
        """Why this process can write nothing there; empty if it can, or if only an attempt would show it."""


class BorrowedBuffer:
    """Bytes that are there until this context is left: their memory is then used again."""

    __slots__ = ("_data",)

    def __init__(self, data: bytes | bytearray | memoryview) -> None:
        self._data = data

    def __enter__(self) -> bytes | bytearray | memoryview:
        return self._data

    def __exit__(self, *_: object) -> None:
        """Nothing: this memory is not shared."""


class ObjectReader(ABC):
    """An open object. Deleting the object may or may not end what an open reader can read."""

    size_bytes: int
    waits = True
    """Whether a read may wait for another machine or process. Then it helps to start the next read early."""

    @abstractmethod
    def read_at(self, offset: int, length: int) -> bytes | bytearray:
        """Exactly ``length`` bytes from ``offset``; raises :class:`StoreError` if there are fewer.

        A store may read from a copy that others can change (a node's cache), but not if ``offset`` lies in the last
        :data:`TAIL_BYTES` of the object: a pack has its index there, and a copy is checked against the index. The
        part of an index that lies before them is read with :meth:`reread_at`. So no index ever comes from a copy.
        """

    def reread_at(self, offset: int, length: int) -> bytes | bytearray:
        """The same, but never from a copy: for an index, and after a digest mismatch."""
        return self.read_at(offset, length)

    def borrow_at(self, offset: int, length: int) -> BorrowedBuffer:
        """The same bytes until the context is left, if that saves copying them."""
        return BorrowedBuffer(self.read_at(offset, length))

    def views_at(self, offset: int, length: int) -> list[memoryview]:
        """The same bytes in several pieces, if that saves joining them."""
        return [memoryview(self.read_at(offset, length))]

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
    def folders(self, folder: str) -> list[str]:
        """Names of the folders directly below ``folder``, sorted; empty if there is no such folder.

        One that holds an object, at any depth, is among them; one whose objects have all been deleted may be.
        """

    @abstractmethod
    def list(self, folder: str) -> list[ObjectInfo]:
        """Objects directly below ``folder``, sorted by name; empty if there is no such folder.

        A directory or bucket with more than :data:`MOST_LISTED` objects there raises :class:`TooManyObjectsError`.

        An object whose creation ended before the call is listed, unless the file system itself serves stale listings
        (NFS may, for some seconds). One that is created or deleted meanwhile may or may not be.
        """

    def list_each(self, folders: Sequence[str]) -> Sequence[Sequence[ObjectInfo]]:
        """The result of :meth:`list` for each of some folders with one parent, in fewer requests if possible."""
        return [self.list(folder) for folder in folders]

    @abstractmethod
    def facts(self) -> StoreFacts:
        """Facts about the place of the store."""

    def expect(self, names: Sequence[str]) -> None:  # noqa: B027 - nothing is the right thing where opening is fast
        """Name the objects that will be opened soon, in this order, and possibly more than once.

        A store in which opening takes a while fetches them ahead. It may then give what was there at this call.
        """

    @abstractmethod
    def open(self, name: str) -> ObjectReader | None:
        """Open an object for reading; ``None`` if there is none."""


def read_small(store: ReadStore, name: str, most_bytes: int) -> bytes | None:
    """Read a small object whole; None if there is none, and empty if it is larger. Raises StoreError."""
    source = store.open(name)
    if source is None:
        return None
    with source:
        return bytes(source.read_at(0, source.size_bytes)) if source.size_bytes <= most_bytes else b""


class Store(ReadStore):
    """A store that can be read and written."""

    @abstractmethod
    def create(self, name: str, source: Source) -> bool:
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
