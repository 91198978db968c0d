"""The names in a store: the one owner of every folder, object and form of a name.

::

    v1/.leases/slot-00.00000001                              save slots
    v1/<namespace>/<environment>/environment.json            the parts of the key
    v1/<namespace>/<environment>/packs/<id>.tar.zst
    v1/<namespace>/<environment>/quarantine/<id>             the pack is damaged
    v1/<namespace>/<environment>/quarantine/<id>.pruned      the pack will be deleted
    v1/<namespace>/<environment>/quarantine/<id>.suspect     a load or ``verify`` found damage; the next save checks it
    v1/<namespace>/<environment>/recalled/<id>               an operator recalled the pack
    v1/<namespace>/<environment>/recalled/<id>.<key>.<…>     the same, signed
    v1/<namespace>/<environment>/used/<day>                  a load used the packs on this day, for example 20261130
    v1/<namespace>/<environment>/used/<day>.starts.<n>       units that warm starts used until this day
    v1/<namespace>/<environment>/leases/<name>.00000001
    v1/<namespace>/<environment>/groups/<digest>.00000001        the packs that a group of processes loads
    v1/<namespace>/<environment>/groups/<digest>.00000001.cold   one of them could not load these packs

Other names may appear there. They are ignored, and nothing of another form is ever deleted.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import NamedTuple

from ..config import is_namespace
from ..pack import PACK_ID
from ..stores.base import ObjectInfo

VERSION = "v1"
SHARED_LEASES = f"{VERSION}/.leases"
"""Leases that concern the whole store, and the probes of ``doctor``."""
DESCRIPTION = "environment.json"
PACKS, QUARANTINE, RECALLED, USED = "packs", "quarantine", "recalled", "used"
LEASES, GROUPS = "leases", "groups"
PRUNED = ".pruned"
"""The end of the name of a mark in ``quarantine`` for a pack that will be deleted."""
SUSPECT = ".suspect"
"""The end of the name of a mark in ``quarantine`` for a pack that the next save checks."""
_PACK_NAME = re.compile(rf"(?P<id>{PACK_ID.pattern})\.tar\.zst", re.ASCII)
_RECALL_NAME = re.compile(rf"(?P<id>{PACK_ID.pattern})(?:\.(?P<signature>[0-9a-f]{{16}}\.[0-9a-f]{{128}}))?", re.ASCII)
_DAY = re.compile(r"[0-9]{8}", re.ASCII)
_STARTS = re.compile(r"(?P<day>[0-9]{8})\.starts\.[0-3]", re.ASCII)
STARTS_A_DAY = 4
"""The most records of starts that an environment gets in a day."""
_ENVIRONMENT_ID = re.compile(r"[0-9a-f]{32}", re.ASCII)


class Place:
    """Names of the objects of one environment in one namespace."""

    __slots__ = ("folder",)

    def __init__(self, namespace: str, environment_id: str) -> None:
        self.folder = f"{VERSION}/{namespace}/{environment_id}"

    @property
    def description(self) -> str:
        return f"{self.folder}/{DESCRIPTION}"

    @property
    def leases(self) -> str:
        return f"{self.folder}/{LEASES}"

    @property
    def groups(self) -> str:
        return f"{self.folder}/{GROUPS}"

    @property
    def listed(self) -> list[str]:
        """The folders of marks and packs.

        Marks come first. A pack is created before its mark and deleted before it. So no listing in this order shows a
        marked pack without its mark, or the mark of a pack that exists without the pack.
        """
        return [f"{self.folder}/{name}" for name in (QUARANTINE, RECALLED, PACKS)]

    @property
    def records(self) -> str:
        """The folder of the records of use."""
        return f"{self.folder}/{USED}"

    def used(self, day: str) -> str:
        return f"{self.records}/{day}"

    def starts(self, day: str, number: int) -> str:
        """The name of a record of what starts used; ``number`` is less than :data:`STARTS_A_DAY`."""
        return f"{self.records}/{day}.starts.{number}"

    def pack(self, pack_id: str) -> str:
        return f"{self.folder}/{PACKS}/{pack_id}.tar.zst"

    def damaged(self, pack_id: str) -> str:
        return f"{self.folder}/{QUARANTINE}/{pack_id}"

    def pruned(self, pack_id: str) -> str:
        return f"{self.folder}/{QUARANTINE}/{pack_id}{PRUNED}"

    def suspected(self, pack_id: str) -> str:
        return f"{self.folder}/{QUARANTINE}/{pack_id}{SUSPECT}"

    def recalled(self, pack_id: str, signature: str = "") -> str:
        return f"{self.folder}/{RECALLED}/{pack_id}" + (f".{signature}" if signature else "")


class Recall(NamedTuple):
    """The mark of a recalled pack. Its signature is a part of its name, so that a listing is enough to check it."""

    info: ObjectInfo
    signature: str
    """Id of a key and its signature; empty if the mark is not signed."""


def last(name: str) -> str:
    """The last component of a name."""
    return name.rpartition("/")[2]


def is_environment_id(name: str) -> bool:
    """Whether a folder of a namespace is that of an environment."""
    return _ENVIRONMENT_ID.fullmatch(name) is not None


def is_carried(name: str) -> bool:
    """Whether an object goes into an export: a pack, or the description of an environment."""
    parts = name.split("/")
    if len(parts) < 4 or parts[0] != VERSION or not is_namespace(parts[1]) or not is_environment_id(parts[2]):
        return False
    return parts[3:] == [DESCRIPTION] or (
        len(parts) == 5 and parts[3] == PACKS and _PACK_NAME.fullmatch(parts[4]) is not None
    )


def packs_by_id(listed: Iterable[ObjectInfo]) -> dict[str, ObjectInfo]:
    """The packs in a listing of ``packs``, by id; objects of other names are left out."""
    found = ((_PACK_NAME.fullmatch(last(info.name)), info) for info in listed)
    return {match.group("id"): info for match, info in found if match}


def marks_by_id(listed: Iterable[ObjectInfo], ending: str = "") -> dict[str, ObjectInfo]:
    """The marks in a listing by the id of the pack: those that end with ``ending`` right behind the id."""
    found = {last(info.name): info for info in listed}
    return {
        name.removesuffix(ending): info
        for name, info in found.items()
        if name.endswith(ending) and PACK_ID.fullmatch(name.removesuffix(ending))
    }


def records_by_day(listed: Iterable[ObjectInfo]) -> dict[str, ObjectInfo]:
    """The records in a listing of ``used``, by day."""
    return {last(info.name): info for info in listed if _DAY.fullmatch(last(info.name))}


def starts_by_name(listed: Iterable[ObjectInfo]) -> dict[str, ObjectInfo]:
    """The records of what starts used in a listing of ``used``, by the last component of their names."""
    return {last(info.name): info for info in listed if _STARTS.fullmatch(last(info.name))}


def day_of_record(name: str) -> str:
    """The day of a record of use, by the last component of its name."""
    return name[:8]


def number_of_record(name: str) -> int:
    """The number within its day of a record of what starts used, by the last component of its name."""
    return int(name[-1])


def recalls_by_id(listed: Iterable[ObjectInfo]) -> dict[str, tuple[Recall, ...]]:
    """The marks in a listing of ``recalled``, by the id of the pack."""
    found: dict[str, tuple[Recall, ...]] = {}
    for info in listed:
        if match := _RECALL_NAME.fullmatch(last(info.name)):
            recall = Recall(info, match.group("signature") or "")
            found[match.group("id")] = (*found.get(match.group("id"), ()), recall)
    return found
