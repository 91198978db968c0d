"""Compile once: when nothing is saved yet and many replicas start, one compiles and the others wait for its save.

Whoever gets the lease ``compile`` of an environment compiles, and renews the lease until its next save, or until its
process ends. It only saves work: a replica that waits in vain compiles for itself when its wait is over, and two that
compile at once both publish.
"""

from __future__ import annotations

import logging
import random
import time
from enum import Enum, auto

from . import leases
from .config import Config
from .deadline import Deadline
from .environment import detect
from .errors import CacheError
from .leases import Lease
from .pack import Limits
from .repository import Repository
from .stores.opening import opened

logger = logging.getLogger(__name__)

_NAME = "compile"
_POLL_S = 0.25
_POLL_MOST_S = 1.0
"""A listing a second for each waiter: so late, at most, is a pack noticed …"""
_REST = 5
"""… except where the store is slow to answer: a waiter rests so many times as long as its last look took. So thousands
that wait keep a store busy but not swamped, and what they wait for gets through."""
_HELD_AT_MOST_S = 86_400.0

_lease: Lease | None = None
"""Held by this process until its next save."""


class Outcome(Enum):
    """What came of waiting for a while."""

    PUBLISHED = auto()
    """There are packs that were not there before."""
    MINE = auto()
    """Nobody compiles: this process has the lease now, and should look once more before it compiles."""
    NOBODY = auto()
    """Nobody compiles, and this process may not claim it."""
    WAITING = auto()
    """Somebody still compiles."""


def wait(config: Config, deadline: Deadline, seconds: float, known_packs: int) -> Outcome:
    """Wait for the replica that compiles, at most for so long. ``known_packs`` were there before.

    Raises CacheError if the store does not allow it.
    """
    global _lease
    ends = time.monotonic() + seconds
    claim_at = 0.0
    pause_s = _POLL_S
    with opened(config, deadline) as store:
        limits = Limits.for_packs_of(config.max_pack_bytes)
        repository = Repository(store, config.namespace, detect(), limits, deadline)
        while True:
            deadline.check("waiting for another replica to compile")
            looked = time.monotonic()
            if len(repository.look().usable) > known_packs:
                return Outcome.PUBLISHED
            rest_s = _REST * (time.monotonic() - looked)
            if time.monotonic() >= claim_at:
                # Claiming writes to the store, and a lease dies but slowly.
                claim_at = time.monotonic() + config.lock_timeout_s / 3
                if config.read_only:
                    if not leases.is_held(store, repository.lease_folder, _NAME, config.lock_timeout_s):
                        return Outcome.NOBODY
                elif lease := leases.try_acquire(
                    store,
                    repository.lease_folder,
                    [_NAME],
                    config.lock_timeout_s,
                    renewing=lambda: opened(config, Deadline("renewing the lease", _HELD_AT_MOST_S)),
                ):
                    _lease = lease
                    return Outcome.MINE
            left_s = ends - time.monotonic()
            if left_s <= 0:
                return Outcome.WAITING
            deadline.sleep(min(left_s, random.uniform(0.5, 1.0) * max(pause_s, rest_s)))
            pause_s = min(2 * pause_s, _POLL_MOST_S)


def release(config: Config, deadline: Deadline) -> None:
    """Let others compile, or load what this process has saved. Does nothing if it holds no lease."""
    global _lease
    if _lease is None:
        return
    lease, _lease = _lease, None
    try:
        with opened(config, deadline) as store:
            lease.release(store)
    except CacheError as error:
        logger.debug("the lease to compile dies of its age: %s", error)
