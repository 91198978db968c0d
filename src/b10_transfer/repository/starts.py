"""Which units warm starts have used. A load may restore these first.

A record is one small object, ``used/<day>.starts.<number>``, with the day on which each unit was last used. A writer
merges its own start with the latest record, and creates the next one: a few a day at most, however many replicas start.

A record changes the order of a restore, and nothing else: every unit is verified as before. So a writer of the store
can only make starts slower with it.
"""

from __future__ import annotations

import io
import json
import logging
import time
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from typing import NamedTuple

from ..stores.base import ObjectInfo, ReadStore, Store, read_small
from .layout import STARTS_A_DAY, Place, day_of_record, number_of_record
from .union import Union
from .use import MOST_DELETED, today

logger = logging.getLogger(__name__)

MOST_BYTES = 1024 * 1024
"""Size of a record, which holds what all starts of the last 30 days used. A larger one is not written: little would
follow."""
KEPT_DAYS = 30
"""A unit that no start has used for so long is forgotten."""
_DAY_S = 86_400
_MOST_NAME = 4096
_SMALLEST_REST = 0.25
"""Of the units to restore. If fewer would follow, all are restored at once."""


class Starts(NamedTuple):
    """The units that warm starts used, each with the day of its latest use, in days since 1970."""

    days: Mapping[str, int]

    def merged(self, other: Starts) -> Starts:
        """What both starts used. In any order of merging the result is the same."""
        found = dict(self.days)
        for name, day in other.days.items():
            found[name] = max(day, found.get(name, day))
        since = max(found.values(), default=0) - KEPT_DAYS
        return Starts({name: day for name, day in found.items() if day >= since})

    def encode(self) -> bytes:
        """The content of a record."""
        return json.dumps({"units": dict(sorted(self.days.items()))}, separators=(",", ":")).encode()


NONE = Starts({})


def decode(data: bytes) -> Starts:
    """Read the content of a record; empty if no writer of this package makes such a one."""
    last_day = _this_day() + 1  # another pod's clock may be a little ahead
    with suppress(ValueError, TypeError, KeyError, AttributeError, RecursionError):
        days = json.loads(data)["units"]
        if all(
            type(day) is int and 0 <= day <= last_day and isinstance(name, str) and len(name) <= _MOST_NAME
            for name, day in days.items()
        ):
            return Starts(days)
    return NONE


def latest_of(records: Mapping[str, ObjectInfo]) -> str:
    """The name of the object with the latest record; empty if there is none.

    A record of the future is left out: a pod with a wrong clock would otherwise hide all others.
    """
    until = today(ahead_s=_DAY_S)
    known = [name for name in records if day_of_record(name) <= until]
    return records[max(known)].name if known else ""


def read_starts(store: ReadStore, name: str) -> Starts:
    """Read a record by the name of its object; empty if there is none. Raises StoreError."""
    data = read_small(store, name, MOST_BYTES) if name else None
    return decode(data) if data else NONE


def record_start(store: Store, place: Place, records: Mapping[str, ObjectInfo], used: Collection[str]) -> bool:
    """Record the units that a start used, unless the latest record has them all or the day has enough records.

    Args:
        store: The store.
        place: The environment.
        records: The records that a listing shows, by the last component of their names.
        used: Names of units.

    Returns:
        Whether a record was created.

    Raises:
        StoreError: The store could not be read or written.
    """
    day, latest = today(), latest_of(records)
    numbers = [number_of_record(name) for name in records if day_of_record(name) == day]
    number = max(numbers, default=-1) + 1
    if not used or number == STARTS_A_DAY:
        return False
    known = read_starts(store, latest)
    if numbers and known.days.keys() >= set(used):
        return False
    content = known.merged(Starts(dict.fromkeys(used, _this_day()))).encode()
    if len(content) > MOST_BYTES:
        logger.debug("the units that this start used are not recorded: %d bytes are too many", len(content))
        return False
    name = place.starts(day, number)
    if not store.create(name, io.BytesIO(content)):
        return False
    # The one before stays: a load that has listed it may be about to read it.
    earlier = sorted(info.name for info in records.values() if info.name < name)
    for record in earlier[:-1][:MOST_DELETED]:
        store.delete(record)
    return True


def split(
    union: Union, names: Collection[str], starts: Starts, may_follow: Callable[[str], bool]
) -> tuple[list[str], list[str]]:
    """Units to restore first, and those that may follow because starts do without them.

    A unit may follow only if starts have used other units of the same publication and of the same cache. So whatever
    was published since the latest record comes first, and what no start could have used, too.

    Args:
        union: What the store holds.
        names: Units to restore.
        starts: What warm starts used.
        may_follow: Whether a compiler can do without a unit, by its name, and makes it then.
    """
    units = union.units
    used = [(name, *units[name]) for name in starts.days.keys() & units.keys()]
    known = {(pack.origin(unit), name.partition("/")[0]) for name, pack, unit in used}

    def follows(name: str) -> bool:
        pack, unit = units[name]
        is_known = (pack.origin(unit), name.partition("/")[0]) in known
        return is_known and name not in starts.days and may_follow(name)

    rest = [name for name in names if follows(name)]
    if len(rest) < _SMALLEST_REST * len(names):
        return list(names), []
    following = set(rest)
    return [name for name in names if name not in following], rest


def _this_day() -> int:
    return int(time.time() // _DAY_S)
