"""Says why a load gives a pod only a part of what was saved for it."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import NamedTuple

from ..errors import CacheError, UnsupportedPackError
from ..repository.ignored import MOST_LINES, counted, state_of
from ..repository.union import Union


class Cause(NamedTuple):
    """One reason why units are missing."""

    text: str
    units: Collection[str] | None
    """Names of the missing units; None if nothing names them."""


def in_words(present: int, causes: Iterable[Cause]) -> str:
    """Say how much a load gives, and why not more.

    Args:
        present: Number of units of the store that are in place after the load.
        causes: Why other units are missing.

    Returns:
        For example ``2 of 13 units; pack 01a2… is damaged``; empty if nothing is missing.
    """
    causes = [cause for cause in causes if cause.units is None or cause.units]
    if not causes:
        return ""
    missing = {name for cause in causes for name in cause.units or ()}
    total = present + len(missing)
    found = f"{present} of {total} unit" if all(cause.units is not None for cause in causes) else f"{present} unit"
    return "; ".join([found if found in ("1 unit", f"{present} of 1 unit") else f"{found}s", *(c.text for c in causes)])


def missing_packs(union: Union, caches: Collection[str]) -> list[Cause]:
    """Why units of some caches are missing from the store: damaged, untrusted, too large, unread and recalled packs.

    A sound pack of a later version is none of them: it may hold only what this version does not know.
    """
    causes = []
    rejected = [pack for pack in union.rejected if not isinstance(pack.error, UnsupportedPackError)]
    lost = [(pack, None if pack.units is None else _absent(pack.units, union, caches)) for pack in rejected]
    lost = [(pack, names) for pack, names in lost if names is None or names]
    if len(lost) <= MOST_LINES:
        causes += [Cause(f"pack {pack.id} is {state_of(pack.error)}", names) for pack, names in lost]
    else:
        names = None if any(of_pack is None for _, of_pack in lost) else {name for _, one in lost for name in one or ()}
        causes.append(Cause(counted([pack for pack, _ in lost]), names))
    if union.unread:
        causes.append(Cause(f"{len(union.unread)} older packs are not read", None))
    if withheld := _absent(union.withheld, union, caches):
        note = f" ({union.recall_note})" if union.recall_note else ""
        causes.append(Cause(f"{len(withheld)} {'was' if len(withheld) == 1 else 'were'} recalled{note}", withheld))
    return causes


def suspect_packs(union: Union, names: Iterable[str]) -> list[Cause]:
    """Why a restore of some units may fail: an earlier load, or ``verify``, found damage in their packs."""
    by_pack: dict[str, list[str]] = {}
    for name in names:
        pack = union.units[name][0]
        if pack.id in union.suspect:
            by_pack.setdefault(pack.id, []).append(name)
    return [Cause(f"pack {pack_id} is damaged", found) for pack_id, found in by_pack.items()]


def left_out_caches(failed: Mapping[str, CacheError], union: Union) -> list[Cause]:
    """The units of caches that cannot be restored to. The log and ``doctor`` say why."""
    return [
        Cause(f"cache {cache} is left out", [name for name in union.units if name.startswith(f"{cache}/")])
        for cache in failed
    ]


def _absent(names: Iterable[str], union: Union, caches: Collection[str]) -> set[str]:
    return {name for name in names if name not in union.units and name.partition("/")[0] in caches}
