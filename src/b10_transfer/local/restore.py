"""Put units in place while compilers may be running and other ranks may be restoring.

Everything is first written to a staging folder beside the cache root, each byte out of a verified frame. Then an empty
root is filled by one rename, and any other unit by unit: a folder by a rename, the files of a stem by links. None of
these ever replaces anything, so whoever looks sees all of a unit or none of it, and what is there already stays.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager

from ..adapters import CacheRoot
from ..concurrency.deadline import Deadline
from ..errors import LocalCacheError, NoSpaceError, PackError, explained
from ..pack import PackUnit
from ..repository.repository import ReadRepository
from ..repository.union import Pack, Union
from .ownership import check_private
from .placing import Restored, place
from .presence import Wanted
from .staging import StagedTree, staged_tree
from .writing import stage

_BLOCK_BYTES = 4096
"""What a file system allots for a file at least."""


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
                    stage(repository, pack, units, by_name, trees, deadline)
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
            place(root, tree.path, of_root, result)
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


def _unstage(units: Iterable[PackUnit], trees: Mapping[str, StagedTree]) -> None:
    for unit in units:
        for member in unit.members:
            root_name, _, path = member.path.partition("/")
            trees[root_name].remove(path)


@contextmanager
def _local_errors(roots: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise LocalCacheError("restore to", roots, explained(error)) from error
