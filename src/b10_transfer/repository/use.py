"""Records of use: when the packs of an environment were last loaded.

A load restores the union of all packs of an environment, so one record serves them all. A record is an empty object
``used/<day>``. The first load of a day creates it, and later loads see it in a listing that they need anyway.

Only the names of records and the store's times of them are used. Neither can make a pack look used longer ago than the
store itself has seen a load, or an upload of the pack.
"""

from __future__ import annotations

import io
import logging
import time
from collections.abc import Collection
from time import gmtime, strftime

from ..errors import CacheError
from ..stores.base import Store
from .layout import Place

logger = logging.getLogger(__name__)

MOST_DELETED = 10
"""So many earlier records are deleted together with the creation of one."""


def today(ahead_s: float = 0.0) -> str:
    """The day in UTC, by this pod's clock, as the name of a record; that in ``ahead_s`` seconds."""
    return strftime("%Y%m%d", gmtime(time.time() + ahead_s))


def record_use(store: Store, place: Place, known: Collection[str]) -> None:
    """Record that the packs of an environment are used today.

    Of all pods that try it at once, one creates the record and deletes those of earlier days. A failure is not
    important: the next load tries it again.

    Args:
        store: The store.
        place: The environment.
        known: Days for which the store holds records, as far as this process knows.
    """
    day = today()
    if day in known:
        return
    try:
        if store.create(place.used(day), io.BytesIO()):
            for earlier in sorted(other for other in known if other < day)[:MOST_DELETED]:
                store.delete(place.used(earlier))
    except CacheError as error:
        logger.debug("the use of the packs is not recorded: %s", error)
