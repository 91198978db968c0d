"""The worker's side of :mod:`.worker`: serves one store over a socket until that closes."""

from __future__ import annotations

import os
import sys

from ...errors import ReadOnlyStoreError, StoreError
from .. import traffic
from .ahead import AheadDirectory
from .wire import receive, send

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    from ..base import ObjectInfo, ObjectReader, Store
    from .wire import Connection

    _Answer = tuple[dict[str, Any], list[memoryview]]


_GAVE_UP = "its client gave up; check credentials, region and endpoint for line breaks and other odd characters"


class _AbortedError(Exception):
    """The client's source failed, or the client is gone."""


class _Incoming:
    """The body of an object that is being created, as far as :meth:`Store.create` needs a file."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._ended = False
        self._left = bytearray()

    def read(self, size: int = -1) -> bytes | bytearray:
        """Bytes of the body, at most ``size`` of them, or all if it is negative; empty at the end.

        Raises _AbortedError.
        """
        if size < 0:
            parts = [self._left]
            while not self._ended:
                parts.append(self._next_part())
            self._left = bytearray()
            return b"".join(parts)
        part = self._left or self._next_part()
        if len(part) <= size:  # the usual case, without a copy
            self._left = bytearray()
            return part
        self._left = part[size:]
        return part[:size]

    def _next_part(self) -> bytearray:
        if self._ended:
            return bytearray()
        message = receive(self._connection)
        if message is None:
            raise _AbortedError
        header, payload = message
        self._ended = header["part"] != "more"
        if header["part"] == "abort":
            raise _AbortedError
        return payload

    def drain(self) -> None:
        """Take what a creation that failed early has left in the connection."""
        while not self._ended:
            self._next_part()


class Server:
    """Answers one request at a time."""

    def __init__(self, connection: Connection, memory: memoryview, open_store: Callable[[], Store]) -> None:
        self._connection = connection
        self._memory = memory
        self._open_store = open_store
        self._readers: dict[int, ObjectReader] = {}
        self._opened = 0
        self._opened_store: Store | None = None

    def run(self) -> None:
        """Serve until the client closes the connection."""
        while (message := receive(self._connection)) is not None:
            header, _payload = message
            try:
                answer, payload = getattr(self, "_do_" + header["do"])(header)
            except StoreError as error:
                answer, payload = {"error": [error.operation, error.target, error.detail]}, []
                answer["read_only"] = isinstance(error, ReadOnlyStoreError)
            except _AbortedError:
                answer, payload = {"error": ["write", header["name"], "its source could not be read"]}, []
            except Exception as error:  # noqa: BLE001 - one request must not end the worker for the others
                answer, payload = {"error": [header["do"], "the store", f"{type(error).__name__}: {error}"]}, []
            except BaseException as error:  # noqa: BLE001 - a panic of obstore is no Exception
                answer, payload = {"error": [header["do"], "the store", f"{_GAVE_UP} ({error})"]}, []
            if any(taken := traffic.total.take()):  # of a bucket, since the last answer
                answer["traffic"] = taken
            send(self._connection, answer, *payload)

    @property
    def _store(self) -> Store:
        """Opened by the first request, so that the client gets the error if that fails."""
        if self._opened_store is None:
            self._opened_store = self._open_store()
        return self._opened_store

    def _do_list(self, header: dict[str, Any]) -> _Answer:
        found = self._store.list(header["folder"])
        return {"objects": _listed(found)}, []

    def _do_list_each(self, header: dict[str, Any]) -> _Answer:
        return {"objects": [_listed(found) for found in self._store.list_each(header["folders"])]}, []

    def _do_folders(self, header: dict[str, Any]) -> _Answer:
        return {"folders": self._store.folders(header["folder"])}, []

    def _do_facts(self, _header: dict[str, Any]) -> _Answer:
        facts = self._store.facts()
        return {name: getattr(facts, name) for name in facts.__slots__}, []

    def _do_expect(self, header: dict[str, Any]) -> _Answer:
        self._store.expect(header["names"])
        return {}, []

    def _do_open(self, header: dict[str, Any]) -> _Answer:
        reader = self._store.open(header["name"])
        if reader is None:
            return {"reader": None}, []
        self._opened += 1
        self._readers[self._opened] = reader
        return {"reader": self._opened, "size": reader.size_bytes}, []

    def _do_read(self, header: dict[str, Any]) -> _Answer:
        reader = self._readers.get(header["reader"])
        if reader is None:  # closed while another thread of the client was about to ask
            raise StoreError("read", "an object", "it has been closed")
        views = reader.views_at(header["offset"], header["length"])
        at = header.get("at")
        if at is None:
            return {}, views
        for view in views:
            self._memory[at : at + len(view)] = view
            at += len(view)
        return {}, []

    def _do_close(self, header: dict[str, Any]) -> _Answer:
        self._readers.pop(header["reader"]).close()
        return {}, []

    def _do_create(self, header: dict[str, Any]) -> _Answer:
        source = _Incoming(self._connection)
        try:
            return {"created": self._store.create(header["name"], source)}, []
        finally:
            source.drain()

    def _do_delete(self, header: dict[str, Any]) -> _Answer:
        return {"deleted": self._store.delete(header["name"])}, []

    def _do_now(self, _header: dict[str, Any]) -> _Answer:
        return {"now": self._store.now()}, []

    def _do_clean(self, header: dict[str, Any]) -> _Answer:
        return {"removed": self._store.remove_abandoned(header["older_than_s"])}, []


def _listed(found: Sequence[ObjectInfo]) -> list[list[str | int | float]]:
    return [[info.name, info.size_bytes, info.modified_s] for info in found]


class _StandardInput:
    """The socket that this process was given as its standard input. (The module ``socket`` takes 7 ms to import.)"""

    def sendall(self, data: bytes | bytearray | memoryview) -> None:
        view = memoryview(data)
        while view:
            view = view[os.write(0, view) :]

    def recv_into(self, buffer: memoryview) -> int:
        return os.readv(0, [buffer])


def _mapped(descriptor: int) -> memoryview:
    if descriptor < 0:
        return memoryview(b"")
    import mmap  # not on every system that this module is imported on

    return memoryview(mmap.mmap(descriptor, 0))


def main() -> None:
    """Arguments: a descriptor of shared memory, or -1, and the kind of store; then a directory, and whether its parents
    may be made; or a URL, and seconds; for a plugin also its entry point, and its package."""
    memory, kind, place, option, *plugin = sys.argv[1:]

    def open_store() -> Store:
        if kind == "bucket":
            from ..bucket.store import BucketStore  # imports obstore, which the directory's worker has no use for

            return BucketStore(place, float(option))
        if kind == "plugin":
            from .plugin import open_plugin

            return open_plugin(place, float(option), *plugin)
        return AheadDirectory(place, make_parents=option == "1")

    Server(_StandardInput(), _mapped(int(memory)), open_store).run()
