"""Put units in place while compilers may be running and other ranks may be restoring.

Everything is first written to a staging folder beside the cache root, each byte out of a verified frame. Then an empty
root is filled by one rename, and any other unit by unit: a folder by a rename, the files of a stem by links. None of
these ever replaces anything, so whoever looks sees all of a unit or none of it, and what is there already stays.
"""

from __future__ import annotations

import errno
import logging
import os
import stat
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from ..adapters import CacheRoot, Unit, UnitKind
from ..adapters.base import is_transient
from ..concurrency.deadline import Deadline
from ..concurrency.pipeline import has_idle_processor, shared
from ..errors import CorruptPackError, LocalCacheError, NoSpaceError, PackError, explained
from ..pack import PackUnit, Slice
from ..repository.repository import ReadRepository
from ..repository.union import Pack, Union
from .bulk import FilePart, is_native
from .ownership import check_private
from .staging import StagedTree, lies_inside, staged_tree

logger = logging.getLogger(__name__)

_BLOCK_BYTES = 4096
"""What a file system allots for a file at least."""
_TAKEN = {errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR, errno.EISDIR}
"""What a rename answers when there is something in its way."""
_CANNOT_RENAME = {errno.EBUSY, errno.EXDEV, errno.EACCES, errno.EPERM}
"""What it answers where a root cannot be replaced as a whole, though units can be put into it."""
_NO_LINKS = {errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK}


@dataclass
class Restored:
    """What a restore did."""

    union: Union
    """What it restored from: without the packs whose content turned out to be damaged."""
    names: list[str] = field(default_factory=list)
    """Names of the units that are in place."""
    files: int = 0
    bytes: int = 0
    packed_bytes: int = 0
    packs: set[str] = field(default_factory=set)
    failures: list[LocalCacheError] = field(default_factory=list)
    """What could not be put in place, of roots or units; the others were."""

    @property
    def units(self) -> int:
        """How many units are in place."""
        return len(self.names)

    def count(self, pack: Pack, unit: PackUnit) -> None:
        """Note that a unit is in place."""
        self.names.append(unit.name)
        self.files += len(unit.members)
        self.bytes += unit.size
        if pack.id not in self.packs:
            self.packs.add(pack.id)
            self.packed_bytes += pack.packed_bytes

    def fail(self, error: LocalCacheError) -> None:
        """Note, and say, what could not be put in place."""
        logger.warning("%s; the rest is restored without it", error)
        self.failures.append(error)


Wanted = Mapping[str, tuple[Pack, PackUnit]]
_Batch = tuple[str, list[FilePart]]
"""The name of a root, and files to write there in one call."""
_BATCH_FILES = 32
"""A frame of kernels holds some hundred files, which two threads divide among themselves."""


def missing(units: Wanted, roots: Iterable[CacheRoot]) -> list[str]:
    """Names of the units that belong to one of ``roots`` and are not there."""
    by_name = {root.name: root for root in roots}
    exist = {name: os.path.exists(root.path) for name, root in by_name.items()}
    listings: dict[Path, list[str]] = {}
    absent = []
    for name, (_pack, unit) in units.items():
        root = name.partition("/")[0]
        if root in by_name and not (exist[root] and _is_present(by_name[root], _unit(unit), listings)):
            absent.append(name)
    return absent


def restore(
    repository: ReadRepository,
    union: Union,
    names: Iterable[str],
    roots: Iterable[CacheRoot],
    deadline: Deadline,
) -> Restored:
    """Put the named units in place below their roots.

    A pack that turns out to be damaged counts as absent: nothing of it is placed, and its units come from earlier
    packs where those hold them. Raises StoreError, NoSpaceError, LocalCacheError or DeadlineExceededError; a unit is
    then in place whole or not at all.
    """
    by_name = {root.name: root for root in roots}
    result = Restored(union)
    remaining = set(names)
    staged: dict[str, tuple[Pack, PackUnit]] = {}
    with ExitStack() as cleanup, _local_errors(", ".join(str(root.path) for root in by_name.values())):
        trees = _stage_roots(by_name, result, cleanup)
        remaining = {name for name in remaining if name.partition("/")[0] in trees}
        _require_space(result.union, remaining, trees)
        while remaining:
            wanted = {name: found for name, found in result.union.units.items() if name in remaining}
            remaining.intersection_update(wanted)
            for pack, units in _by_pack(wanted):
                try:
                    _stage(repository, pack, units, by_name, trees, deadline)
                except PackError as error:
                    result.union = result.union.without(pack, error)
                    _unstage(units, trees)
                    continue
                staged.update({unit.name: (pack, unit) for unit in units})
                remaining.difference_update(unit.name for unit in units)
        for name, tree in trees.items():
            root = by_name[name]
            deadline.check(f"putting files in place in {root.path}")
            of_root = [found for found in staged.values() if found[1].name.partition("/")[0] == name]
            _place(root, tree.path, of_root, result)
    if result.failures and not result.units:
        raise result.failures[0]
    return result


def _stage_roots(roots: Mapping[str, CacheRoot], result: Restored, cleanup: ExitStack) -> dict[str, StagedTree]:
    """A staged tree for each root that can have one."""
    trees = {}
    for name, root in roots.items():
        try:
            check_private(root)
            trees[name] = cleanup.enter_context(staged_tree(root.outermost))
        except LocalCacheError as error:
            result.fail(error)
    return trees


def _unit(unit: PackUnit) -> Unit:
    """A unit as its adapter knows it."""
    return Unit(_below_root(unit.name), UnitKind(unit.kind))


def _is_present(root: CacheRoot, unit: Unit, listings: dict[Path, list[str]]) -> bool:
    """Whether any artifact of a unit is there; locks and what a killed compiler left half written are none."""
    path = root.path / unit.path
    if unit.kind is UnitKind.FOLDER:
        try:
            return any(not is_transient(name) for name in os.listdir(path))
        except FileNotFoundError:
            return False
        except NotADirectoryError:
            return True
    if path.parent not in listings:
        try:
            listings[path.parent] = os.listdir(path.parent)
        except (FileNotFoundError, NotADirectoryError):
            listings[path.parent] = []
    folder = unit.path[: -len(path.name)]
    return any(
        name.startswith(path.name) and root.adapter.unit_of(folder + name) == unit for name in listings[path.parent]
    )


def _below_root(name: str) -> str:
    """A path in a pack without the name of its root."""
    return name.partition("/")[2]


def _by_pack(wanted: Wanted) -> list[tuple[Pack, list[PackUnit]]]:
    """The wanted units of each pack, so that a pack is read once."""
    grouped: dict[str, tuple[Pack, list[PackUnit]]] = {}
    for pack, unit in wanted.values():
        grouped.setdefault(pack.id, (pack, []))[1].append(unit)
    return list(grouped.values())


def _require_space(union: Union, names: set[str], trees: Mapping[str, StagedTree]) -> None:
    """Raise NoSpaceError rather than fill a file system: half a restore would be of no use to anybody."""
    devices = {name: os.stat(tree.path).st_dev for name, tree in trees.items()}
    needed = dict.fromkeys(devices.values(), 0)
    for name in names:
        _pack, unit = union.units[name]
        needed[devices[name.partition("/")[0]]] += unit.size + len(unit.members) * _BLOCK_BYTES
    for root, tree in trees.items():
        free = os.statvfs(tree.path)
        free_bytes, needed_bytes = free.f_bavail * free.f_frsize, needed[devices[root]]
        if free_bytes < needed_bytes:
            raise NoSpaceError(str(tree.path.parent), needed_bytes, free_bytes)


def _stage(
    repository: ReadRepository,
    pack: Pack,
    units: list[PackUnit],
    roots: Mapping[str, CacheRoot],
    trees: Mapping[str, StagedTree],
    deadline: Deadline,
) -> None:
    """Write the units' files to staging. Raises PackError if the pack cannot be used."""
    deadline.check(f"reading pack {pack.id}")
    members = [member for unit in units for member in unit.members]
    writer = _Writer(pack, roots, trees)
    with ExitStack() as stack:
        reader = stack.enter_context(repository.opened(pack))
        write: Callable[[Iterable[_Batch]], None] = writer.write_all
        if is_native and has_idle_processor():  # in Python it would only wait for the interpreter's lock
            write = stack.enter_context(shared(writer.write, deadline))
        for content, slices in reader.read_slices(pack.index, members):
            write(writer.batches(content, slices))


class _Writer:
    """Writes a pack's files to their trees."""

    def __init__(self, pack: Pack, roots: Mapping[str, CacheRoot], trees: Mapping[str, StagedTree]) -> None:
        self._pack = pack
        self._trees = trees
        self._roots = {name: (roots[name], roots[name].adapter.is_rewritten) for name in trees}
        self._gathered = bytearray()
        """Of a file that is to be rewritten, what earlier frames held of it."""

    def batches(self, content: bytearray, slices: Sequence[Slice]) -> Iterator[_Batch]:
        """What to write of a frame. Raises CorruptPackError if a file is not sound."""
        parts: dict[str, list[FilePart]] = {name: [] for name in self._trees}
        # Thousands of times, and a microsecond each is a millisecond of a start: nothing is done twice in here.
        for (path_in_pack, size, mode, mtime_ns, _offset, _sha256), first, last, at in slices:
            root_name, _, path = path_in_pack.partition("/")
            root, is_rewritten = self._roots[root_name]
            is_last = at + last - first == size
            if is_rewritten(path):
                self._gathered += content[first:last]
                if is_last:
                    data = _localised(root, path, bytes(self._gathered), self._pack)
                    parts[root_name].append((path, mode, mtime_ns, data, 0, len(data), 0))
                    self._gathered.clear()
            else:
                # The last part takes the owner's permission to write away again, if it must not be there.
                mode = mode if is_last else mode | stat.S_IWUSR
                parts[root_name].append((path, mode, mtime_ns, content, first, last, at))
        for name, of_root in parts.items():
            for start in range(0, len(of_root), _BATCH_FILES):
                yield name, of_root[start : start + _BATCH_FILES]

    def write(self, batch: _Batch) -> None:
        """Write some files. Raises CorruptPackError if one is in the way of another."""
        root_name, parts = batch
        try:
            self._trees[root_name].write(parts)
        except (FileExistsError, NotADirectoryError) as error:
            reason = f"{error.filename} is in the way of another pack's files"
            raise CorruptPackError(self._pack.id, reason) from error

    def write_all(self, batches: Iterable[_Batch]) -> None:
        """Write them one after the other."""
        for batch in batches:
            self.write(batch)


def _localised(root: CacheRoot, path: str, data: bytes, pack: Pack) -> bytes:
    try:
        return root.adapter.to_local(root.path, path, data)
    except ValueError as error:
        raise CorruptPackError(pack.id, f"{root.name}/{path}: {error}") from error


def _unstage(units: Iterable[PackUnit], trees: Mapping[str, StagedTree]) -> None:
    for unit in units:
        for member in unit.members:
            root_name, _, path = member.path.partition("/")
            trees[root_name].remove(path)


def _place(cache: CacheRoot, staged: Path, units: list[tuple[Pack, PackUnit]], result: Restored) -> None:
    """Move staged units to their root, and count those that were not already there."""
    if not units:
        return
    root = cache.path
    root.parent.mkdir(parents=True, exist_ok=True)
    whole = not lies_inside(cache.outermost) and _fill_empty_root(staged, root)
    for pack, unit in units:
        try:
            if whole or _place_unit(cache, staged, unit):
                result.count(pack, unit)
        except OSError as error:  # a folder on another file system, say
            result.fail(LocalCacheError("restore to", f"{root}/{_below_root(unit.name)}", str(error)))


def _place_unit(cache: CacheRoot, staged: Path, unit: PackUnit) -> bool:
    """Move one unit to its root; False if it is there."""
    root, known = cache.path, _unit(unit)
    (root / known.path).parent.mkdir(parents=True, exist_ok=True)
    if known.kind is UnitKind.FOLDER and _rename_folder(staged / known.path, root / known.path):
        return True
    if _is_present(cache, known, {}):
        return False
    # A stem, or a folder with nothing but leftovers in it. What names the other files comes last.
    paths = sorted((_below_root(member.path) for member in unit.members), key=cache.adapter.is_rewritten)
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        _link(staged / path, root / path)
    return True


def _link(staged: Path, target: Path) -> None:
    try:
        os.link(staged, target, follow_symlinks=False)
    except FileExistsError:  # a compiler was faster with this one; its content is the same
        return
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        os.rename(staged, target)


def _fill_empty_root(staged: Path, root: Path) -> bool:
    """Make the staged tree the root, if that is missing or empty: all of a restore appears at once."""
    try:
        # A root that others may read stays so; a new one is private, because torch runs what lies there.
        os.chmod(staged, root.stat().st_mode & 0o7777 if root.exists() else 0o700)
        os.rename(staged, root)
    except OSError as error:
        if error.errno not in _TAKEN | _CANNOT_RENAME:
            raise
        return False
    return True


def _rename_folder(staged: Path, target: Path) -> bool:
    try:
        os.rename(staged, target)  # fails unless the target is missing or an empty folder
    except OSError as error:
        if error.errno not in _TAKEN:
            raise
        return False
    return True


@contextmanager
def _local_errors(roots: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise LocalCacheError("restore to", roots, explained(error)) from error
