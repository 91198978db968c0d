"""What an operation reports: a status for a program to branch on, and a report for one that wants to know more."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum, auto


class OperationStatus(Enum):
    """The outcome of a load or a save."""

    SUCCESS = auto()
    """Load: saved artifacts were put in place. Save: new artifacts were published."""
    ERROR = auto()
    """Something went wrong; the log and the report say what, and what to do. The model still compiles."""
    DOES_NOT_EXIST = auto()
    """Load only: the store has nothing usable for this environment and namespace."""
    SKIPPED = auto()
    """Load: the pod already has compile artifacts. Save: the store already holds all there is."""


@dataclass(frozen=True)
class Report:
    """What one operation did. Counts are of what was restored (load) or published (save)."""

    status: OperationStatus
    reason: str
    """One sentence for a person: what happened, or why nothing did."""
    namespace: str = ""
    environment_id: str = ""
    """The key under which the store was searched; empty if the operation failed before it was known."""
    store: str = ""
    units: int = 0
    files: int = 0
    bytes: int = 0
    """Size of the artifact files themselves, unpacked, in bytes."""
    packed_bytes: int = 0
    """Bytes read from (load) or written to (save) the store as packs."""
    seconds: float = 0.0
    error: BaseException | None = field(default=None, compare=False)


@dataclass(frozen=True)
class LoadReport(Report):
    """What one load did."""

    packs: tuple[str, ...] = ()
    """Ids of the packs whose units were put in place, oldest first."""
    restored: tuple[str, ...] = field(default=(), repr=False)
    """Names of the units that were put in place: the cache's name, ``/`` and the unit's path in it."""
    rejected_packs: tuple[str, ...] = ()
    """One line for each pack that counted as absent: its id and why."""
    already_present: int = 0
    """Units the store holds that were in place before this load."""
    instant: str = ""
    """``ready`` if what is compiled from now on may start instantly, or why not; empty if that was not asked for."""


@dataclass(frozen=True)
class SaveReport(Report):
    """What one save did."""

    pack: str = ""
    """Id of the pack published, empty if none was."""
    left_for_next_save: int = 0
    """Units that a compiler was still writing; the next save takes them."""
    quarantined_packs: tuple[str, ...] = ()
    """Ids of damaged packs that this save set aside, so that later loads no longer stumble over them."""
