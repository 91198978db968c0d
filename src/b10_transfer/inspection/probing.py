"""Try out a store: what a load and a save ask of it, with small objects that are removed again."""

from __future__ import annotations

import errno
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
from ..errors import CacheError, StoreError
from ..repository.layout import SHARED_LEASES, VERSION
from ..stores.base import Store
from .checks import Check, ok, problem, warning

PROBES = SHARED_LEASES
"""Where savers keep short-lived objects and remove what dead ones left: of a doctor that was killed, too."""
_RACES = 5
_SAMPLES = 5
_SLOW_CREATE_S = 1.0
_SLOW_READ_S = 0.2
_SKEW_S = 60.0
_READ_ONLY = {os.strerror(number) for number in (errno.EROFS, errno.EACCES, errno.EPERM)}


def probe_store(
    store: Store, same_store: Store, max_pack_bytes: int, deadline: Deadline, *, read_only: bool = False
) -> Iterator[Check]:
    """Check a store, which is opened twice as if by two pods. With ``read_only`` nothing is written.

    Yields each check when it is done. Raises CacheError if the store does not answer, or not in time.
    """
    deadline.check(f"looking at {store.location}")
    facts = store.facts()
    store.folders(VERSION)
    yield ok("store", "it answers" if facts.exists else "it does not exist yet; the first save makes it")
    if facts.free_bytes is not None:
        yield _space(facts.free_bytes, max_pack_bytes)
    if read_only:
        yield ok("write", "B10_READ_ONLY=1: was not tried")
        return
    probe = _Probe(store, same_store, deadline)
    try:
        yield from probe.run()
    finally:
        left = probe.clean_up()
    if left:
        yield warning("cleaning up", f"{left[0]} could not be removed", "savers remove it after some minutes")


def _space(free_bytes: int, max_pack_bytes: int) -> Check:
    seen = f"{free_bytes / MB:.0f} MiB are free"
    if free_bytes >= max_pack_bytes:
        return ok("space", seen)
    return warning(
        "space",
        f"{seen}, and one save may take {max_pack_bytes / MB:.0f} MiB (MAX_CACHE_SIZE_MB)",
        "make room: `b10-compile-cache ls` shows what takes it, `clear --store` removes an environment's packs",
    )


def _not_exclusive(seen: str) -> Check:
    return problem(
        "exclusive create",
        seen,
        "packs have unique names and are safe, but locks are not; another kind of volume or bucket is better",
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
        self._same_store.list(PROBES)  # so that a client that keeps listings has an old one
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
        """Remove every probe; those that could not be removed and are there."""
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
        except CacheError:  # the store no longer answers, which is a finding of its own
            return []
        return [f"{self._store.location}/{name}" for name in kept if name in there]

    def _name(self) -> str:
        """A new name, which is remembered for cleaning up: an object may be there even if creating it failed."""
        self._created.append(f"{PROBES}/doctor-{secrets.token_hex(8)}")
        return self._created[-1]

    def _how(self) -> str:
        links = self._store.facts().hard_links
        return {None: "", True: ", by hard link", False: ", by rename (it has no hard links)"}[links]

    def _not_writable(self, error: StoreError) -> Check:
        if error.detail in _READ_ONLY:
            return warning(
                "write",
                f"the store is read-only for this pod ({error.detail}): it can load and not save",
                f"nothing, if others save; else mount it writable, for user {os.geteuid()}",
            )
        return problem("write", str(error), "saves will fail likewise: check the volume, its quota and its free space")

    def _read_back(self, name: str, content: bytes) -> Check:
        reader = self._same_store.open(name)
        if reader is None:
            return problem("read", "an object that was just created is not there", "this is no store: check the mount")
        with reader:
            if bytes(reader.read_at(0, reader.size_bytes)) != content:
                return problem("read", "an object reads back with other bytes", "check the volume: it damages data")
        return ok("read", "an object reads back as it was written")

    def _listed(self, name: str) -> Check:
        if name in (info.name for info in self._same_store.list(PROBES)):
            return ok("listing", "a new object is listed at once")
        return warning(
            "listing",
            "a new object is not listed at once",
            "harmless: a load may miss what was published some seconds ago. On NFS, see acdirmax and lookupcache",
        )

    def _exclusive(self) -> Check:
        self._deadline.check(f"creating objects twice at once in {self._store.location}")
        for _ in range(_RACES):
            winners = self._race()
            if len(winners) != 1:
                return _not_exclusive(f"{len(winners)} of two creators of one name were told that they created it")
        if self._store.facts().exclusive is False:
            return _not_exclusive("the bucket refuses to create on condition that there is nothing (If-None-Match: *)")
        return ok("exclusive create", f"of two creators of one name one wins ({_RACES} rounds)")

    def _race(self) -> list[int]:
        """Let two create one name at once; the numbers of those who were told that they did."""
        name, start = self._name(), threading.Barrier(2)
        winners: list[int] = []
        failures: list[Exception] = []

        def create(number: int, store: Store) -> None:
            try:
                with suppress(threading.BrokenBarrierError):
                    start.wait(self._deadline.remaining_s)
                if store.create(name, io.BytesIO(b"%d" % number)):
                    winners.append(number)
            except Exception as error:  # noqa: BLE001 - raised below, in the thread that asked
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
            return warning("latency", seen, "loads will be slow: put the store nearer, or raise B10_DEADLINE_SECONDS")
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
            "nothing depends on it but the ages that `ls` shows; set the clock of one or the other",
        )
