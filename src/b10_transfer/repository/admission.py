"""Whether a sound pack may count where it lies: its place, its units, and what its files say."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from ..adapters import ADAPTERS, Adapter, Unit, UnitKind
from ..errors import CorruptPackError, PackTooLargeError, UnsupportedPackError
from ..pack import Index, Member, PackReader
from ..pack.limits import MAX_REWRITTEN_BYTES

logger = logging.getLogger(__name__)

_ADAPTERS = {adapter.name: adapter for adapter in ADAPTERS}


def admit(pack_id: str, index: Index, namespace: str, environment_id: str) -> Index:
    """The index without the units that hold files no compiler writes: these are neither restored nor merged.

    Raises PackError unless a pack belongs to an environment and namespace, and its units are those that adapters make.
    Artifacts of another environment may be illegal instructions.
    """
    if (index.namespace, index.environment_id) != (namespace, environment_id):
        raise CorruptPackError(
            pack_id,
            f"it was published for environment {index.environment_id!a:.80}, namespace {index.namespace!a:.120}",
        )
    if unknown := [root for root in index.roots if root not in _ADAPTERS]:
        raise UnsupportedPackError(pack_id, f"holds caches this version does not know: {', '.join(unknown)!a:.120}")
    check_rewritten(pack_id, index)
    admitted = []
    for unit in index.units:
        if unit.origin >= pack_id:
            raise CorruptPackError(pack_id, f"{unit.name!a:.120} is said to come from a later pack, {unit.origin}")
        root, _, path = unit.name.partition("/")
        if _is_unit(_ADAPTERS[root], Unit(path, UnitKind(unit.kind)), unit.members, pack_id):
            admitted.append(unit)
        else:
            logger.info(
                "pack %s: unit %s holds files that no compiler writes; it is ignored", pack_id, ascii(unit.name)
            )
    return index if len(admitted) == len(index.units) else replace(index, units=tuple(admitted))


def check_rewritten(pack_id: str, index: Index) -> None:
    """Raise PackTooLargeError if a file is too large to be read whole and taken apart, as a restore must."""
    for unit in index.units:
        for member in unit.members:
            if member.size > MAX_REWRITTEN_BYTES:
                root, _, path = member.path.partition("/")
                if _ADAPTERS[root].is_rewritten(path):
                    raise PackTooLargeError(
                        pack_id, f"{member.path} has {member.size} bytes, the most allowed is {MAX_REWRITTEN_BYTES}"
                    )


def results_of(root: str, path: str) -> Sequence[str] | None:
    """The same of a cache by its name as :meth:`Adapter.results_of`."""
    return _ADAPTERS[root].results_of(path) if root in _ADAPTERS else None


def check_content(pack_id: str, reader: PackReader, index: Index) -> None:
    """Read every byte of a pack.

    Raises PackError if one is wrong, or if a restore could not put this machine's paths into a file that needs them.
    """

    def is_rewritten(member: Member) -> bool:
        root, _, path = member.path.partition("/")
        return _ADAPTERS[root].is_rewritten(path)

    members = [member for unit in index.units for member in unit.members if is_rewritten(member)]
    gathered = bytearray()
    for member, data, _is_first, is_last in reader.read_members(index, members, every_frame=True):
        gathered += data
        if is_last:
            root, _, path = member.path.partition("/")
            try:
                _ADAPTERS[root].to_local(Path("/"), path, bytes(gathered))
            except ValueError as error:
                raise CorruptPackError(pack_id, f"{member.path}: {error}") from error
            gathered.clear()


def _is_unit(adapter: Adapter, expected: Unit, members: Sequence[Member], pack_id: str) -> bool:
    """Whether a compiler writes these files, and all of them.

    Raises CorruptPackError if an adapter groups them otherwise: only then do units of two packs never get in each
    other's way.
    """
    paths = [member.path.partition("/")[2] for member in members]
    found = set(map(adapter.unit_of, paths))
    if found - {expected, None}:
        raise CorruptPackError(pack_id, f"{expected.path!a:.120} is no unit of the {adapter.name} cache")
    return found == {expected} and len(adapter.written(expected, paths)) == len(paths)
