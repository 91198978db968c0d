"""Which packs a load ignores, in a few lines, however many they are."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from ..errors import (
    CorruptPackError,
    PackError,
    PackTooLargeError,
    UnnamedCachesError,
    UnsupportedPackError,
    UntrustedPackError,
    count,
)
from .union import Rejected, Union

MOST_LINES = 3
"""So many packs get a line each. More get one line together, with so many examples."""
NOT_READ, DAMAGED, NOT_NAMED = "not read", "damaged", "not named"
_STATES: tuple[tuple[type[PackError], str], ...] = (
    (CorruptPackError, DAMAGED),
    (UnnamedCachesError, NOT_NAMED),
    (UnsupportedPackError, "newer"),
    (UntrustedPackError, "untrusted"),
    (PackTooLargeError, "too large"),
)


def state_of(error: PackError) -> str:
    """A word for why a pack is ignored."""
    return next((state for kind, state in _STATES if isinstance(error, kind)), "unreadable")


def states(union: Union) -> dict[str, int]:
    """The number of packs by state, in the words of ``ls``. A load does not find out which packs are superseded."""
    read = Counter(state_of(pack.error) for pack in union.rejected)
    counts = Counter({"usable": len(union.packs), NOT_READ: len(union.unread)}) + read + Counter(union.aside)
    return dict(sorted(counts.items()))


def reasons(union: Union) -> tuple[str, ...]:
    """Why packs are ignored: a line for each if they are few, else one line with counts and examples."""
    return tuple(lines_about(union.rejected, len(union.unread)))


def errors_in(rejected: Iterable[Rejected], unread: int = 0) -> list[str]:
    """The same of packs that something is wrong with."""
    return lines_about([pack for pack in rejected if not isinstance(pack.error, UnsupportedPackError)], unread)


def newer_in(rejected: Iterable[Rejected]) -> list[str]:
    """The same of sound packs that this pod cannot use."""
    return lines_about([pack for pack in rejected if isinstance(pack.error, UnsupportedPackError)], 0)


def lines_about(rejected: Sequence[Rejected], unread: int) -> list[str]:
    """A line for each pack if they are few, else one line with counts and examples of the newest.

    Args:
        rejected: Packs that were read, oldest first.
        unread: How many older packs were not read.
    """
    if len(rejected) <= MOST_LINES and not unread:
        return [str(pack.error) for pack in rejected]
    line = counted(rejected, unread)
    if unread:
        line += "; a load opens the newest packs only"
    if rejected:
        line += "; for example " + "; ".join(f"{pack.error!s:.300}" for pack in rejected[: -MOST_LINES - 1 : -1])
    return [line]


def counted(rejected: Sequence[Rejected], unread: int = 0) -> str:
    """The number of packs, and how many are ignored for each reason."""
    counts = Counter(state_of(pack.error) for pack in rejected) + Counter({NOT_READ: unread})
    by_state = ", ".join(f"{number} {state}" for state, number in counts.most_common())
    return f"{count(len(rejected) + unread, 'pack')} ({by_state})"


def few(names: Iterable[str]) -> str:
    """Some names for people: all of them if they are few, else some and a count."""
    names = list(names)
    shown = ", ".join(names[: 2 * MOST_LINES])
    return shown if len(names) <= 2 * MOST_LINES else f"{shown} and {len(names) - 2 * MOST_LINES} more"
