"""The result of an operation: a status for a program to branch on, and a report with details."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum, auto


class OperationStatus(Enum):
    """The outcome of a load or a save."""

    SUCCESS = auto()
    """Load: artifacts were restored. Save: a pack was published."""
    ERROR = auto()
    """The operation failed. The log and the report say why and what to do. The model still compiles."""
    DOES_NOT_EXIST = auto()
    """Load only: the store has nothing usable for this environment and namespace."""
    SKIPPED = auto()
    """Load: every cache that the store has data for already holds artifacts. Save: the store already has every unit,
    nothing was compiled, or this pod can only read the store."""


@dataclass(frozen=True)
class Report:
    """The result of one operation. Counts and sizes are of what was restored (load) or published (save)."""

    status: OperationStatus
    """The outcome."""
    reason: str
    """One sentence: what happened, or why nothing did."""
    namespace: str = ""
    """The workload; empty if the settings could not be read."""
    environment_id: str = ""
    """Id of the environment key that was looked up; empty if the operation failed before the key was known."""
    store: str = ""
    """Directory or URL of the store; empty if the settings could not be read."""
    units: int = 0
    """Number of units."""
    files: int = 0
    """Number of files in these units."""
    bytes: int = 0
    """Size of these files, uncompressed, in bytes."""
    packed_bytes: int = 0
    """Size of the packs that were read (load) or written (save), compressed, in bytes."""
    seconds: float = 0.0
    """Duration in seconds."""
    error: BaseException | None = field(default=None, compare=False)
    """The error if the status is ERROR: a :class:`CacheError`, or an unexpected exception."""


@dataclass(frozen=True)
class LoadReport(Report):
    """The result of one load."""

    packs: tuple[str, ...] = ()
    """Ids of the packs whose units were restored, oldest first."""
    restored: tuple[str, ...] = field(default=(), repr=False)
    """Names of the restored units: the name of the cache, ``/``, and the path of the unit in the cache."""
    rest: tuple[str, ...] = field(default=(), repr=False)
    """Names of the units that earlier warm starts did not use, and that this load has therefore not restored yet
    (``B10_RESTORE_REST``)."""
    rest_files: int = 0
    """Number of files in these units."""
    rest_bytes: int = 0
    """Size of these files, uncompressed, in bytes."""
    rejected_packs: tuple[str, ...] = ()
    """Why packs were ignored: a line for each of up to three packs; of more, one line with counts and examples."""
    ignored_packs: int = 0
    """How many packs were ignored."""
    pack_states: Mapping[str, int] = field(default_factory=dict)
    """Number of packs of this environment in the store by state: ``usable``, ``recalled``, ``pruned``, ``set aside``,
    ``damaged``, ``untrusted``, ``newer``, ``not named`` (only extra caches that B10_EXTRA_CACHES does not name),
    ``too large``, ``not read`` or ``unreadable``. Empty if the store was not read."""
    already_present: int = 0
    """Number of units of the store that were in place before this load."""
    partial: str = ""
    """What this pod gets, and why not more: ``2 of 13 units; pack 01a2… is damaged``. Empty if it gets everything that
    was saved for it, or nothing."""
    siblings: tuple[str, ...] = ()
    """Ids of the environments that the units were published for, if they are not this pod's own: those differ only in
    the CPU or the C library."""
    group: str = ""
    """How the packs of the group were chosen (``B10_GROUP``): ``recorded`` by this load, ``followed`` as another
    process recorded them, ``cold`` if nothing is loaded because one process cannot load them, or ``not recorded: …``
    with the reason. Empty without a group."""
    instant: str = ""
    """``ready`` if later compilations may start instantly, else the reason why not; empty if it was not requested."""
    commands: tuple[str, ...] = ()
    """Command lines of the servers that saved the packs in the store, as far as they are recorded: at most five, the
    latest last, without secrets."""
    key_differences: tuple[str, ...] = ()
    """Paths and numbers in compilers' keys that this pod has, and the pods that saved had not: a line for each."""
    autosave: str = ""
    """``on`` if a process saves later compilations, else the reason why not; empty if it was not requested."""


@dataclass(frozen=True)
class SaveReport(Report):
    """The result of one save."""

    pack: str = ""
    """Id of the published pack, of several the last; empty if none was published."""
    packs: tuple[str, ...] = ()
    """Ids of the published packs, also if the save failed later: each is complete by itself."""
    left_for_next_save: int = 0
    """Number of units that a compiler was still writing. The next save publishes them."""
    quarantined_packs: tuple[str, ...] = ()
    """Ids of the damaged packs that this save marked, so that later loads do not read them."""
    read_only: bool = False
    """Whether this pod can publish nothing: ``B10_READ_ONLY=1``, or the store refuses writes. The status is SKIPPED.
    A process logs it once."""
