"""Put units in place while compilers may be running and other ranks may be restoring.

Files are first written to a staging folder in the cache root, from verified frames only. Then the units are put in
place one by one: a folder by a rename, the files of a stem by links. A root that does not exist appears by one rename.
None of these replaces a file. So a reader sees all of a unit or none of it, and existing files stay.

A root that cannot be restored to does not affect the others.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from pathlib import Path

from ..adapters import CacheRoot
from ..adapters.accumulation import MOST_BYTES
from ..adapters.elf import is_host_code
from ..concurrency.deadline import Deadline
from ..errors import CacheError, LocalCacheError, PackError, explained
from ..pack import PackUnit
from ..repository.repository import ReadRepository
from ..repository.results import CollectedResults, are_spread
from ..repository.union import Pack, Union
from .ownership import user_to_restore_as
from .placing import Restored, place
from .presence import Wanted, below_root, known_unit
from .rights import rights_of
from .room import shortages
from .staging import StagedTree, staged_tree
from .writing import stage

logger = logging.getLogger(__name__)


def restore(
    repository: ReadRepository,
    union: Union,
    names: Iterable[str],
    roots: Iterable[CacheRoot],
    deadline: Deadline,
    before_placing: Callable[[Restored], None] | None = None,
) -> Restored:
    """Put the named units in place below their roots.

    ``before_placing`` is called when everything is staged and nothing is in place. If it raises, nothing will be.

    A damaged pack is ignored: nothing of it is placed, and its units come from earlier packs if those hold them. A root
    that cannot be restored to is left out with a warning. Raises StoreError or DeadlineExceededError, and NoSpaceError
    or LocalCacheError if nothing could be placed; a unit is then in place whole or not at all.
    """
    by_name = {root.name: root for root in roots}
    result = Restored(union)
    remaining = set(names)
    staged: dict[str, tuple[Pack, PackUnit]] = {}
    with ExitStack() as cleanup:
        trees = _stage_roots(by_name, result, cleanup)
        _drop_without_room(result, remaining, by_name, trees)
        while remaining := {name for name in remaining if name.partition("/")[0] in trees}:
            wanted = {name: found for name, found in result.union.units.items() if name in remaining}
            remaining.intersection_update(wanted)
            for pack, units in _by_pack(wanted):
                try:
                    failed = stage(repository, pack, units, by_name, trees, deadline)
                except PackError as error:
                    result.union = result.union.without(pack, error)
                    _unstage(units, trees)
                    continue
                staged.update({unit.name: (pack, unit) for unit in units})
                remaining.difference_update(unit.name for unit in units)
                for name, cause in failed.items():
                    result.fail(_failure(by_name[name], cause))
                    del trees[name]
        _unstage_host_code(repository, staged, by_name, trees)
        _merge_results(repository, result, staged, by_name, trees)
        if before_placing is not None:
            before_placing(result)
        for name, tree in trees.items():
            root = by_name[name]
            deadline.check(f"putting files in place in {root.path}")
            of_root = [found for found in staged.values() if found[1].name.partition("/")[0] == name]
            try:
                place(root, tree, of_root, result, deadline)
            except OSError as error:
                result.fail(_failure(root, error))
    if result.failures and not result.units:
        raise result.failures[0]
    return result


def _failure(root: CacheRoot, error: OSError) -> LocalCacheError:
    return LocalCacheError("restore to", str(root.path), explained(error))


def _unstage_host_code(
    repository: ReadRepository,
    staged: dict[str, tuple[Pack, PackUnit]],
    roots: Mapping[str, CacheRoot],
    trees: Mapping[str, StagedTree],
) -> None:
    """Leave out units of other environments that may not run on this CPU, whatever their files are called."""
    own = repository.environment.id
    for name, (pack, unit) in list(staged.items()):
        root, _, _path = name.partition("/")
        if pack.index.environment_id == own or root not in trees:
            continue
        paths = [below_root(member.path) for member in unit.members]
        if roots[root].adapter.depends_on_host(known_unit(unit), paths) or any(
            is_host_code(trees[root].path / path) for path in paths
        ):
            logger.warning("pack %s: %s holds code for a CPU, and this pod's may be another; left out", pack.id, name)
            del staged[name]
            _unstage([unit], trees)


def _merge_results(
    repository: ReadRepository,
    result: Restored,
    staged: dict[str, tuple[Pack, PackUnit]],
    roots: Mapping[str, CacheRoot],
    trees: Mapping[str, StagedTree],
) -> None:
    """Give staged files that collect results those of every publication. Leave out a file without a sound result."""
    union = result.union
    collected = CollectedResults(repository, union)
    for name, (_pack, unit) in list(staged.items()):
        root, _, path = name.partition("/")
        results = roots[root].adapter.results_of(path) if root in trees else None
        if results is None or unit.size > MOST_BYTES:
            continue
        is_spread = are_spread(union, name)
        merged = collected.of(name) if is_spread else None
        # The limit of a load counts the files in packs, so their sizes together must be enough.
        fits = merged is not None and len(merged) <= sum(version.size for _, version in union.versions(name))
        try:
            # The staged tree belongs to that user, who could put a link in the way.
            with rights_of(trees[root].user):
                file = trees[root].path / path
                if not is_spread:
                    merged = results.merge_all([file.read_bytes()], name)
                elif merged is not None and fits:
                    _replace_content(file, merged)
        except OSError as error:  # a full file system, say
            merged = None
            result.fail(_failure(roots[root], error))
        if merged is None:
            del staged[name]
            _unstage([unit], trees)


def _replace_content(file: Path, data: bytes) -> None:
    """Write a staged file anew. It keeps its time, by which it is known to be restored and not compiled here."""
    times = os.stat(file)
    file.write_bytes(data)
    os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))


def _stage_roots(roots: Mapping[str, CacheRoot], result: Restored, cleanup: ExitStack) -> dict[str, StagedTree]:
    """A staged tree for each root that can have one."""
    trees = {}
    for name, root in roots.items():
        try:
            user = user_to_restore_as(root)
            trees[name] = cleanup.enter_context(staged_tree(root.outermost, user))
        except CacheError as error:
            result.fail(error)
    return trees


def _by_pack(wanted: Wanted) -> list[tuple[Pack, list[PackUnit]]]:
    """The wanted units by pack, so that each pack is read once."""
    grouped: dict[str, tuple[Pack, list[PackUnit]]] = {}
    for pack, unit in wanted.values():
        grouped.setdefault(pack.id, (pack, []))[1].append(unit)
    return list(grouped.values())


def _drop_without_room(
    result: Restored, names: Iterable[str], roots: Mapping[str, CacheRoot], trees: dict[str, StagedTree]
) -> None:
    """Leave out the roots for which a file system lacks room, rather than restore half of each."""
    units = [result.union.units[name][1] for name in names]
    found = shortages([(root, trees[name].path) for name, root in roots.items() if name in trees], units)
    for name, error in found.items():
        result.fail(_failure(roots[name], error) if isinstance(error, OSError) else error)
        del trees[name]


def _unstage(units: Iterable[PackUnit], trees: Mapping[str, StagedTree]) -> None:
    for unit in units:
        for member in unit.members:
            root_name, _, path = member.path.partition("/")
            if root_name in trees:
                trees[root_name].remove(path)
