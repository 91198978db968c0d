"""Whether a sound pack may count where it lies: its place, its units, and what its files say."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ..adapters import ADAPTERS, Adapter, Unit, UnitKind
from ..adapters.base import any_transient
from ..errors import CorruptPackError, PackTooLargeError, UnsupportedPackError
from ..pack import Index, Member, PackReader
from ..pack.limits import MAX_REWRITTEN_BYTES

_ADAPTERS = {adapter.name: adapter for adapter in ADAPTERS}


def check_place(pack_id: str, index: Index, namespace: str, environment_id: str) -> None:
    """Raise PackError unless a pack belongs to an environment and namespace, and its units are what adapters make.

    Artifacts of another environment may be illegal instructions.
    """
    if (index.namespace, index.environment_id) != (namespace, environment_id):
        raise CorruptPackError(
            pack_id,
            f"it was published for environment {index.environment_id!a:.80}, namespace {index.namespace!a:.120}",
        )
    if unknown := [root for root in index.roots if root not in _ADAPTERS]:
        raise UnsupportedPackError(pack_id, f"holds caches this version does not know: {', '.join(unknown)!a:.120}")
    folders = [unit for unit in index.units if unit.kind == UnitKind.FOLDER.value]
    if any_transient(member.path for unit in folders for member in unit.members):
        culprit = next(unit for unit in folders if any_transient(member.path for member in unit.members))
        raise CorruptPackError(pack_id, f"{culprit.name!a:.120} holds files that are no artifacts")
    check_rewritten(pack_id, index)
    for name, kind, members, origin in index.units:
        if origin >= pack_id:
            raise CorruptPackError(pack_id, f"{name!a:.120} is said to come from a later pack, {origin}")
        root, _, path = name.partition("/")
        if not _is_unit(_ADAPTERS[root], Unit(path, UnitKind(kind)), members):
            raise CorruptPackError(pack_id, f"{name!a:.120} is no unit of the {root} cache")


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


def _is_unit(adapter: Adapter, expected: Unit, members: Sequence[Member]) -> bool:
    """Whether an adapter would group these files so: only then do units of two packs never get in each other's way."""
    if expected.kind is UnitKind.FOLDER:  # the others are below the same folder
        return adapter.unit_of(members[0].path.partition("/")[2]) == expected
    return all(adapter.unit_of(member.path.partition("/")[2]) == expected for member in members)
