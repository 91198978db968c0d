"""How restored units were used: which of them were read since, and which units were compiled.

A restore sets the access time of each file to its modification time. A read moves the access time: at once on most
file systems, and with ``relatime`` (the default of Linux) because it was not later than the modification time. On file
systems that never move it (``noatime``), use is reported as unknown.
"""

from __future__ import annotations

import logging
import os
import tempfile
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from ..adapters import CacheRoot, find_adapter
from ..adapters.ninja import LOG as NINJA_LOG
from ..concurrency.deadline import Deadline
from ..environment.imported_torch import compile_counters
from ..errors import count
from ..status import LoadReport
from . import snapshot
from .files import LocalUnit

_DEADLINE_S = 30
"""For a look at local caches, which takes milliseconds."""


@dataclass(frozen=True)
class CacheUse:
    """The use of one compiler's cache since the last load, counted in units."""

    cache: str
    """Name of the cache."""
    path: str
    """Directory of the cache."""
    restored: int
    """Units that the load restored, or another process of this pod while the load ran or after it."""
    used: int | None
    """Restored units that were read since. None: the file system records no reads."""
    compiled: int
    """Units that a compiler wrote since the load began."""

    def __str__(self) -> str:
        used = "used unknown (its file system records no reads)" if self.used is None else f"used {self.used}"
        counts = [f"restored {self.restored}", used] if self.restored else []
        if self.compiled or not counts:
            counts.append(f"compiled anew {self.compiled}")
        return f"{self.cache}: {', '.join(counts)}"

    @property
    def log_level(self) -> int:
        """DEBUG for a cache that is no compiler's, else INFO."""
        adapter = find_adapter(self.cache)
        return logging.DEBUG if adapter is not None and adapter.accompanies else logging.INFO


@dataclass(frozen=True)
class CacheReport:
    """How the caches were used since the last load of this process.

    ``str()`` gives the summary, a line for each cache and for each instant start, and torch's counts that are not zero.
    """

    caches: tuple[CacheUse, ...]
    """Caches with restored or newly compiled units."""
    counters: Mapping[str, int] = field(default_factory=dict)
    """torch's counts, for example ``fxgraph_cache_hit``; empty unless this process compiled."""
    warning: str = ""
    """Why restored units were probably not used; empty if they were used or nothing was restored."""
    summary: str = "compile cache: this process has not loaded"
    """One line: ``compile cache HIT: 18 of 18 units used, 0 compiled, load 0.6 s, 156.0 MB``. The verdict is HIT,
    PARTIAL or MISS."""

    verdict: str = ""
    """``HIT``, ``PARTIAL`` or ``MISS``; empty if this process has not loaded, or the caches could not be read."""
    instant: tuple[str, ...] = ()
    """A line for each compiled class or function, if the load prepared instant starts:
    ``Transformer: instant, 2 of 2 graphs used``, or ``Transformer: warm, because …``."""

    def facts(self) -> dict[str, object]:
        """The facts that programs read, as JSON types."""
        caches = {
            cache.cache: {"restored": cache.restored, "used": cache.used, "compiled": cache.compiled}
            for cache in self.caches
        }
        return {"verdict": self.verdict, "caches": caches, "warning": self.warning}

    def __str__(self) -> str:
        lines = [self.summary, *map(str, self.caches), *self.instant]
        if counted := {name: count for name, count in self.counters.items() if count}:
            lines.append("torch: " + ", ".join(f"{name} {count}" for name, count in sorted(counted.items())))
        return "\n".join([*lines, f"warning: {self.warning}"] if self.warning else lines)


class Usage:
    """Remembers a load, and later reports how the restored units were used.

    ``began_ns`` and ``ended_ns`` are the times of the load, in nanoseconds since the epoch. Local file systems use this
    machine's clock for the times of files.
    """

    def __init__(self, roots: Sequence[CacheRoot], load: LoadReport, began_ns: int, ended_ns: int) -> None:
        self._roots = roots
        self._load = load
        self._restored = frozenset(load.restored)
        self.rest = frozenset(load.rest)
        """Names of the units that the load left for later."""
        self._began_ns = began_ns
        self._ended_ns = ended_ns

    @property
    def is_warm(self) -> bool:
        """Whether the load restored units that were published for this pod's own environment."""
        return bool(self._load.restored) and not self._load.siblings

    def used_units(self) -> set[str]:
        """Names of units of the store that this start needed: those that were read, and those that came too late.

        Units whose file system records no reads are not among them. Raises LocalCacheError or DeadlineExceededError.
        """
        found = snapshot.take(self._roots, Deadline("looking at the caches", _DEADLINE_S))
        return {
            unit.name
            for unit in found.units
            if unit.root.adapter.is_reported and self._was_needed(unit, _statuses(unit))
        }

    def _was_needed(self, unit: LocalUnit, statuses: Sequence[os.stat_result]) -> bool:
        was_read = _were_read(statuses)
        if unit.name in self._restored:
            return was_read
        if any(status.st_mtime_ns >= self._began_ns for status in statuses):
            return unit.name in self.rest  # compiled before it was restored
        return was_read and any(status.st_ctime_ns > self._began_ns for status in statuses)

    def report(self, since_ns: int | None = None) -> CacheReport:
        """Report the use of each cache.

        Args:
            since_ns: The time from which units count as compiled, if it is before the load. Default: the load's begin.

        Raises:
            LocalCacheError: The caches cannot be read.
        """
        began_ns = self._began_ns if since_ns is None else min(since_ns, self._began_ns)
        restored = Counter(name.partition("/")[0] for name in self._restored)
        used: Counter[str] = Counter()
        compiled: Counter[str] = Counter()
        in_place = 0
        rebuilt: list[str] = []
        found = snapshot.take(self._roots, Deadline("looking at the caches", _DEADLINE_S))
        for error in found.failed.values() if not found.units else ():
            raise error
        for unit in found.units:
            statuses = _statuses(unit)
            was_restored = unit.name in self._restored
            # Judged by the time of the last change, which no program sets. The other times of a restored file are old.
            after_ns = self._ended_ns if was_restored else began_ns
            changed = any(status.st_ctime_ns > after_ns for status in statuses)
            if changed and not was_restored and all(status.st_mtime_ns < began_ns for status in statuses):
                # Another rank, or a forked process, restored it: what is compiled now has no older files.
                was_restored, changed = True, False
                restored[unit.root.name] += 1
            if was_restored:
                used[unit.root.name] += _were_read(statuses)
            compiled[unit.root.name] += changed
            if was_restored and changed and any(file.path.endswith(f"/{NINJA_LOG}") for file in unit.files):
                rebuilt.append(unit.name)
            in_place += unit.root.adapter.is_reported and not (was_restored or changed)
        caches = tuple(
            CacheUse(
                cache=root.name,
                path=str(root.path),
                restored=restored[root.name],
                used=used[root.name] if _is_known(used, restored, root) else None,
                compiled=compiled[root.name],
            )
            for root in self._roots
            if (restored[root.name] or compiled[root.name]) and root.adapter.is_reported
        )
        warning = warning_of(caches) or _warning_of_rebuilt(rebuilt)
        if warning:
            warning = "; ".join([warning, *self._load.key_differences])
        has_any = in_place or any(cache.restored for cache in caches)
        verdict = "MISS" if not has_any else "PARTIAL" if self._load.partial else "HIT"
        return CacheReport(caches, compile_counters(), warning, self._summary(verdict, caches, in_place), verdict)

    def _summary(self, verdict: str, caches: Sequence[CacheUse], in_place: int) -> str:
        """The first line of a report. ``in_place`` units were there before the load."""
        load = self._load
        restored, compiled = sum(cache.restored for cache in caches), sum(cache.compiled for cache in caches)
        used = [cache.used for cache in caches if cache.used is not None]
        if not restored:
            found = f"{count(in_place, 'unit')} already in place" if in_place else "nothing was restored"
        elif len(used) < len(caches):
            found = f"{count(restored, 'unit')} restored, their use is unknown"
        else:
            found = f"{sum(used)} of {count(restored, 'unit')} used"
        seconds = (self._ended_ns - self._began_ns) / 1e9
        size = f", {load.bytes / 1e6:.1f} MB" if load.bytes else ""
        why = f"; {load.partial}" if load.partial else ""
        return f"compile cache {verdict}: {found}, {compiled} compiled, load {seconds:.1f} s{size}{why}"


def _statuses(unit: LocalUnit) -> list[os.stat_result]:
    found = []
    for file in unit.files:
        with suppress(OSError):  # gone meanwhile
            found.append(os.stat(unit.root.path / file.path, follow_symlinks=False))
    return found


def _were_read(statuses: Sequence[os.stat_result]) -> bool:
    """Whether any of some files was read since it was restored: a restore sets both times alike."""
    return any(status.st_atime_ns != status.st_mtime_ns for status in statuses)


def _is_known(used: Counter[str], restored: Counter[str], root: CacheRoot) -> bool:
    """Whether the number of used units is known: zero if none was restored; else if reads are recorded."""
    return not restored[root.name] or bool(used[root.name]) or _records_reads(root.path)


def _records_reads(folder: Path) -> bool:
    """Whether a read moves the access time here. Found by trial, because overlays hide their mount options."""
    try:
        with tempfile.NamedTemporaryFile(dir=folder, prefix=".b10-probe-") as file:
            file.write(b"x")
            file.flush()
            os.utime(file.name, ns=(10**18, 10**18))
            Path(file.name).read_bytes()
            return os.stat(file.name).st_atime_ns != 10**18
    except OSError:
        return False


def warning_of(caches: Sequence[CacheUse]) -> str:
    """Why restored caches were probably not used; empty if they were, or if that is unknown.

    A cache that was not used is reported even if another one was: precompiled headers serve any compilation.
    """
    restored = [cache for cache in caches if cache.restored]
    unused = not any(cache.used is None or cache.used for cache in restored)
    missed = [cache for cache in restored if cache.used == 0 and (cache.compiled or unused)]
    if not missed:
        return ""
    unused_units = _were_restored(sum(cache.restored for cache in missed))
    compiled = sum(cache.compiled for cache in (caches if unused else missed))
    if not compiled:
        return (
            f"{unused_units}, nor was anything compiled in {_paths(restored)}: "
            "compilation is off (vLLM: --enforce-eager), or the compiler keeps its caches elsewhere "
            "(HOME, TMPDIR or a cache's own variable differs between this process and it)"
        )
    return (
        f"{' and '.join(cache.cache for cache in missed)}: {unused_units}, "
        f"while {compiled} {'was' if compiled == 1 else 'were'} compiled anew: the compiler's own keys "
        "differ from those of the pod that saved (another model path, source path, shapes or flags)"
    )


def _warning_of_rebuilt(names: Sequence[str]) -> str:
    """Why ninja has built restored units again; empty if it has not."""
    if not names:
        return ""
    return (
        f"ninja built {count(len(names), 'unit')} again after a restore, {names[0]} for example: the cache is in "
        "another directory than on the pod that saved, or packages were installed again and their files are newer"
    )


def _were_restored(units: int) -> str:
    if units == 1:
        return "1 unit was restored and not used"
    return f"{units} units were restored and none was used"


def _paths(caches: Iterable[CacheUse]) -> str:
    return " and ".join(cache.path for cache in caches)
