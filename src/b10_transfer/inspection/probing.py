"""Checks a store with every operation that a load and a save need. The objects are small and deleted afterwards."""

from __future__ import annotations

import io
import os
import secrets
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from statistics import median

from ..concurrency.deadline import Deadline
from ..config import MB
from ..errors import CacheError, ReadOnlyStoreError, StoreError
from ..repository.layout import SHARED_LEASES, VERSION
from ..stores.base import Store
from .checks import Check, ok, problem, warning

PROBES = SHARED_LEASES
"""A folder of short-lived objects. Saves delete what a killed process left there, also a killed doctor."""
_RACES = 5
_SAMPLES = 5
_SLOW_CREATE_S = 1.0
_SLOW_READ_S = 0.2
_SKEW_S = 60.0


def probe_store(
    store: Store, same_store: Store, max_pack_bytes: int, deadline: Deadline, *, read_only: bool = False
) -> Iterator[Check]:
    """Check a store.

    Args:
        store: The store.
        same_store: The same store, opened a second time, in place of a second pod.
        max_pack_bytes: Largest size of a pack.
        deadline: Of the doctor.
        read_only: Whether to write nothing. Default: false.

    Yields:
        Each check when it is done.

    Raises:
        CacheError: The store failed, or did not answer in time.
    """
    deadline.check(f"listing {store.location}")
    facts = store.facts()
    store.folders(VERSION)
    yield ok("store", "the store can be read" if facts.exists else "it does not exist yet; the first save creates it")
    if facts.free_bytes is not None:
        yield _space(facts.free_bytes, max_pack_bytes)
    if read_only:
        yield ok("write", "B10_READ_ONLY=1: not tested")
        return
    probe = _Probe(store, same_store, deadline)
    try:
        yield from probe.run()
    finally:
        left = probe.clean_up()
    if left:
        yield warning("cleaning up", f"{left[0]} could not be deleted", "a later save deletes it")


def _space(free_bytes: int, max_pack_bytes: int) -> Check:
    seen = f"{free_bytes / MB:.0f} MiB are free"
    if free_bytes >= max_pack_bytes:
        return ok("space", seen)
    return warning(
        "space",
        f"{seen}, and one save may take {max_pack_bytes / MB:.0f} MiB (MAX_CACHE_SIZE_MB)",
        "free some space: `b10-compile-cache ls` shows the sizes, `b10-compile-cache prune` deletes packs",
    )


def _not_exclusive(seen: str) -> Check:
    return problem(
        "exclusive create",
        seen,
        "packs are safe, because their names are unique; locks do not work, so pods may repeat work. Consider another "
        "kind of volume or bucket",
    )


class _Probe:
    """The checks that write."""

    def __init__(self, store: Store, same_store: Store, deadline: Deadline) -> None:
        self._store = store
        self._same_store = same_store
        self._deadline = deadline
        self._created: list[str] = []

    def run(self) -> Iterator[Check]:
        self._deadline.check(f"writing to {self._store.location}")
        content = secrets.token_bytes(4096)
        self._same_store.list(PROBES)  # a client that caches listings now has an old one
        name = self._name()
        try:
            self._store.create(name, io.BytesIO(content))
        except StoreError as error:
            yield self._not_writable(error)
            return
        yield ok("write", f"objects can be created{self._how()}")
        yield self._read_back(name, content)
        yield self._listed(name)
        yield self._exclusive()
        yield self._latency()
        yield self._clock()

    def clean_up(self) -> list[str]:
        """Delete every probe; returns those that could not be deleted and still exist."""
        kept = []
        for name in self._created:
            try:
                self._store.delete(name)
            except CacheError:
                kept.append(name)
        if not kept:
            return []
        try:
            there = {info.name for info in self._store.list(PROBES)}
        except CacheError:  # the store no longer answers, which another check reports
            return []
        return [f"{self._store.location}/{name}" for name in kept if name in there]

    def _name(self) -> str:
        """A new name, noted for the clean-up: an object may exist even if its creation failed."""
        self._created.append(f"{PROBES}/doctor-{secrets.token_hex(8)}")
        return self._created[-1]

    def _how(self) -> str:
        links = self._store.facts().hard_links
        return {None: "", True: ", by hard link", False: ", by rename (it has no hard links)"}[links]

    def _not_writable(self, error: StoreError) -> Check:
        if isinstance(error, ReadOnlyStoreError):
            return warning(
                "write",
                f"the store is read-only for this pod ({error.detail}): it can load but not save",
                f"do nothing if other pods save; otherwise mount it writable for user {os.geteuid()}",
            )
        return problem("write", str(error), "saves will fail, too: check the volume, its quota and its free space")

    def _read_back(self, name: str, content: bytes) -> Check:
        reader = self._same_store.open(name)
        if reader is None:
            return problem(
                "read", "an object that was just created is missing", "check the mount: it cannot hold a store"
            )
        with reader:
            if bytes(reader.read_at(0, reader.size_bytes)) != content:
                return problem("read", "an object was read back with other bytes", "check the volume: it damages data")
        return ok("read", "an object is read back as it was written")

    def _listed(self, name: str) -> Check:
        if name in (info.name for info in self._same_store.list(PROBES)):
            return ok("listing", "a new object is listed at once")
        return warning(
            "listing",
            "a new object is not listed at once",
            "harmless: a load may miss packs of the last few seconds. On NFS, see the options acdirmax and lookupcache",
        )

    def _exclusive(self) -> Check:
        self._deadline.check(f"creating one name twice at once in {self._store.location}")
        for _ in range(_RACES):
            winners = self._race()
            if len(winners) != 1:
                return _not_exclusive(f"{len(winners)} of two clients that created one name at once succeeded")
        if self._store.facts().exclusive is False:
            return _not_exclusive("the bucket refuses conditional creates (If-None-Match: *)")
        return ok("exclusive create", f"of two clients that create one name, one succeeds ({_RACES} rounds)")

    def _race(self) -> list[int]:
        """Let two clients create one name at once; returns the numbers of those that succeeded."""
        name, start = self._name(), threading.Barrier(2)
        winners: list[int] = []
        failures: list[Exception] = []

        def create(number: int, store: Store) -> None:
            try:
                with suppress(threading.BrokenBarrierError):
                    start.wait(self._deadline.remaining_s)
                if store.create(name, io.BytesIO(b"%d" % number)):
                    winners.append(number)
            except Exception as error:  # noqa: BLE001 - raised below, in the caller's thread
                failures.append(error)

        creators = [
            threading.Thread(target=create, args=arguments, name="b10-transfer-doctor", daemon=True)
            for arguments in enumerate((self._store, self._same_store))
        ]
        for creator in creators:
            creator.start()
        for creator in creators:
            creator.join(self._deadline.remaining_s)
        if failures:
            raise failures[0]
        self._deadline.check()
        return winners

    def _latency(self) -> Check:
        create_s = median(self._timed(lambda: self._store.create(self._name(), io.BytesIO(b"x"))))
        read_s = median(self._timed(self._read_one))
        seen = f"a small object takes {1000 * create_s:.1f} ms to create and {1000 * read_s:.1f} ms to read"
        if create_s > _SLOW_CREATE_S or read_s > _SLOW_READ_S:
            return warning("latency", seen, "loads will be slow: use a nearer store, or raise B10_DEADLINE_SECONDS")
        return ok("latency", f"{seen} (medians of {_SAMPLES})")

    def _read_one(self) -> None:
        reader = self._store.open(self._created[0])
        if reader is not None:
            with reader:
                reader.read_at(0, reader.size_bytes)

    def _timed(self, action: Callable[[], object]) -> Iterator[float]:
        for _ in range(_SAMPLES):
            self._deadline.check(f"timing {self._store.location}")
            started = time.perf_counter()
            action()
            yield time.perf_counter() - started

    def _clock(self) -> Check:
        ahead_s = self._store.now() - time.time()
        if abs(ahead_s) <= _SKEW_S:
            return ok("clock", f"the store's clock and this pod's agree within {_SKEW_S:.0f} s")
        return warning(
            "clock",
            f"the store's clock is {abs(ahead_s):.0f} s {'ahead of' if ahead_s > 0 else 'behind'} this pod's",
            "only the ages that `ls` shows depend on it; correct one of the clocks",
        )
