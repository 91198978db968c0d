"""What the caches hold, in a form that shows whether a compiler has written to them."""

from __future__ import annotations

from ..local.snapshot import Snapshot

Fingerprint = frozenset[tuple[str, int, int, int]]
"""Each finished unit: its name, and the number, bytes and latest modification of its files."""


def fingerprint_of(look: Snapshot) -> Fingerprint:
    """The finished units that a look at the caches has found.

    Deferred units are not among them: they are restored a moment later, and alone they are no reason for a save.
    """
    return frozenset(
        (unit.name, len(unit.files), unit.size, max(file.mtime_ns for file in unit.files))
        for unit in look.units
        if not unit.root.adapter.is_deferred
    )
