"""Units of sibling environments, for a pod whose own environment has none.

A sibling differs from the pod's environment only in the CPU's features and the C library. GPU code does not depend on
these. A description that a store holds counts only if the sibling's id is its digest, and a sibling's packs must belong
to that id. So no writer can pass another GPU's units off as a sibling's.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import replace

from ..adapters import Unit, UnitKind, find_adapter
from ..environment import Environment
from ..errors import StoreError
from ..pack import Budget, PackUnit
from .catalogue import Catalogue
from .union import Pack, Union

logger = logging.getLogger(__name__)

_MAY_DIFFER = frozenset({"cpu features", "libc"})
_MOST_COMPARED = 100
"""Each comparison is a request."""
_MOST_READ = 8
_ID_SHOWN = 12


def read_siblings(catalogue: Catalogue, namespace: str, environment: Environment) -> Union:
    """Read the units of sibling environments that do not depend on the host.

    The limits of one load apply to all siblings together. A sibling that cannot be read is left out.

    Args:
        catalogue: The store.
        namespace: The namespace of the pod.
        environment: The environment of the pod.

    Raises:
        StoreError: The store cannot be listed.
    """
    packs: dict[str, Pack] = {}
    budget = Budget(catalogue.limits)
    for sibling in _siblings(catalogue, namespace, environment):
        try:
            union = catalogue.repository(namespace, sibling).union(budget=budget)
        except StoreError as error:
            logger.info("the sibling environment %s is not used: %s", sibling, error)
            continue
        for pack in union.packs:
            packs.setdefault(pack.id, _without_host_code(pack, union.recalled))
    return Union(tuple(packs[pack_id] for pack_id in sorted(packs) if packs[pack_id].index.units), ())


def depends_on_host(unit: PackUnit) -> bool:
    """Whether a unit may be of no use on another CPU, or with another C library, judged by the names of its files."""
    root, _, path = unit.name.partition("/")
    adapter = find_adapter(root)
    files = [member.path.partition("/")[2] for member in unit.members]
    return adapter is None or adapter.depends_on_host(Unit(path, UnitKind(unit.kind)), files)


def describe(union: Union, names: Iterable[str]) -> str:
    """Some units of siblings in words: ``118 units of 3f2a0d917c55 (another CPU or C library)``."""
    counts = Counter(union.units[name][0].index.environment_id for name in names)
    found = [f"{number} {'unit' if number == 1 else 'units'} of {id_[:_ID_SHOWN]}" for id_, number in counts.items()]
    return f"{' and '.join(sorted(found))} (another CPU or C library)"


def _siblings(catalogue: Catalogue, namespace: str, environment: Environment) -> list[str]:
    """Ids of the siblings, those with the newest packs first."""
    others = [found for found in catalogue.environments(namespace) if found != environment.id]
    newest: dict[str, float] = {}
    for found in others[:_MOST_COMPARED]:
        try:
            repository = catalogue.repository(namespace, found)
            parts = repository.described_parts()
            if parts is not None and _is_sibling(parts, environment.parts):
                usable = repository.look().usable.values()
                newest[found] = max((info.modified_s for info in usable), default=0.0)
        except StoreError as error:
            logger.info("the environment %s is not compared: %s", found, error)
    return sorted(newest, key=lambda found: -newest[found])[:_MOST_READ]


def _is_sibling(parts: Mapping[str, str], own: Mapping[str, str]) -> bool:
    return parts.keys() == own.keys() and {name for name in own if parts[name] != own[name]} <= _MAY_DIFFER


def _without_host_code(pack: Pack, recalled: frozenset[str]) -> Pack:
    units = tuple(unit for unit in pack.index.units if unit.origin not in recalled and not depends_on_host(unit))
    return replace(pack, index=replace(pack.index, units=units))
