"""Whether a sound pack may count where it lies: its place, its units, and what its files say."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ..adapters import Adapter, Unit, UnitKind, find_adapter
from ..adapters.accumulation import Results
from ..config.extra import EXTRA_CACHES, PREFIX
from ..errors import CorruptPackError, PackTooLargeError, UnnamedCachesError, UnsupportedPackError, count
from ..pack import Index, Member, PackReader
from .ignored import few


@dataclass(frozen=True)
class Admitted:
    """The part of a pack that counts."""

    index: Index
    """The index of the units that count."""
    is_partial: bool
    """Whether the pack holds units that another pod may know: of a cache, or a version of it, that is not here."""
    ignored: tuple[str, ...] = ()
    """Why units of it are ignored: a line for each cause."""


def admit(pack_id: str, index: Index, namespace: str, environment_id: str) -> Admitted:
    """The index without the units that hold files no compiler writes: these are neither restored nor merged.

    Raises PackError unless a pack belongs to an environment and namespace, and its units are those that adapters make.
    Artifacts of another environment may be illegal instructions.
    """
    if (index.namespace, index.environment_id) != (namespace, environment_id):
        raise CorruptPackError(
            pack_id,
            f"it was published for environment {index.environment_id!a:.80}, namespace {index.namespace!a:.120}",
        )
    adapters = {root: find_adapter(root) for root in index.roots}
    ignored = _other_caches(pack_id, adapters)
    check_rewritten(pack_id, index)
    admitted, foreign, is_partial = [], [], bool(ignored)
    for unit in index.units:
        if unit.origin >= pack_id:
            raise CorruptPackError(pack_id, f"{unit.name!a:.120} names a later pack as its origin, {unit.origin}")
        root, _, path = unit.name.partition("/")
        adapter = adapters[root]
        if adapter is None:
            continue
        if _is_unit(adapter, Unit(path, UnitKind(unit.kind)), unit.members, pack_id):
            admitted.append(unit)
        elif adapter.is_plugin:
            is_partial = True
        else:
            foreign.append(unit.name)
    if foreign:
        ignored.append(
            f"{count(len(foreign), 'unit')} with files that no compiler writes: ignored: {few(foreign)!a:.300}"
        )
    kept = replace(index, units=tuple(admitted)) if len(admitted) < len(index.units) else index
    return Admitted(kept, is_partial, tuple(ignored))


def _other_caches(pack_id: str, adapters: Mapping[str, Adapter | None]) -> list[str]:
    """Say which caches of a pack are ignored. Raises PackError if they are all of them."""
    others = [root for root, adapter in adapters.items() if adapter is None]
    unnamed = ", ".join(root for root in others if root.startswith(PREFIX))
    unknown = ", ".join(root for root in others if not root.startswith(PREFIX))
    lines = [f"this pod does not know the caches {unknown!a:.120}; their units are ignored"] if unknown else []
    if unnamed:
        lines.append(f"{EXTRA_CACHES} of this pod does not name {unnamed!a:.120}: units of these caches are ignored")
    if len(others) < len(adapters):
        return lines
    if unknown:
        raise UnsupportedPackError(pack_id, f"holds caches this version does not know: {unknown!a:.120}")
    if unnamed:
        detail = f"holds only extra caches that {EXTRA_CACHES} of this pod does not name: {unnamed!a:.120}"
        raise UnnamedCachesError(pack_id, detail)
    return lines


def check_rewritten(pack_id: str, index: Index) -> None:
    """Raise PackTooLargeError if a file is too large to be read whole and taken apart, as a restore must."""
    for unit in index.units:
        for member in unit.members:
            if member.size > Adapter.most_rewritten_bytes:
                root, _, path = member.path.partition("/")
                adapter = find_adapter(root)
                if (
                    adapter is not None
                    and member.size > (most := adapter.most_rewritten_bytes)
                    and adapter.is_rewritten(path)
                ):
                    raise PackTooLargeError(
                        pack_id, f"{member.path} has {member.size} bytes, the most allowed is {most}"
                    )


def results_of(root: str, path: str) -> Results | None:
    """The same of a cache by its name as :meth:`Adapter.results_of`."""
    adapter = find_adapter(root)
    return adapter.results_of(path) if adapter is not None else None


def check_content(pack_id: str, reader: PackReader, index: Index) -> None:
    """Read every byte of a pack.

    Raises PackError if one is wrong, or if a restore could not put this machine's paths into a file that needs them.
    """
    adapters = {root: find_adapter(root) for root in index.roots}

    def is_rewritten(member: Member) -> bool:
        root, _, path = member.path.partition("/")
        adapter = adapters[root]
        return adapter is not None and adapter.is_rewritten(path)

    members = [member for unit in index.units for member in unit.members if is_rewritten(member)]
    gathered = bytearray()
    for member, data, _is_first, is_last in reader.read_members(index, members, every_frame=True):
        gathered += data
        if is_last:
            root, _, path = member.path.partition("/")
            adapter = adapters[root]
            assert adapter is not None, "only files of a known cache are rewritten"
            try:
                adapter.to_local(Path("/"), path, bytes(gathered))
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
    if found - {expected, None} and not adapter.is_plugin:  # another version may group otherwise
        raise CorruptPackError(pack_id, f"{expected.path!a:.120} is no unit of the {adapter.name} cache")
    return found == {expected} and len(adapter.written(expected, paths)) == len(paths)
