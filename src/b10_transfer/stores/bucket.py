"""A store in a bucket: S3, Google Cloud Storage or Azure, through obstore.

What is asked of the bucket: that an object appears whole or not at all, which all of them promise, and conditional
creation (``If-None-Match: *``) of small objects, where leases are used. A bucket that ignores or refuses the condition
costs work and nothing else.

obstore's runtime does not survive a fork and its calls cannot be interrupted, so this class is used in a worker
process alone (:mod:`.worker`). Failed requests are repeated, with jitter, for most of the operation's deadline: by
obstore where repeating one is harmless, here where it creates an object. Credentials, regions and endpoints come from
each provider's usual variables (``AWS_ACCESS_KEY_ID``, ``AWS_ENDPOINT_URL``, ``GOOGLE_SERVICE_ACCOUNT``,
``AZURE_STORAGE_ACCOUNT_NAME`` …), or from the machine's identity.
"""

from __future__ import annotations

import os
import time
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import datetime, timedelta, timezone

import obstore
from obstore.exceptions import AlreadyExistsError, BaseError, NotSupportedError
from obstore.store import from_url

from ..errors import StoreError
from .answers import EmptyObjectError, MissingError, Translation, is_lost, is_repeatable, is_unsupported
from .base import ObjectInfo, ObjectReader, Store, StoreFacts, is_name
from .ranges import MB, PARTS_AHEAD, TAIL_BYTES, End, Ends, RangeReader

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from typing import Any, TypeVar

    from obstore.store import ClientConfig, ObjectStore

    from .base import Source

    T = TypeVar("T")

_CONDITIONAL_BYTES = 16 * MB
"""Up to this size an object is created by one conditional request. A larger one is uploaded in parts, which no bucket
does under a condition: its name must be unique, as those of packs are."""
_CONNECT_TIMEOUT_S = 5
_SILENCE_S = 20
"""A connection on which nothing comes for so long is given up: 16 MB must be uploaded in that time."""
_TRIES = 3
"""A request that hangs is given up early enough for so many, whatever the deadline."""
_REPEATING = 0.7
"""The part of the deadline after which a request is not repeated any more: its error says more than the deadline's."""
_MOST_PAUSE_S = 3.0
_PAUSES = 15
"""A pause is at most this fraction of the deadline: the last one may begin just before repeating ends."""
_CLOCK = ".clock"


class BucketStore(Store):
    """Objects below ``<scheme>://<bucket>/<prefix>``. ``timeout_s`` is what is left of the operation's deadline."""

    def __init__(self, url: str, timeout_s: float) -> None:
        self.location = url
        self._timeout_s = max(timeout_s, 1.0)
        self._most_pause_s = min(_MOST_PAUSE_S, self._timeout_s / _PAUSES)
        self._store = self._connected(self._timeout_s * _REPEATING)
        self._creating: ObjectStore | None = None
        self._conditional = True
        self._pool = ThreadPoolExecutor(PARTS_AHEAD)
        self._ends = Ends(self._end, self._in_background)

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
        return StoreFacts(exists=True, exclusive=None if self._conditional else False)

    def expect(self, names: Sequence[str]) -> None:
        self._ends.expect(names)

    def open(self, name: str) -> ObjectReader | None:
        end = self._ends.of(name)
        if end is None:
            return None

        def fetch(start: int, before: int) -> memoryview:
            with self._translated("read", name):
                return memoryview(obstore.get_range(self._store, name, start=start, end=before))

        return RangeReader(f"{self.location}/{name}", end, fetch, self._in_background)

    def create(self, name: str, source: Source) -> bool:
        head = _read(source, _CONDITIONAL_BYTES + 1)
        with self._translated("write", name):
            if len(head) <= _CONDITIONAL_BYTES:
                return self._create_at_once(name, bytes(head))
            if self._exists(name):
                return False
            obstore.put(self._store, name, _parts(head, source), mode="overwrite", use_multipart=True)
            return True

    def delete(self, name: str) -> bool:
        with self._translated("delete", name):
            self._ends.forget(name)
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

    def _connected(self, repeating_s: float) -> ObjectStore:
        """A client that repeats what fails for so long."""
        silence_s = min(_SILENCE_S, self._timeout_s / _TRIES)
        options: ClientConfig = {
            "connect_timeout": timedelta(seconds=min(_CONNECT_TIMEOUT_S, silence_s)),
            "read_timeout": timedelta(seconds=silence_s),
            "timeout": timedelta(seconds=self._timeout_s),
        }
        if os.environ.get("AWS_ENDPOINT_URL", "").startswith("http://"):
            options["allow_http"] = True
        with self._translated("reach", self.location):
            return from_url(
                self.location,
                client_options=options,
                retry_config={
                    # The time decides, not the number.
                    "max_retries": 1_000_000 if repeating_s else 0,
                    "retry_timeout": timedelta(seconds=repeating_s),
                    "backoff": {
                        "init_backoff": timedelta(seconds=0.1),
                        "max_backoff": timedelta(seconds=max(self._most_pause_s, 0.1)),
                        "base": 2,
                    },
                },
            )

    def _create_at_once(self, name: str, data: bytes) -> bool:
        """Create an object by one request, repeated as long as that may help."""
        if self._creating is None:
            # A creation cannot be repeated blindly: the first request may have been heard, though not its answer.
            self._creating = self._connected(0)
        ends = time.monotonic() + self._timeout_s * _REPEATING
        pause_s, was_lost = 0.1, False
        while True:
            try:
                if not self._conditional and self._exists(name):
                    return was_lost and self._holds(name, data)
                obstore.put(
                    self._creating,
                    name,
                    data,
                    mode="create" if self._conditional else "overwrite",
                    use_multipart=False,
                )
                return True
            except AlreadyExistsError:
                return was_lost and self._holds(name, data)
            except (NotSupportedError, NotImplementedError):
                self._conditional = False
            except BaseError as error:
                if self._conditional and is_unsupported(error):
                    self._conditional = False
                    continue
                pause_s = min(pause_s * (1 + 2 * int.from_bytes(os.urandom(1), "big") / 255), self._most_pause_s)
                if not is_repeatable(error) or time.monotonic() + pause_s > ends:
                    raise
                was_lost = was_lost or is_lost(error)
                time.sleep(pause_s)

    def _holds(self, name: str, data: bytes) -> bool:
        """Whether an object that exists is the one that this process tried to create."""
        try:
            return bytes(obstore.get(self._store, name).bytes()) == data
        except FileNotFoundError:
            return False

    def _end(self, name: str) -> End | None:
        try:
            with self._translated("open", name):
                # One request for the size and the end, which is what a reader of packs asks for first.
                found = obstore.get(self._store, name, options={"range": {"suffix": TAIL_BYTES}})
                return End(found.meta["size"], memoryview(found.bytes()))
        except EmptyObjectError:
            return End(0, memoryview(b""))
        except MissingError:
            return None

    def _in_background(self, function: Callable[[], T]) -> Future[T]:
        return self._pool.submit(function)

    def _listing(self, folder: str) -> Any:
        try:
            with self._translated("list", folder):
                return obstore.list_with_delimiter(self._store, folder)
        except MissingError as error:
            # A prefix without objects is listed as empty: what is missing here is the bucket.
            raise StoreError(
                "list", error.target, "there is no such bucket; create it, or correct B10_STORE"
            ) from error

    def _exists(self, name: str) -> bool:
        try:
            obstore.head(self._store, name)
        except FileNotFoundError:
            return False
        return True

    def _translated(self, operation: str, name: str) -> Translation:
        if name != self.location and not is_name(name):
            raise StoreError("use", f"the object name {name!r}", "it is not a relative name of plain characters")
        return Translation(operation, name if name == self.location else f"{self.location}/{name}")


def _read(source: Source, most_bytes: int) -> bytearray:
    """What a source holds, at most so much of it."""
    found = bytearray()
    while len(found) < most_bytes and (part := source.read(min(MB, most_bytes - len(found)))):
        found += part
    return found


def _parts(head: bytearray, source: Source) -> Iterator[bytes | bytearray]:
    yield head
    while part := source.read(MB):
        yield bytes(part)
