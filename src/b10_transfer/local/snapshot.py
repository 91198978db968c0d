"""Reads artifacts from the local caches: finds the units, chooses those that a store lacks, and packs them.

A compiler may write meanwhile. A unit is left for the next save if its adapter calls it incomplete, or if its files
changed while they were read. So a unit is never published half.
"""

from __future__ import annotations

import hashlib
import logging
from collections import Counter, deque
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from types import MappingProxyType

from ..adapters import CacheRoot, Unit, UnitKind
from ..adapters.accumulation import MOST_BYTES, Results, ResultsTooLargeError
from ..concurrency.deadline import Deadline
from ..errors import CacheError, LocalCacheError, PackFullError, SaveTooLargeError, count, printable
from ..notices import notices
from ..pack import PackUnit, PackWriter
from ..pack.rules import DistinctPaths, check_paths
from ..pack.units import storable_time
from .files import LocalFile, LocalUnit, RootScan
from .ownership import OpenRoot, open_private
from .sources import NotAsWrittenError, Sources, UnitChangedError, check_folder, read_whole

logger = logging.getLogger(__name__)

_BUFFER_BYTES = 256 * 1024


@dataclass(frozen=True)
class Snapshot:
    """The units found in the local caches."""

    units: tuple[LocalUnit, ...]
    unfinished: Mapping[str, int]
    """Units that a compiler has not finished, counted by cache."""
    failed: Mapping[str, CacheError]
    """Why a cache could not be read, by its name."""
    unrecognised: Mapping[str, int] = field(default_factory=dict)
    """Files and folders that no compiler writes there, counted by cache."""

    @property
    def incomplete(self) -> int:
        """Units that a compiler has not finished."""
        return sum(self.unfinished.values())


def has_artifacts(root: CacheRoot) -> bool:
    """Whether a root holds at least one unit that its compiler has finished."""
    if root.adapter.accompanies or (opened := open_private(root, to_restore=True)) is None:
        return False
    return any(_is_complete(root, *found) for found in RootScan(opened).units())


def take(
    roots: Iterable[CacheRoot], deadline: Deadline, refused: Mapping[str, CacheError] = MappingProxyType({})
) -> Snapshot:
    """Find every unit in the given roots. A root that cannot be read is in ``failed``.

    Args:
        roots: The caches to look through.
        deadline: When to stop.
        refused: Why other caches are not used, by name.
    """
    found: list[LocalUnit] = []
    unfinished: Counter[str] = Counter()
    unrecognised: Counter[str] = Counter()
    failed: dict[str, CacheError] = dict(refused)
    for root in roots:
        deadline.check(f"looking through {root.path}")
        try:
            if (opened := open_private(root)) is None:
                continue
            scan = RootScan(opened)
            units = list(scan.units())
        except LocalCacheError as error:
            failed[root.name] = error
            continue
        _log_entries_left_out(opened, scan)
        complete = [LocalUnit(opened, unit, tuple(files)) for unit, files in units if _is_complete(root, unit, files)]
        unfinished[root.name] = len(units) - len(complete)
        unrecognised[root.name] = scan.unrecognised
        found += _fitting(complete)
    return Snapshot(tuple(found), unfinished, failed, unrecognised)


def _is_complete(root: CacheRoot, unit: Unit, files: Sequence[LocalFile]) -> bool:
    return root.adapter.is_complete(root.path, unit, [file.path for file in files])


def _log_entries_left_out(opened: OpenRoot, scan: RootScan) -> None:
    """Log one WARNING for each cache with entries that cannot be read or that another user could have written.

    In an extra cache each unit that is not whole has a WARNING.
    """
    for message in scan.wholeness.messages if scan.wholeness is not None else ():
        notices.log(logger, logging.WARNING, f"{message}, the rest is used")
    if opened.left_out:
        more = " (and others in this cache)" if len(opened.left_out) > 1 else ""
        notices.log(logger, logging.WARNING, f"{opened.left_out[0]}{more}; it is left out, the rest is used")


def _fitting(units: list[LocalUnit]) -> list[LocalUnit]:
    """The units of one root whose paths fit into the format."""
    with suppress(ValueError):  # nearly always all of them, and at once they take a fraction of the time
        _check_fit(units, DistinctPaths())
        return units
    distinct = DistinctPaths()
    found = []
    for unit in units:
        try:
            _check_fit([unit], distinct)
            found.append(unit)
        except ValueError as error:
            path = unit.unit.path if unit.unit.kind is UnitKind.FOLDER else unit.files[0].path
            advice = "; rename it" if unit.root.adapter.takes_everything else ""
            message = printable(f"{unit.root.path}/{path} is not saved: {error}{advice}")
            notices.log(logger, logging.WARNING, message)
    return found


def _check_fit(units: Iterable[LocalUnit], distinct: DistinctPaths) -> None:
    """Raise ValueError if the paths of some units do not fit into the format beside ``distinct``."""
    paths = [f"{unit.root.name}/{file.path}" for unit in units for file in unit.files]
    if paths:
        check_paths(paths)
        distinct.add(paths)


def lacking(
    units: Iterable[LocalUnit], stored: Mapping[str, PackUnit], settled: Collection[str] = ()
) -> list[LocalUnit]:
    """The units that are new to a store that holds ``stored``.

    Compilers name artifacts by their inputs. So a unit with a known name is the same work, even if its bytes differ:
    they hold timings. It counts as new only if it has all files of the stored unit and more, for example a graph for
    one more set of guards, or a library that was missing.

    If a name covers less than the compiler checks, the compiler may have replaced an outdated unit. Such a unit counts
    as new if its content differs and its name is in ``settled``: a unit that was published a moment ago was probably
    compiled at the same time.

    Units of auxiliary caches are new only together with artifacts.

    In an extra cache one pod may have a file where another has a folder. The first that was published stays: if each
    replaced the other, the two pods would publish again and again.
    """
    units = list(units)
    _log_other_kinds(units, stored)
    new = [
        unit
        for unit in units
        if not (known := stored.get(unit.name))
        or _extends(unit, known)
        or (
            unit.name in settled
            and unit.root.adapter.may_be_replaced(unit.unit, [file.path for file in unit.files])
            and _differs(unit, known)
        )
    ]
    new = [unit for unit in new if _holds_sound_results(unit)]
    return new if hold_artifacts(new) else []


def _log_other_kinds(units: Iterable[LocalUnit], stored: Mapping[str, PackUnit]) -> None:
    """Log one WARNING if a store has folders under the names of files, or the reverse."""
    found = [unit for unit in units if unit.name in stored and stored[unit.name].kind != unit.unit.kind.value]
    if found:
        here, stored_kind = ("file", "folder") if found[0].unit.kind is UnitKind.STEM else ("folder", "file")
        path = printable(f"{found[0].root.path}/{found[0].unit.path}")
        more = f" ({len(found) - 1} more likewise)" if len(found) > 1 else ""
        message = f"{path} is a {here} and is not saved: the store has a {stored_kind} of this name{more}; rename one"
        notices.log(logger, logging.WARNING, message)


def _holds_sound_results(unit: LocalUnit) -> bool:
    """False for a file of results that is not as its compiler writes it."""
    results = unit.root.adapter.results_of(unit.unit.path)
    if results is None or unit.size > MOST_BYTES:
        return True
    try:
        results.read(read_whole(unit))
    except ResultsTooLargeError:
        return True
    except ValueError as error:
        _log_malformed(unit, error)
        return False
    except (UnitChangedError, LocalCacheError):  # as packing it finds again
        pass
    return True


def _log_malformed(unit: LocalUnit, error: ValueError) -> None:
    message = f"{unit.root.path}/{unit.unit.path} is not saved: {error}. Its compiler writes it anew if it is removed"
    notices.log(logger, logging.WARNING, message)


def with_new_results(
    units: Iterable[LocalUnit], stored: Mapping[str, PackUnit], read_stored: Callable[[str], bytes | None]
) -> list[LocalUnit]:
    """Units with results that the store lacks. Their content is merged with the results in the store.

    Units with names that the store lacks are not among them. A file that is not as a compiler writes it is left out.
    """
    found = []
    for unit in units:
        results = unit.root.adapter.results_of(unit.unit.path)
        known = stored.get(unit.name)
        if results is None or known is None or unit.size > MOST_BYTES or not _differs(unit, known):
            continue
        try:
            local = read_whole(unit)
            results.read(local)
        except (UnitChangedError, ResultsTooLargeError):
            continue
        except ValueError as error:
            _log_malformed(unit, error)
            continue
        if (merged := _with_stored(results, local, read_stored(unit.name))) is not None:
            found.append(unit._replace(results=merged))
    return found


def _with_stored(results: Results, local: bytes, stored: bytes | None) -> bytes | None:
    """A sound local file with the results in the store, which may be anything; None if it has none that are new."""
    if stored is None:
        return local
    try:
        merged = results.merge(stored, local)
        return None if results.read(merged) == results.read(stored) else merged
    except ValueError:
        return local


def hold_artifacts(units: Iterable[LocalUnit]) -> bool:
    """Whether any of the units is of a cache that is not auxiliary."""
    return any(not unit.root.adapter.accompanies for unit in units)


def _differs(local: LocalUnit, stored: PackUnit) -> bool:
    is_rewritten, prefix = local.root.adapter.is_rewritten, f"{local.root.name}/"
    sizes = {member.path: member.size for member in stored.members}
    has_sizes = all(sizes.get(prefix + file.path) == file.size for file in local.files if not is_rewritten(file.path))
    if has_sizes and not _changed_times(local, stored):
        return False  # as it was restored
    found = content(local)
    return bool(found) and found != {(member.path, member.sha256) for member in stored.members}


def content(unit: LocalUnit) -> frozenset[tuple[str, str]]:
    """Path in a pack and SHA-256 of each of a unit's files, as a pack would hold them; empty if they change."""
    found = set()
    buffer = memoryview(bytearray(_BUFFER_BYTES))
    try:
        for source in Sources(unit).files:
            digest = hashlib.sha256()
            with source.open(source) as file:
                left = source.size
                while left and (count := file.readinto(buffer[:left])):
                    digest.update(buffer[:count])
                    left -= count
            found.add((source.path, digest.hexdigest()))
    except UnitChangedError:
        return frozenset()
    return frozenset(found)


def in_order(units: Iterable[LocalUnit]) -> deque[LocalUnit]:
    """Units in the order that compresses best: similar units side by side."""
    return deque(sorted(units, key=_likeness))


@dataclass
class Packed:
    """Units that did not get into packs."""

    changed: int = 0
    """Left for the next save, because a compiler changed them meanwhile."""
    unfit: list[str] = field(default_factory=list)
    """Why others are left, because they are not as their compilers write them."""
    too_large: list[SaveTooLargeError] = field(default_factory=list)
    """Of units that no pack has room for."""
    unreadable: list[LocalCacheError] = field(default_factory=list)


def pack(units: deque[LocalUnit], writer: PackWriter, left_out: Packed) -> None:
    """Move units from the front into a pack, until it is full or none is left.

    A unit that cannot be read is left out with a warning.
    """
    while units:
        unit = units[0]
        try:
            sources = Sources(unit)
            check = partial(check_folder, unit)
            writer.add_unit(unit.name, unit.unit.kind.value, sources.files, check, read=sources.read)
        except PackFullError:
            return
        except SaveTooLargeError as error:
            left_out.too_large.append(error)
        except NotAsWrittenError as error:
            notices.log(logger, logging.INFO, f"{error}; it is not saved")
            left_out.unfit.append(str(error))
        except UnitChangedError as change:
            logger.debug("%s is left for the next save: %s", unit.name, change)
            left_out.changed += 1
        except LocalCacheError as error:
            logger.warning("%s; %s is not saved", error, unit.name)
            left_out.unreadable.append(error)
        units.popleft()


def log_times(units: Iterable[LocalUnit]) -> None:
    """Warn of files whose times do not fit into the format."""
    odd = [
        f"{unit.root.path}/{file.path}"
        for unit in units
        for file in unit.files
        if storable_time(file.mtime_ns) != file.mtime_ns
    ]
    if odd:
        logger.warning(
            "%s with a time before 1824 or after 2116: saved with the nearest that a pack can hold, %s for example",
            count(len(odd), "file"),
            odd[0],
        )


def compiled_since(unit: LocalUnit, stored: PackUnit, since_s: float) -> bool:
    """Whether this pod compiled a unit although the store had it: its files are newer, and neither restored nor
    published."""
    newer = _changed_times(unit, stored)
    return bool(newer) and max(newer) > since_s * 1e9


def _changed_times(local: LocalUnit, stored: PackUnit) -> list[int]:
    """Times of the files that have another time in the store, in nanoseconds since the epoch.

    A restore may change the times of files (:meth:`Adapter.fitting`), but not of those that it rewrites, which a
    compiler writes last.
    """
    rewritten = [file for file in local.files if local.root.adapter.is_rewritten(file.path)]
    times = {member.path: member.mtime_ns for member in stored.members}
    return [
        file.mtime_ns
        for file in rewritten or local.files
        if times.get(f"{local.root.name}/{file.path}", file.mtime_ns) != storable_time(file.mtime_ns)
    ]


def _extends(local: LocalUnit, stored: PackUnit) -> bool:
    return {f"{local.root.name}/{file.path}" for file in local.files} > {member.path for member in stored.members}


def _likeness(unit: LocalUnit) -> tuple[str, int, str]:
    """Variants of one kernel have files of the same names and about the same size; side by side they compress best."""
    return (unit.files[0].path.rpartition("/")[2], unit.size, unit.name)
