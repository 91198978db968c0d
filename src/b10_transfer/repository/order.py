"""Ids of packs: the time of publication and a random part, so that they sort in the order of publication."""

from __future__ import annotations

import logging
import secrets
import time
from collections.abc import Callable, Collection, Mapping, Sequence

from ..stores.base import ObjectInfo

logger = logging.getLogger(__name__)

_MS = 1000
_DAY_MS = 86_400 * _MS
_MOST_MS = 0xFFFF_FFFF_FFFF
_MOST_ID = (1 << 112) - 1
_BEHIND = 1 << 32
"""A merged pack's id follows that of its last input by at most so much: another pack of the same millisecond will
hardly lie in between, and two compactors will hardly choose the same."""
_MOST_NAMED = 5


def published_ms(pack_id: str) -> int:
    """When a pack was published, in milliseconds since 1970, according to its id."""
    return int(pack_id[:12], 16)


def new_id(
    packs: Mapping[str, ObjectInfo],
    valid: Collection[str],
    is_valid: Callable[[str], bool],
    clock: Callable[[], float],
    most: int,
) -> str:
    """A unique id that sorts behind every valid pack, whatever this machine's clock says.

    With plain times as ids, a pod whose clock is behind could not supersede a unit, and would retry for ever. But any
    writer of the store can create an object with any id. So an id counts only if its pack is valid, and if it is at
    most a day ahead of the store's clock.

    Args:
        packs: every pack's object by id.
        valid: ids of packs that are known to be valid.
        is_valid: reads a pack and says whether it is valid.
        clock: seconds since 1970 on the store's clock. Called only if this machine's clock may be wrong by a day.
        most: how many of the newest packs a load opens. Older packs are not read here either.
    """
    now_ms = time.time_ns() // 1_000_000
    seen_ms = max((packs[pack_id].modified_s * _MS for pack_id in valid if pack_id in packs), default=-_DAY_MS)
    latest_ms = max(map(published_ms, packs), default=0)
    if abs(now_ms - seen_ms) > _DAY_MS or latest_ms > now_ms + _DAY_MS:
        stores_ms = int(clock() * _MS)
        if abs(now_ms - stores_ms) > _DAY_MS:
            logger.warning("this machine's clock differs from the store's by more than a day; the store's is used")
            now_ms = stores_ms
        if far := sorted(pack_id for pack_id in packs if published_ms(pack_id) > stores_ms + _DAY_MS):
            ignored = "the order of packs ignores those dated more than a day ahead of the store's clock"
            logger.warning("%s: %s", ignored, named(far))
        packs = {pack_id: info for pack_id, info in packs.items() if published_ms(pack_id) <= stores_ms + _DAY_MS}
    ahead = sorted((pack_id for pack_id in packs if published_ms(pack_id) >= now_ms), reverse=True)[:most]
    latest = next((pack_id for pack_id in ahead if pack_id in valid or is_valid(pack_id)), None)
    if latest is not None:
        now_ms = published_ms(latest) + 1
    return f"{min(now_ms, _MOST_MS):012x}-{secrets.token_hex(8)}"


def id_behind(pack_id: str) -> str:
    """A unique id that sorts right behind another."""
    following = int(pack_id.replace("-", ""), 16) + 1 + secrets.randbelow(_BEHIND)
    digits = f"{min(following, _MOST_ID):028x}"
    return f"{digits[:12]}-{digits[12:]}"


def named(pack_ids: Sequence[str]) -> str:
    """Some ids for a message, which stays short however many there are."""
    more = f" and {len(pack_ids) - _MOST_NAMED} more" if len(pack_ids) > _MOST_NAMED else ""
    return ", ".join(pack_ids[:_MOST_NAMED]) + more
