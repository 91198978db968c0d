"""A store in a bucket: S3, Google Cloud Storage or Azure, through obstore.

What is asked of the bucket: that an object appears whole or not at all, which all of them promise, and conditional
creation (``If-None-Match: *``) of small objects, where leases are used. A bucket that ignores the condition costs work
and nothing else.

obstore's runtime does not survive a fork and its calls cannot be interrupted, so this class is used in a worker
process alone (:mod:`.worker`). Retries, with jitter, are obstore's, within the operation's deadline. Credentials,
regions and endpoints come from each provider's usual variables (``AWS_ACCESS_KEY_ID``, ``AWS_ENDPOINT_URL``,
``GOOGLE_SERVICE_ACCOUNT``, ``AZURE_STORAGE_ACCOUNT_NAME`` …), or from the machine's identity.
"""

from __future__ import annotations

import os
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import datetime, timedelta, timezone

import obstore
from obstore.exceptions import AlreadyExistsError, BaseError, PermissionDeniedError, UnauthenticatedError
from obstore.store import from_url

from ..errors import StoreError
from .base import ObjectInfo, ObjectReader, Store, StoreFacts, is_name

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any, TypeVar

    from obstore.store import ClientConfig, RetryConfig

    from .base import Source

    T = TypeVar("T")

MB = 1024 * 1024

_TAIL_BYTES = 1 * MB
"""Fetched when an object is opened, together with its size: the index of nearly every pack, and all of a small one."""
_PART_BYTES = 4 * MB
"""Larger ranges are fetched in parts of this size at once."""
_PARTS_AHEAD = 8
_CONDITIONAL_BYTES = 64 * MB
"""Up to this size an object is created by one conditional request. A larger one is uploaded in parts, which no bucket
does under a condition: its name must be unique, as those of packs are."""
_CONNECT_TIMEOUT_S = 5
_REQUEST_TIMEOUT_S = 30
_MOST_RETRIES = 10
_CLOCK = ".clock"


class BucketStore(Store):
    """Objects below ``<scheme>://<bucket>/<prefix>``. ``timeout_s`` bounds each call with its retries."""

    def __init__(self, url: str, timeout_s: float) -> None:
        self.location = url
        timeout_s = max(timeout_s, 1)
        retries: RetryConfig = {"max_retries": _MOST_RETRIES, "retry_timeout": timedelta(seconds=timeout_s)}
        options: ClientConfig = {
            "connect_timeout": timedelta(seconds=min(_CONNECT_TIMEOUT_S, timeout_s)),
            "timeout": timedelta(seconds=min(_REQUEST_TIMEOUT_S, timeout_s)),
        }
        if os.environ.get("AWS_ENDPOINT_URL", "").startswith("http://"):
            options["allow_http"] = True
        with self._translated("reach", url):
            self._store = from_url(
                url,
                client_options=options,
                retry_config=retries,
            )
        self._pool = ThreadPoolExecutor(_PARTS_AHEAD)

    def folders(self, folder: str) -> list[str]:
        return sorted(prefix.rstrip("/") for prefix in self._listing(folder)["common_prefixes"])

    def list(self, folder: str) -> list[ObjectInfo]:
        return sorted(
            (
                ObjectInfo(found["path"], found["size"], found["last_modified"].timestamp())
                for found in self._listing(folder)["objects"]
            ),
            key=lambda info: info.name,
        )

    def facts(self) -> StoreFacts:
        self._listing(_CLOCK)
        return StoreFacts(exists=True)

    def open(self, name: str) -> ObjectReader | None:
        try:
            with self._translated("open", name):
                # One request for the size and the end, which is what a reader of packs asks for first.
                found = obstore.get(self._store, name, options={"range": {"suffix": _TAIL_BYTES}})
                size, tail = found.meta["size"], bytes(found.bytes())
        except _EmptyObjectError:
            size, tail = 0, b""
        except _MissingError:
            return None
        return _BucketReader(self, name, size, tail)

    def create(self, name: str, source: Source) -> bool:
        head = _read(source, _CONDITIONAL_BYTES + 1)
        with self._translated("write", name):
            try:
                if len(head) <= _CONDITIONAL_BYTES:
                    obstore.put(self._store, name, head, mode="create", use_multipart=False)
                elif self._exists(name):
                    return False
                else:
                    obstore.put(self._store, name, _parts(head, source), mode="overwrite", use_multipart=True)
            except AlreadyExistsError:
                return False
        return True

    def delete(self, name: str) -> bool:
        with self._translated("delete", name):
            # Deleting says nothing about whether there was anything.
            if not self._exists(name):
                return False
            obstore.delete(self._store, name)
        return True

    def now(self) -> float:
        folder = f"{_CLOCK}/{os.urandom(8).hex()}"
        name = f"{folder}/now"
        with self._translated("write", name):
            obstore.put(self._store, name, b"", use_multipart=False)
            # From a listing, as the times that it is compared with: the object's own header knows whole seconds only.
            found = self.list(folder)
            obstore.delete(self._store, name)
        if not found:
            raise StoreError("read the clock of", self.location, "an object just made is not listed")
        return found[0].modified_s

    def remove_abandoned(self, older_than_s: float) -> int:
        """Remove what a dead process left of reading the clock.

        Uploads that were never completed are no objects; the bucket's own lifecycle rule removes them.
        """
        oldest = datetime.now(timezone.utc) - timedelta(seconds=max(older_than_s, 3600))
        found = [info for folder in self.folders(_CLOCK) for info in self.list(folder)]
        names = [info.name for info in found if info.modified_s < oldest.timestamp()]
        return sum(self.delete(name) for name in names)

    def read_range(self, name: str, start: int, end: int) -> bytes:
        """The bytes of an object from ``start`` to before ``end``, large ranges in parts at once."""
        with self._translated("read", name):
            return bytes(obstore.get_range(self._store, name, start=start, end=end))

    def in_background(self, function: Callable[[], T]) -> Future[T]:
        """Run a request in one of this store's threads."""
        return self._pool.submit(function)

    def _listing(self, folder: str) -> Any:
        try:
            with self._translated("list", folder):
                return obstore.list_with_delimiter(self._store, folder)
        except _MissingError as error:
            # A prefix without objects is listed as empty: what is missing here is the bucket.
            raise StoreError("list", f"{self.location}/{folder}", _ADVICE["NoSuchBucket"]) from error

    def _exists(self, name: str) -> bool:
        try:
            obstore.head(self._store, name)
        except FileNotFoundError:
            return False
        return True

    def _translated(self, operation: str, name: str) -> _Translation:
        if name != self.location and not is_name(name):
            raise StoreError("use", f"the object name {name!r}", "it is not a relative name of plain characters")
        return _Translation(operation, name if name == self.location else f"{self.location}/{name}")


class _MissingError(StoreError):
    """There is no such object, or no such bucket."""


class _EmptyObjectError(StoreError):
    """An object without content, of which no range can be had."""


class _Translation:
    """Turns obstore's errors into ours."""

    def __init__(self, operation: str, target: str) -> None:
        self._operation = operation
        self._target = target

    def __enter__(self) -> None:
        pass

    def __exit__(self, _type: object, error: BaseException | None, _traceback: object) -> None:
        if error is None or isinstance(error, StoreError) or not isinstance(error, BaseError | OSError | ValueError):
            return
        code = _code(error)
        kind: type[StoreError] = StoreError
        if code in _ADVICE:
            detail = f"{_ADVICE[code]} ({code})"
        elif isinstance(error, FileNotFoundError):
            kind, detail = _MissingError, "there is no such object"
        elif code == "InvalidRange":
            kind, detail = _EmptyObjectError, "it is empty"
        elif isinstance(error, PermissionDeniedError | UnauthenticatedError):
            detail = f"access was refused; check the credentials and what they may do ({code or _first_line(error)})"
        else:
            detail = _first_line(error)
        raise kind(self._operation, self._target, detail) from error


_ADVICE = {
    "NoSuchBucket": "there is no such bucket; create it, or correct B10_STORE",
    "InvalidAccessKeyId": "the access key is not known; check the credentials",
    "SignatureDoesNotMatch": "the secret key is wrong, or region and endpoint do not belong together",
    "AccessDenied": "access was refused; the credentials lack a permission",
    "RequestTimeTooSkewed": "this machine's clock is too far off for the signature to be accepted",
    "SlowDown": "the bucket asks for fewer requests, and went on doing so; raise B10_DEADLINE_SECONDS",
}
"""What to do, by the code that a bucket answers."""


def _code(error: BaseException) -> str:
    """The code in an answer of a bucket, as S3 and Azure name it; empty if there is none."""
    _before, _tag, rest = str(error).partition("<Code>")
    return rest.partition("</Code>")[0][:100]


def _first_line(error: BaseException) -> str:
    """What an error says, without the answer's body and the Rust structure below it."""
    return str(error).partition("\n")[0].partition("<?xml")[0][:300].rstrip(": ")


class _BucketReader(ObjectReader):
    """Reads ranges, and ahead of them once they follow each other, as the frames of a pack do."""

    def __init__(self, store: BucketStore, name: str, size_bytes: int, tail: bytes) -> None:
        self.size_bytes = size_bytes
        self._store = store
        self._name = name
        self._tail = tail
        self._tail_start = size_bytes - len(tail)
        self._parts: dict[int, Future[bytes]] = {}
        self._ahead = 1
        self._next = -1

    def read_at(self, offset: int, length: int) -> bytes:
        if offset < 0 or offset + length > self.size_bytes:
            raise StoreError("read", self._name, f"it ends at byte {self.size_bytes}")
        if offset >= self._tail_start:
            start = offset - self._tail_start
            return self._tail[start : start + length]
        # Twice as far ahead each time that a range begins where the last one ended.
        self._ahead = min(2 * self._ahead, _PARTS_AHEAD) if offset == self._next else 1
        self._next = offset + length
        first, last = offset // _PART_BYTES, (offset + length - 1) // _PART_BYTES
        for number in range(first, last + self._ahead):
            self._fetch(number)
        for number in [number for number in self._parts if number < first]:
            self._parts.pop(number).cancel()
        data = b"".join(self._part(number) for number in range(first, last + 1))
        start = offset - first * _PART_BYTES
        return data[start : start + length] if (start, length) != (0, len(data)) else data

    def close(self) -> None:
        for part in self._parts.values():
            part.cancel()
        self._parts.clear()

    def _fetch(self, number: int) -> None:
        start = number * _PART_BYTES
        end = min(start + _PART_BYTES, self._tail_start)
        if number not in self._parts and start < end:
            self._parts[number] = self._store.in_background(lambda: self._store.read_range(self._name, start, end))

    def _part(self, number: int) -> bytes:
        """A part's bytes; the last one is completed by what was fetched when the object was opened."""
        start = number * _PART_BYTES
        data = self._parts[number].result() if number in self._parts else b""
        missing = min(_PART_BYTES, self.size_bytes - start) - len(data)
        begin = start + len(data) - self._tail_start
        return data + self._tail[begin : begin + missing] if missing > 0 else data


def _read(source: Source, most_bytes: int) -> bytes:
    """What a source holds, at most so much of it."""
    found = bytearray()
    while len(found) < most_bytes and (part := source.read(min(MB, most_bytes - len(found)))):
        found += part
    return bytes(found)


def _parts(head: bytes, source: Source) -> Iterator[bytes]:
    yield head
    while part := source.read(MB):
        yield bytes(part)
