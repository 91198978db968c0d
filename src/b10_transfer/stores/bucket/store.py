"""A store in a bucket: S3, Google Cloud Storage or Azure, through obstore.

The bucket must create objects atomically, as all of them do. Leases also need conditional creation of small objects
(``If-None-Match: *``). A bucket that ignores or refuses the condition costs work and nothing else.

obstore's runtime does not survive a fork and its calls cannot be interrupted, so only a worker process uses this class
(:mod:`.worker`). Failed requests are retried with jitter for most of the operation's deadline, but only for a few
seconds if no server has answered yet. Credentials, regions and endpoints come from each provider's usual variables
(``AWS_ACCESS_KEY_ID``, ``AWS_ENDPOINT_URL``, ``GOOGLE_SERVICE_ACCOUNT``, ``AZURE_STORAGE_ACCOUNT_NAME`` …), or from the
metadata service.
"""

from __future__ import annotations

import os
from datetime import datetime, timedelta, timezone

import obstore
from obstore.exceptions import AlreadyExistsError, BaseError, NotSupportedError
from obstore.store import from_url

from ...errors import StoreError
from .. import traffic
from ..base import ObjectInfo, StoreFacts, TooManyObjectsError, check_count, is_name
from .errors import EmptyObjectError, MissingError, Translation, UnusableNameError, classify
from .ranges import MB, PARTS_AHEAD, TAIL_BYTES, End, RangedStore
from .retry import FIRST_PAUSE_S, REPEATING, Attempts, Pace, most_pause_s
from .settings import check_variables, is_plain_http
from .threads import Background
from .uploads import REQUESTS, parts, read_at_most

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from typing import Any, TypeVar

    from obstore.store import BackoffConfig, ClientConfig, ObjectStore, RetryConfig

    from ..base import Source

    T = TypeVar("T")

_CONDITIONAL_BYTES = 16 * MB
"""Up to this size one conditional request creates an object. A larger object is uploaded in parts, and no bucket does
that under a condition. Its name must be unique, as the names of packs are."""
_CONNECT_TIMEOUT_S = 5
_SILENCE_S = 20
"""A connection that is silent for so long is closed. An upload of 16 MB must fit into this time."""
_TRIES = 3
"""A request that hangs is cancelled early enough for so many attempts, whatever the deadline."""
_ABSENT_S = 3.0
"""Retries last so long if connections are refused or the name is unknown, and no server has answered yet. Then the
endpoint is wrong, and startup does not wait for it. A service that has answered and restarts is waited for."""
_SILENT_S = 15.0
"""The same if a firewall drops connections, or if the metadata service does not answer. It is longer, because both may
only be busy when a fleet starts."""
_CLOCK, _CLOCK_TRIES = ".clock", 5
_MOST_ABANDONED = 100
"""One clean-up deletes so many objects at most."""
_HEXADECIMAL = frozenset("0123456789abcdef")
_WITHOUT_SUFFIXES = ("az://", "abfs://", "abfss://")
"""Azure has no ranges that count from an object's end, so a reader requests the size first."""


class BucketStore(RangedStore):
    """Objects below ``<scheme>://<bucket>/<prefix>``; ``timeout_s`` is what is left of the operation's deadline."""

    def __init__(self, url: str, timeout_s: float) -> None:
        check_variables(url, os.environ)
        self.location = url
        self._timeout_s = max(timeout_s, 1.0)
        # obstore cannot know which requests may be retried, and for how long.
        self._store = self._connected({"max_retries": 0, "retry_timeout": timedelta(0)})
        self._was_reached = False
        self._pace = Pace(self._timeout_s)
        self._conditional = True
        self._knows_suffixes = not self.location.startswith(_WITHOUT_SUFFIXES)
        super().__init__(Background(PARTS_AHEAD).start)

    def folders(self, folder: str) -> list[str]:
        try:
            return sorted(prefix.rstrip("/") for prefix in self._listing(folder)["common_prefixes"])
        except UnusableNameError:
            depth = folder.count("/") + 2
            below = (info.name.split("/") for info in self._below(folder, skips_odd=True))
            return sorted({"/".join(parts[:depth]) for parts in below if len(parts) > depth})

    def list(self, folder: str) -> list[ObjectInfo]:
        try:
            found = self._below(folder)
        except UnusableNameError:
            try:
                found = [*map(_info, self._listing(folder)["objects"])]
            except UnusableNameError:
                found = self._below(folder, skips_odd=True)
        return sorted((info for info in found if _folder_of(info) == folder), key=_name_of)

    def list_each(self, folders: Sequence[str]) -> Sequence[Sequence[ObjectInfo]]:
        [parent] = {folder.rpartition("/")[0] for folder in folders}
        found: dict[str, list[ObjectInfo]] = {folder: [] for folder in folders}
        try:
            for info in self._below(parent):
                if (folder := _folder_of(info)) in found:
                    found[folder].append(info)
        except (UnusableNameError, TooManyObjectsError):  # perhaps in none of the folders
            return tuple(map(self.list, folders))
        return [sorted(objects, key=_name_of) for objects in found.values()]

    def _below(self, folder: str, *, skips_odd: bool = False) -> Sequence[ObjectInfo]:
        """List everything below a folder; on request without names that begin with a slash, dot or control character.

        The client refuses a whole page of keys for one with an empty component, ``..`` or a control character. Most
        such keys sort before every name that this package gives.
        """
        offset, where = f"{folder}/0" if skips_odd else None, f"{self.location}/{folder}"
        with self._translated("list", folder):
            return self._repeated(
                lambda: _collected(obstore.list(self._store, folder, offset=offset, chunk_size=1000), where)
            )

    def facts(self) -> StoreFacts:
        self.folders(_CLOCK)
        return StoreFacts(exists=True, exclusive=None if self._conditional else False)

    def create(self, name: str, source: Source) -> bool:
        head = read_at_most(source, _CONDITIONAL_BYTES + 1)
        with self._translated("write", name):
            if len(head) <= _CONDITIONAL_BYTES:
                return self._create_at_once(name, bytes(head))
            if self._exists(name):
                return False
            # Only obstore can retry a part: it holds the bytes.
            pauses: BackoffConfig = {
                "init_backoff": _seconds(FIRST_PAUSE_S),
                "max_backoff": _seconds(most_pause_s(self._timeout_s)),
                "base": 2,
            }
            patience = _seconds(self._timeout_s * REPEATING)
            traffic.total.requests += REQUESTS
            uploading = self._connected({"max_retries": 1_000_000, "retry_timeout": patience, "backoff": pauses})
            obstore.put(uploading, name, parts(head, source), mode="overwrite", use_multipart=True)
            return True

    def delete(self, name: str) -> bool:
        with self._translated("delete", name):
            self._ends.forget(name)
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
        """The time of an object that this process writes; None if another process deletes it at once."""
        # One of 256 names: without permission to delete, the objects stay.
        folder = f"{_CLOCK}/{os.urandom(1).hex()}"
        name = f"{folder}/now"
        with self._translated("write", name):
            self._repeated(lambda: obstore.put(self._store, name, b"", use_multipart=False))
            try:
                # The times that it is compared with come from listings, too; a header has whole seconds only.
                found = [info.modified_s for info in self.list(folder) if info.name == name]
            except UnusableNameError:
                found = [self._repeated(lambda: obstore.head(self._store, name))["last_modified"].timestamp()]
        self._delete_if_allowed(name)
        return found[0] if found else None

    def remove_abandoned(self, older_than_s: float) -> int:
        """Delete clock objects that dead processes left. Without permission to delete they stay.

        Uploads that were never completed are no objects; the bucket's own lifecycle rule removes them.
        """
        oldest = datetime.now(timezone.utc) - timedelta(seconds=max(older_than_s, 3600))
        try:
            with self._translated("clean up", _CLOCK):
                page: Any = self._repeated(lambda: next(iter(obstore.list(self._store, _CLOCK, chunk_size=1000)), []))
        except UnusableNameError:  # they are at most 256, and harmless
            return 0
        names = [info["path"] for info in page if _is_clock(info["path"]) and info["last_modified"] < oldest]
        for removed, name in enumerate(names[:_MOST_ABANDONED]):
            if not self._delete_if_allowed(name):
                return removed
        return len(names[:_MOST_ABANDONED])

    def _delete_if_allowed(self, name: str) -> bool:
        """Delete an object that is no longer needed; False if that fails, for example without permission."""
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
        """Make an idempotent request, and retry it as long as that may help."""
        attempts = Attempts(self._pace, self._timeout_s)
        while True:
            attempts.begin()
            try:
                answer = request()
            except (BaseError, OSError) as error:
                self._repeat(attempts, error)
            else:
                attempts.succeeded()
                self._was_reached = True
                return answer

    def _repeat(self, attempts: Attempts, error: BaseException) -> None:
        """Pause before the next attempt; raises ``error`` if there is none."""
        failure = classify(error)
        if failure.was_reached:
            self._was_reached = True
        if not failure.is_repeatable:
            if not failure.is_lost:
                attempts.succeeded()
            raise error
        most_s = None
        if not self._was_reached:
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
            # One request for the size and the end: a reader of packs needs both first.
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


def _collected(pages: Iterable[Any], folder: str) -> list[ObjectInfo]:
    found: list[ObjectInfo] = []
    for page in pages:
        found += map(_info, page)
        check_count(len(found), folder)
    return found


def _folder_of(info: ObjectInfo) -> str:
    return info.name.rpartition("/")[0]


def _name_of(info: ObjectInfo) -> str:
    return info.name


def _seconds(seconds: float) -> timedelta:
    return timedelta(seconds=seconds)
