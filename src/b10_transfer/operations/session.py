"""The state that a process keeps between operations."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import NamedTuple

from ..local.usage import Usage
from ..stores.leases import Lease


class Place(NamedTuple):
    """The store, namespace and environment of artifacts. Each place has its own lease to compile."""

    store: str
    namespace: str
    environment_id: str


class Session:
    """The last load of a process, and the leases to compile that it holds until it saves."""

    def __init__(self) -> None:
        self.last_load: Callable[[], Usage] | None = None
        """Returns the record of the last load; None before the first load."""
        self._leases: dict[Place, Lease] = {}
        self._lock = threading.Lock()

    def hold(self, place: Place, lease: Lease) -> None:
        """Remember a lease that this process has acquired."""
        with self._lock:
            self._leases[place] = lease

    def holds_lease(self, place: Place) -> bool:
        """Whether this process compiles for a place. A lease that could not be renewed is lost."""
        with self._lock:
            lease = self._leases.get(place)
            return lease is not None and lease.is_held

    def take_lease(self, place: Place) -> Lease | None:
        """Remove the lease of a place, for its release."""
        with self._lock:
            return self._leases.pop(place, None)

    @property
    def has_leases(self) -> bool:
        """Whether this process holds any lease to compile."""
        return bool(self._leases)


session = Session()
"""That of this process."""
