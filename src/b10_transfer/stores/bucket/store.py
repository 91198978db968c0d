"""A store in a bucket: S3, Google Cloud Storage or Azure, through obstore.

What is asked of the bucket: that an object appears whole or not at all, which all of them promise, and conditional
creation (``If-None-Match: *``) of small objects, where leases are used. A bucket that ignores or refuses the condition
costs work and nothing else.

obstore's runtime does not survive a fork and its calls cannot be interrupted, so this class is used in a worker
process alone (:mod:`.worker`). Failed requests are repeated, with jitter, for most of the operation's deadline, but
only for a moment where nobody has ever answered. Credentials, regions and endpoints come from each provider's usual
variables (``AWS_ACCESS_KEY_ID``, ``AWS_ENDPOINT_URL``, ``GOOGLE_SERVICE_ACCOUNT``, ``AZURE_STORAGE_ACCOUNT_NAME`` …),
or from the machine's identity.
"""

from __future__ import annotations

import os
from datetime import datetime, timedelta, timezone

import obstore
from obstore.exceptions import AlreadyExistsError, BaseError, NotSupportedError
from obstore.store import from_url

from ...errors import StoreError
from ..base import ObjectInfo, StoreFacts, is_name
from .errors import EmptyObjectError, MissingError, Translation, UnusableNameError, classify
from .ranges import MB, PARTS_AHEAD, TAIL_BYTES, End, RangedStore
from .retry import FIRST_PAUSE_S, REPEATING, Attempts, Pace, most_pause_s
from .settings import check_variables, is_plain_http
from .threads import Background

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from typing import Any, TypeVar

    from obstore.store import BackoffConfig, ClientConfig, ObjectStore, RetryConfig

    from ..base import Source

    T = TypeVar("T")

_CONDITIONAL_BYTES = 16 * MB
"""Up to this size an object is created by one conditional request. A larger one is uploaded in parts, which no bucket
does under a condition: its name must be unique, as those of packs are."""
_CONNECT_TIMEOUT_S = 5
_SILENCE_S = 20
"""A connection on which nothing comes for so long is given up: 16 MB must be uploaded in that time."""
_TRIES = 3
"""A request that hangs is given up early enough for so many, whatever the deadline."""
_ABSENT_S = 3.0
"""Where a connection is refused or a name unknown, and nobody was ever there, a request is repeated for so long: the
endpoint is wrong, and a start shall not wait for it. A service that was there and restarts is waited for."""
_SILENT_S = 15.0
"""The same where connections vanish, because a firewall drops them, and where whoever should tell this machine's
identity says nothing, because pods are kept from asking. Longer, because either may be busy when a fleet starts."""
_CLOCK = ".clock"
_CLOCK_TRIES = 5
_MOST_ABANDONED = 100
"""So many objects are removed by one clean-up: each takes a request."""
_HEXADECIMAL = frozenset("0123456789abcdef")
_WITHOUT_SUFFIXES = ("az://", "abfs://", "abfss://")
"""Azure gives no range that is counted from an object's end: its size must be asked for first."""


class BucketStore(RangedStore):
    """Objects below ``<scheme>://<bucket>/<prefix>``. ``timeout_s`` is what is left of the operation's deadline."""

    def __init__(self, url: str, timeout_s: float) -> None:
        check_variables(url, os.environ)
        self.location = url
        self._timeout_s = max(timeout_s, 1.0)
        # It repeats nothing by itself: what may be repeated, and for how long, it cannot know.
        self._store = self._connected({"max_retries": 0, "retry_timeout": timedelta(0)})
        self._was_met = False
        self._pace = Pace(self._timeout_s)
        self._conditional = True
        self._knows_suffixes = not self.location.startswith(_WITHOUT_SUFFIXES)
        super().__init__(Background(PARTS_AHEAD).start)

    def folders(self, folder: str) -> list[str]:
        return sorted(prefix.rstrip("/") for prefix in self._listing(folder)["common_prefixes"])

    def list(self, folder: str) -> list[ObjectInfo]:
        try:
            return sorted(map(_info, self._listing(folder)["objects"]), key=_name_of)
        except UnusableNameError:
            return [*self._list_around(folder)]

    def list_each(self, folders: Sequence[str]) -> Sequence[Sequence[ObjectInfo]]:
        [parent] = {folder.rpartition("/")[0] for folder in folders}
        found: dict[str, list[ObjectInfo]] = {folder: [] for folder in folders}
        try:
            with self._translated("list", parent):
                # One request for each thousand of objects, and what else lies there is little.
                for listed in self._repeated(lambda: obstore.list(self._store, parent, chunk_size=1000).collect()):
                    if (folder := listed["path"].rpartition("/")[0]) in found:
                        found[folder].append(_info(listed))
        except UnusableNameError:  # somewhere below the parent, perhaps in none of the folders
            return tuple(map(self._list_around, folders))
        return [sorted(objects, key=_name_of) for objects in found.values()]

    def _list_around(self, folder: str) -> Sequence[ObjectInfo]:
        """List a folder, and skip keys that begin with a slash or a dot behind its name.

        The client refuses a whole page of keys for one that is no path: with an empty component, ``..`` or a control
        character. Such keys mostly sort before every name that this package gives.
        """
        with self._translated("list", folder):
            found = self._repeated(
                lambda: obstore.list(self._store, folder, offset=f"{folder}/0", chunk_size=1000).collect()
            )
        infos = (_info(listed) for listed in found if listed["path"].rpartition("/")[0] == folder)
        return sorted(infos, key=_name_of)

    def facts(self) -> StoreFacts:
        self._listing(_CLOCK)
        return StoreFacts(exists=True, exclusive=None if self._conditional else False)

    def create(self, name: str, source: Source) -> bool:
        head = _read(source, _CONDITIONAL_BYTES + 1)
        with self._translated("write", name):
            if len(head) <= _CONDITIONAL_BYTES:
                return self._create_at_once(name, bytes(head))
            if self._exists(name):
                return False
            # Parts are repeated by the one who has them.
            pauses: BackoffConfig = {
                "init_backoff": _seconds(FIRST_PAUSE_S),
                "max_backoff": _seconds(most_pause_s(self._timeout_s)),
                "base": 2,
            }
            patience = _seconds(self._timeout_s * REPEATING)
            uploading = self._connected({"max_retries": 1_000_000, "retry_timeout": patience, "backoff": pauses})
            obstore.put(uploading, name, _parts(head, source), mode="overwrite", use_multipart=True)
            return True

    def delete(self, name: str) -> bool:
        with self._translated("delete", name):
            self._ends.forget(name)
            # Deleting says nothing about whether there was anything.
            if not self._exists(name):
                return False
            self._repeated(lambda: obstore.delete(self._store, name))
        return True

    def now(self) -> float:
        for _ in range(_CLOCK_TRIES):
            found = self._now()
            if found is not None:
                return found
        raise StoreError("read the clock of", self.location, "an object just made is not listed")

    def _now(self) -> float | None:
        """The time at which an object appears that this process makes; None if another process deletes it at once."""
        # One of a few names: without the permission to delete, the objects stay.
        folder = f"{_CLOCK}/{os.urandom(1).hex()}"
        name = f"{folder}/now"
        with self._translated("write", name):
            self._repeated(lambda: obstore.put(self._store, name, b"", use_multipart=False))
            # From a listing, as the times that it is compared with: the object's own header knows whole seconds only.
            found = [info.modified_s for info in self.list(folder) if info.name == name]
        self._delete_if_allowed(name)
        return found[0] if found else None

    def remove_abandoned(self, older_than_s: float) -> int:
        """Remove what a dead process left of reading the clock. Without the permission to delete it stays.

        Uploads that were never completed are no objects; the bucket's own lifecycle rule removes them.
        """
        oldest = datetime.now(timezone.utc) - timedelta(seconds=max(older_than_s, 3600))
        with self._translated("clean up", _CLOCK):
            page: Any = self._repeated(lambda: next(iter(obstore.list(self._store, _CLOCK, chunk_size=1000)), []))
        names = [info["path"] for info in page if _is_clock(info["path"]) and info["last_modified"] < oldest]
        removed = 0
        for name in names[:_MOST_ABANDONED]:
            if not self._delete_if_allowed(name):
                break
            removed += 1
        return removed

    def _delete_if_allowed(self, name: str) -> bool:
        """Delete an object that nobody needs; False if that fails, as without the permission."""
        try:
            with self._translated("delete", name):
                self._repeated(lambda: obstore.delete(self._store, name))
        except StoreError:
            return False
        return True

    def _connected(self, retry_config: RetryConfig) -> ObjectStore:
        silence_s = min(_SILENCE_S, self._timeout_s / _TRIES)
        options: ClientConfig = {
            "connect_timeout": _seconds(min(_CONNECT_TIMEOUT_S, silence_s)),
            "read_timeout": _seconds(silence_s),
            "timeout": _seconds(self._timeout_s),
        }
        if is_plain_http(self.location, os.environ):
            options["allow_http"] = True
        with self._translated("reach", self.location):
            return from_url(self.location, client_options=options, retry_config=retry_config)

    def _repeated(self, request: Callable[[], T]) -> T:
        """Make a request that does no harm if it is made again, as long as that may help."""
        attempts = Attempts(self._pace, self._timeout_s)
        while True:
            attempts.begin()
            try:
                answer = request()
            except (BaseError, OSError) as error:
                self._repeat(attempts, error)
            else:
                attempts.succeeded()
                self._was_met = True
                return answer

    def _repeat(self, attempts: Attempts, error: BaseException) -> None:
        """Pause before the next attempt; raises ``error`` if there shall be none."""
        failure = classify(error)
        if failure.was_reached:
            self._was_met = True
        if not failure.is_repeatable:
            if not failure.is_lost:
                attempts.succeeded()
            raise error
        most_s = None
        if not self._was_met:
            if failure.is_mistrusted:
                raise error
            is_silent = failure.is_dropped or failure.is_identity
            most_s = _ABSENT_S if failure.is_unreached else _SILENT_S if is_silent else None
        attempts.failed(error, is_refused=failure.is_throttled, most_s=most_s)

    def _create_at_once(self, name: str, data: bytes) -> bool:
        """Create an object by one request. It cannot be repeated blindly: one may have been heard, though not its
        answer."""
        attempts = Attempts(self._pace, self._timeout_s)
        was_lost = False
        while True:
            attempts.begin()
            try:
                if not self._conditional and self._exists(name):
                    return was_lost and self._holds(name, data)
                obstore.put(
                    self._store, name, data, mode="create" if self._conditional else "overwrite", use_multipart=False
                )
                attempts.succeeded()
                return True
            except AlreadyExistsError:
                attempts.succeeded()
                return was_lost and self._holds(name, data)
            except (NotSupportedError, NotImplementedError):
                self._conditional = False
            except BaseError as error:
                if self._conditional and classify(error).is_unsupported:
                    self._conditional = False
                    continue
                was_lost = was_lost or classify(error).is_lost
                self._repeat(attempts, error)

    def _holds(self, name: str, data: bytes) -> bool:
        """Whether an object that exists is the one that this process tried to create."""
        try:
            return self._repeated(lambda: bytes(obstore.get(self._store, name).bytes())) == data
        except FileNotFoundError:
            return False

    def _end(self, name: str) -> End | None:
        def request() -> End:
            # One request for the size and the end, which is what a reader of packs asks for first.
            if self._knows_suffixes:
                found = obstore.get(self._store, name, options={"range": {"suffix": TAIL_BYTES}})
                return End(found.meta["size"], memoryview(found.bytes()))
            size = obstore.head(self._store, name)["size"]
            start = max(size - TAIL_BYTES, 0)
            tail = obstore.get_range(self._store, name, start=start, end=size) if size else b""
            return End(size, memoryview(tail))

        try:
            with self._translated("open", name):
                return self._repeated(request)
        except EmptyObjectError:
            return End(0, memoryview(b""))
        except MissingError:
            return None

    def _range(self, name: str, start: int, before: int) -> memoryview:
        with self._translated("read", name):
            return self._repeated(lambda: memoryview(obstore.get_range(self._store, name, start=start, end=before)))

    def _listing(self, folder: str) -> Any:
        try:
            with self._translated("list", folder):
                return self._repeated(lambda: obstore.list_with_delimiter(self._store, folder))
        except MissingError as error:
            # A prefix without objects is listed as empty: what is missing here is the bucket.
            raise StoreError(
                "list", error.target, "there is no such bucket; create it, or correct B10_STORE"
            ) from error

    def _exists(self, name: str) -> bool:
        try:
            self._repeated(lambda: obstore.head(self._store, name))
        except FileNotFoundError:
            return False
        return True

    def _translated(self, operation: str, name: str) -> Translation:
        if name != self.location and not is_name(name):
            raise StoreError("use", f"the object name {name!r}", "it is not a relative name of plain characters")
        return Translation(operation, name if name == self.location else f"{self.location}/{name}")


def _is_clock(name: str) -> bool:
    """Whether an object was made by reading the clock, by this version or an earlier one."""
    parts = name.split("/")
    return len(parts) == 3 and parts[2] == "now" and set(parts[1]) <= _HEXADECIMAL


def _info(listed: Any) -> ObjectInfo:
    return ObjectInfo(listed["path"], listed["size"], listed["last_modified"].timestamp())


def _name_of(info: ObjectInfo) -> str:
    return info.name


def _seconds(seconds: float) -> timedelta:
    return timedelta(seconds=seconds)


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
