"""Leases: short-lived claims in the store that keep replicas from doing the same work at the same time.

They only save work; correctness never depends on one. Two holders of one lease, a lease that expires too early, and
leases that are switched off cost time and nothing else: packs are published under unique names and never replaced.

A lease is a series of objects, ``<name>.<generation>``. The process that creates the next generation holds the lease.
It renews the lease by creating one more and deleting its last. A lease expires if no generation follows for the lock
timeout; the next claimant then creates the following generation. All this needs is exclusive creation and the store's
own clock, so it works on a bucket as well as on a directory.
"""

from __future__ import annotations

import io
import json
import logging
import os
import random
import re
import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext

from ..concurrency.deadline import Deadline
from ..errors import CacheError, ReadOnlyStoreError, StoreError
from .base import ObjectInfo, ReadStore, Store

logger = logging.getLogger(__name__)

_POLL_S = 0.05
_POLL_MOST_S = 0.5
_LEASE = re.compile(r"(?P<name>[a-z]+(?:-[0-9a-z]+)?)\.(?P<generation>\d{8})", re.ASCII)
_PROBE = re.compile(r"doctor-[0-9a-f]{16}", re.ASCII)
"""A probe of ``doctor`` in a folder of leases. A killed ``doctor`` leaves it behind."""
_MOST_DELETED = 100
"""Others are deleted by later claimants. On a bucket each takes two requests."""
_LARGEST_HOLDER = 4096
"""Bytes of a lease's content. Larger ones were not written by this package."""
_MOST_GENERATION = 99_999_999
_WAITING = 0.25
"""The part of the remaining deadline for which :func:`held` waits at most: a lease only saves work."""
_FORGOTTEN_TIMEOUTS = 2
"""The next claimant of any lease deletes a lease that is as old as so many timeouts, so that the folder does not grow.
Most leases are named by the units that their dead holder was about to save, and no process claims them again. Two
timeouts, because a claimant that has just seen a lease continues from its generation."""


class Lease:
    """A claim that this process holds, and renews in the background until it is released."""

    def __init__(
        self,
        store: Store,
        prefix: str,
        generation: int,
        timeout_s: float,
        renewing: Callable[[], AbstractContextManager[Store]],
        job: str = "",
    ) -> None:
        self._store = store
        self._job = job
        self._prefix = prefix
        self._generation = generation
        self._renewing = renewing
        self._released = threading.Event()
        self.is_held = True
        """False once the lease is released, or could not be renewed."""
        self._renewal_s = max(timeout_s / 3, 0.05)
        try:
            threading.Thread(target=self._renew, name="b10-transfer-lease", daemon=True).start()
        except RuntimeError as error:  # the system starts no more threads
            logger.debug("the lease %s is not renewed: %s", prefix, error)

    def release(self, store: Store | None = None) -> None:
        """Release the lease, through another connection to the store if its own is closed.

        A lease whose release fails expires.
        """
        self._released.set()
        self.is_held = False
        self._delete(store or self._store, self._generation)

    def _renew(self) -> None:
        """Create generation after generation until the lease is released or another process holds it."""
        if self._released.wait(self._renewal_s):
            return  # as nearly always: a save takes less than a second
        try:
            with self._renewing() as store:
                while not self._released.is_set() and _create(store, self._prefix, self._generation + 1, self._job):
                    previous, self._generation = self._generation, self._generation + 1
                    self._delete(store, previous)
                    if self._released.wait(self._renewal_s):
                        self._delete(store, self._generation)
        except CacheError as error:
            logger.debug("the lease %s is no longer renewed: %s", self._prefix, error)
        finally:
            self.is_held = False

    def _delete(self, store: Store, generation: int) -> None:
        _delete(store, f"{self._prefix}.{generation:08d}")


def try_acquire(
    store: Store,
    folder: str,
    names: Sequence[str],
    timeout_s: float,
    renewing: Callable[[], AbstractContextManager[Store]] | None = None,
    job: str = "",
) -> Lease | None:
    """Claim any one of the leases ``names`` in ``folder``, or return None if all are held by others.

    ``renewing`` opens the store once more for the renewals; by default they go through ``store`` itself. ``job`` is
    what :func:`holder` returns while this process holds it.
    """
    generations: dict[str, list[tuple[int, ObjectInfo]]] = {name: [] for name in names}
    began = time.monotonic()
    listing = store.list(folder)
    now = store.now() if listing else 0.0
    elapsed_s = time.monotonic() - began

    def age_s(info: ObjectInfo) -> float:
        """How old a lease was at least when it was listed, at some moment since ``began``. Or, if that is more, how far
        it is ahead of the store's clock, which may have been set back."""
        return max(now - elapsed_s - info.modified_s, info.modified_s - now)

    for name, generation, info in _leases(listing):
        if name in generations:
            generations[name].append((generation, info))
    forgotten = [info for info in listing if _is_ours(info) and age_s(info) > _FORGOTTEN_TIMEOUTS * timeout_s]
    # In any order, so that claimants of many leases seldom meet.
    for name in random.sample(list(names), len(names)):
        latest, newest = max(generations[name], key=lambda entry: entry[0], default=(0, None))
        if newest is not None and age_s(newest) <= timeout_s:
            continue
        if newest is not None and latest == _MOST_GENERATION:  # no process renews a lease so often: it is a fake
            _delete(store, newest.name)
            latest = 0
        if _create(store, f"{folder}/{name}", latest + 1, job):
            if time.monotonic() - began > timeout_s / 4 and _is_overtaken(store, folder, name, latest + 1):
                # On so slow a store another process may have held and renewed the lease, and deleted this generation.
                _delete(store, f"{folder}/{name}.{latest + 1:08d}")
                continue
            dead = {info.name for _generation, info in generations[name]}
            _delete_some(store, [*dead, *({info.name for info in forgotten} - dead)])
            return Lease(
                store, f"{folder}/{name}", latest + 1, timeout_s, renewing or (lambda: nullcontext(store)), job
            )
    return None


def _delete(store: Store, name: str) -> bool:
    """Delete a lease. If that fails, the lease expires."""
    try:
        store.delete(name)
    except CacheError as error:
        logger.debug("could not delete the lease %s: %s", name, error)
        return False
    return True


def _delete_some(store: Store, names: Sequence[str]) -> None:
    """Delete leases of dead holders, as many as take little time, unless this process must not delete."""
    for name in names[:_MOST_DELETED]:
        if not _delete(store, name):
            return


def _is_ours(info: ObjectInfo) -> bool:
    """Whether an object in a folder of leases has a name that this package chooses. Nothing else is deleted there."""
    name = info.name.rpartition("/")[2]
    return _LEASE.fullmatch(name) is not None or _PROBE.fullmatch(name) is not None


def _is_overtaken(store: Store, folder: str, name: str, generation: int) -> bool:
    """Whether there is a later generation of a lease."""
    return any(found == name and other > generation for found, other, _info in _leases(store.list(folder)))


def _leases(listing: Iterable[ObjectInfo]) -> Iterator[tuple[str, int, ObjectInfo]]:
    """The leases of a listing: name, generation, and the object."""
    for info in listing:
        if found := _LEASE.fullmatch(info.name.rpartition("/")[2]):
            yield found["name"], int(found["generation"]), info


def is_held(store: ReadStore, folder: str, name: str, timeout_s: float, clock: Callable[[], float] = time.time) -> bool:
    """Whether a process seems to hold a lease, by this machine's own clock. It writes nothing."""
    return any(
        found == name and abs(clock() - info.modified_s) <= timeout_s
        for found, _generation, info in _leases(store.list(folder))
    )


def holder(store: ReadStore, folder: str, name: str) -> str:
    """Find out which job holds a lease.

    Returns:
        The ``job`` of the holder; empty if no process holds it, or if the holder belongs to no job.

    Raises:
        StoreError: The store could not be read.
    """
    generations = {generation: info for found, generation, info in _leases(store.list(folder)) if found == name}
    if not generations:
        return ""
    latest = generations[max(generations)]
    if latest.size_bytes > _LARGEST_HOLDER or (reader := store.open(latest.name)) is None:
        return ""
    with reader:
        content = bytes(reader.read_at(0, latest.size_bytes))
    try:
        job = json.loads(content)["job"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return ""
    return job if isinstance(job, str) else ""


@contextmanager
def held(
    store: Store,
    folder: str,
    names: Sequence[str],
    timeout_s: float,
    deadline: Deadline,
    waiting_for: str,
    renewing: Callable[[], AbstractContextManager[Store]] | None = None,
) -> Iterator[None]:
    """Hold any one of several leases for the length of this context.

    Waits for one for a quarter of what is left of the deadline, and then goes on without one. So it does at once if the
    store refuses leases. Raises ReadOnlyStoreError: what the lease is for could not be written either.
    """
    pause_s, ends_s = _POLL_S, time.monotonic() + _WAITING * deadline.remaining_s
    try:
        while (lease := try_acquire(store, folder, names, timeout_s, renewing)) is None:
            deadline.check(waiting_for)
            left_s = ends_s - time.monotonic()
            if left_s <= 0:
                logger.info("continuing without a lease after %s; leases only save work", waiting_for)
                break
            deadline.sleep(min(random.uniform(0.5, 1.0) * pause_s, left_s))
            pause_s = min(2 * pause_s, _POLL_MOST_S)
    except ReadOnlyStoreError:
        raise
    except StoreError as error:
        logger.debug("going on without a lease: %s", error)
        lease = None
    try:
        yield
    finally:
        if lease is not None:
            lease.release()


def _create(store: Store, prefix: str, generation: int, job: str = "") -> bool:
    content = json.dumps({"host": socket.gethostname(), "pid": os.getpid(), "job": job}).encode()
    return store.create(f"{prefix}.{generation:08d}", io.BytesIO(content))
