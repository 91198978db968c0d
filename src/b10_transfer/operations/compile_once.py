"""Compile once: when nothing is saved yet and many replicas start, one compiles and the others wait for its save.

The replica that gets the lease ``compile`` of an environment compiles, and renews the lease until it saves or ends. It
holds the lease for its whole group, job or pod: their processes do not wait for each other, because the one that
compiles may need the others. The lease only saves work: a replica that waits in vain compiles for itself when its wait
is over, and two that compile at once both publish.
"""

from __future__ import annotations

import logging
import os
import random
import time
from collections.abc import Collection
from enum import Enum, auto

from ..concurrency.deadline import Deadline
from ..config import Config
from ..config.job import job_of
from ..environment import Environment, detect
from ..errors import CacheError, ReadOnlyStoreError
from ..pack import Limits
from ..repository.repository import Repository
from ..stores import leases
from ..stores.base import ReadStore, Store
from ..stores.leases import Lease
from ..stores.opening import opened
from .session import Place, Session

logger = logging.getLogger(__name__)

_NAME = "compile"
_POLL_S = 0.25
_POLL_MOST_S = 1.0
"""Each waiter lists once a second, so it notices a pack after a second at most …"""
_REST, _REST_KEPT, _REST_MOST_S = 5, 0.9, 10.0
"""… unless the store is slow: a waiter pauses this many times as long as its last listing took, and only a little less
the next time. So thousands of waiters do not overload a store, and the save that they wait for gets through."""
_HELD_AT_MOST_S = 86_400.0


class Outcome(Enum):
    """The result of a wait."""

    PUBLISHED = auto()
    """There are packs that were not there before."""
    MINE = auto()
    """This process has the lease, and should look once more before it compiles."""
    SAME_JOB = auto()
    """Another process of this one's group, job or pod compiles. It may need this one to make progress."""
    NOBODY = auto()
    """No replica compiles, and this process may not claim the lease."""
    WAITING = auto()
    """Another replica still compiles."""


class Waiter:
    """The state of a replica that waits, kept over all parts of its wait."""

    def __init__(self, session: Session | None = None) -> None:
        self.session = session or Session()
        """That of the waiting process. It holds the lease if this process compiles."""
        self.known: set[str] = set()
        """Ids of packs that a load has read or that were listed. None of them is a reason for another load."""
        self._pause_s = _POLL_S
        self._rest_s = 0.0
        self._claim_at = 0.0
        self._lease: str | None = None
        self._unchanged_since = 0.0

    def has_news(self, pack_ids: Collection[str]) -> bool:
        """Whether any of these packs is unknown. Afterwards they are known, so each causes one load at most."""
        has_news = not self.known.issuperset(pack_ids)
        self.known.update(pack_ids)
        return has_news

    def pause_s(self, look_s: float) -> float:
        """The pause after a listing that took ``look_s`` seconds."""
        self._rest_s = min(max(_REST * look_s, _REST_KEPT * self._rest_s), _REST_MOST_S)
        pause_s = random.uniform(0.5, 1.0) * max(self._pause_s, self._rest_s)
        self._pause_s = min(2 * self._pause_s, _POLL_MOST_S)
        return pause_s

    def may_claim(self, store: ReadStore, repository: Repository, timeout_s: float) -> bool:
        """Whether the lease may be free: at the first look, and when it was not renewed for long.

        A look costs one request, a claim five. With ten thousand waiters, claims would overload a bucket.
        """
        now = time.monotonic()
        if now < self._claim_at:
            return False
        self._claim_at = now + random.uniform(0.5, 1.0) * timeout_s / 2
        names = [info.name.rpartition("/")[2] for info in store.list(repository.lease_folder)]
        newest = max((name for name in names if name.startswith(f"{_NAME}.")), default="")
        is_first = self._lease is None
        if newest != self._lease:
            self._lease, self._unchanged_since = newest, now
        return is_first or not newest or now - self._unchanged_since > timeout_s


def wait(config: Config, deadline: Deadline, seconds: float, waiter: Waiter) -> Outcome:
    """Wait for the replica that compiles.

    Args:
        config: The settings.
        deadline: Bounds the whole call.
        seconds: How long to wait at most.
        waiter: What this replica remembers of its wait, with the packs that it knows.

    Raises:
        CacheError: The store does not allow it.
    """
    ends = time.monotonic() + seconds
    with opened(config, deadline) as store:
        environment = detect()
        place = _place(config, environment)
        job = job_of(os.environ, config.group)
        limits = Limits.of(config)
        repository = Repository(store, config.namespace, environment, limits, deadline)
        while True:
            deadline.check("waiting for another replica to compile")
            looked = time.monotonic()
            if waiter.has_news(repository.look().usable):
                # If another member of the group has found nothing and compiles, this one must not load what came later.
                return Outcome.SAME_JOB if config.group and _is_held_by(job, store, repository) else Outcome.PUBLISHED
            look_s = time.monotonic() - looked
            if waiter.session.holds_lease(place):
                return Outcome.MINE
            if waiter.may_claim(store, repository, config.lock_timeout_s):
                try:
                    if lease := _claim(config, store, repository, job):
                        waiter.session.hold(place, lease)
                        return Outcome.MINE
                except ReadOnlyStoreError:
                    if not leases.is_held(store, repository.lease_folder, _NAME, config.lock_timeout_s):
                        return Outcome.NOBODY
                if job and _is_held_by(job, store, repository):
                    return Outcome.SAME_JOB
            left_s = ends - time.monotonic()
            if left_s <= 0:
                return Outcome.WAITING
            deadline.sleep(min(left_s, waiter.pause_s(look_s)))


def _is_held_by(job: str, store: ReadStore, repository: Repository) -> bool:
    return leases.holder(store, repository.lease_folder, _NAME) == job


def _claim(config: Config, store: Store, repository: Repository, job: str) -> Lease | None:
    """Claim the lease to compile; None if another replica holds it. Raises ReadOnlyStoreError."""
    if config.read_only:
        raise ReadOnlyStoreError("write", str(config.store), "B10_READ_ONLY=1")
    return leases.try_acquire(
        store,
        repository.lease_folder,
        [_NAME],
        config.lock_timeout_s,
        renewing=lambda: opened(config, Deadline("renewing the lease", _HELD_AT_MOST_S)),
        job=job,
    )


def release(config: Config, deadline: Deadline, session: Session) -> None:
    """Release the lease, so that other replicas compile, or load the saved units. Does nothing without the lease."""
    if not session.has_leases or (lease := session.take_lease(_place(config, detect()))) is None:
        return
    try:
        with opened(config, deadline) as store:
            lease.release(store)
    except CacheError as error:
        logger.debug("the lease to compile is not released, and expires: %s", error)


def _place(config: Config, environment: Environment) -> Place:
    return Place(str(config.store), config.namespace, environment.id)
