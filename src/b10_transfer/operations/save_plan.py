"""Decides what a save publishes. The save acts on the plan; ``info`` and ``doctor`` show it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from ..adapters import CacheRoot, named
from ..config import Config
from ..errors import count
from ..local import snapshot
from ..local.files import LocalUnit
from ..local.snapshot import Snapshot
from ..repository.repository import Content
from ..repository.union import Union
from ..status import OperationStatus

READ_ONLY = "B10_READ_ONLY=1: this pod publishes nothing"


@dataclass(frozen=True)
class SavePlan:
    """A save's decision. SUCCESS: it publishes ``units``; SKIPPED: it publishes nothing."""

    status: OperationStatus
    reason: str
    units: Sequence[LocalUnit] = ()
    """Units to publish."""
    recalled: int = 0
    """Units that are not published because an operator recalled them."""
    read_only: bool = False
    """Whether this pod can publish nothing."""


class Stored(NamedTuple):
    """What a store holds for this pod, as far as a save depends on it."""

    union: Union
    read_recalled: Callable[[], Mapping[str, set[Content]]]
    """Reads what the recalled packs hold, by unit."""
    read_results: Callable[[str], bytes | None]
    """Reads the results that the packs hold of a unit."""
    reason_read_only: Callable[[], str]
    """Finds out why nothing can be written there; empty if that is not known."""
    siblings: Union | None = None
    """What a load restores instead if ``union`` is empty; None if it is not, or if such loads are off."""


def plan(config: Config, roots: Sequence[CacheRoot], found: Snapshot, read_store: Callable[[], Stored]) -> SavePlan:
    """Decide what a save publishes. Changes nothing.

    Args:
        config: The settings.
        roots: The caches of this pod.
        found: What they hold.
        read_store: Reads the store. Called only if there is something to save.

    Raises:
        CacheError: The save would fail with this error.
    """
    if planned := plan_without_store(config, roots, found):
        return planned
    union, read_recalled, read_results, reason_read_only, _siblings = read_store()
    stored = {name: unit for name, (_pack, unit) in union.units.items()}
    lacking = [
        *snapshot.lacking(found.units, stored, union.settled()),
        *snapshot.with_new_results(found.units, stored, read_results),
    ]
    # A pod that restored what was recalled later must not publish it again.
    recalled = read_recalled() if lacking else {}
    new = [unit for unit in lacking if unit.name not in recalled or snapshot.content(unit) not in recalled[unit.name]]
    withheld, total = len(lacking) - len(new), len(found.units)
    if new and (refusal := reason_read_only()):
        return SavePlan(OperationStatus.SKIPPED, store_is_read_only(config, refusal), (), withheld, read_only=True)
    if new:
        return SavePlan(OperationStatus.SUCCESS, "would publish", new, withheld)
    found_all = "the unit is" if total == 1 else f"all {total} units are"
    reason = f"nothing new: {found_all} in the store"
    if withheld:
        were = "was" if withheld == 1 else "were"
        reason = f"nothing new: {total - withheld} of {count(total, 'unit')} in the store, {withheld} {were} recalled"
    return SavePlan(OperationStatus.SKIPPED, reason, (), withheld)


def plan_without_store(config: Config, roots: Sequence[CacheRoot], found: Snapshot) -> SavePlan | None:
    """The decision if it does not depend on the store."""
    if config.read_only:
        return SavePlan(OperationStatus.SKIPPED, READ_ONLY, read_only=True)
    if snapshot.hold_artifacts(found.units):
        return None
    for error in found.failed.values():
        raise error
    return SavePlan(OperationStatus.SKIPPED, _nothing_found(roots))


def store_is_read_only(config: Config, why: str) -> str:
    """Say why nothing is published to a store that this pod can only read."""
    return f"nothing was saved: this pod cannot write to {config.store} ({why}). It can still load"


def _nothing_found(roots: Sequence[CacheRoot]) -> str:
    """Why there is nothing to save. Of the roots, most belong to compilers that are not in use here."""
    if not roots:
        return "B10_CACHES leaves no cache that can be used where it is"
    if there := [root for root in roots if root.path.exists()]:
        return f"there are no finished compile artifacts in {named(there)}"
    if len(roots) <= 3:
        return f"there is no {named(roots)}"
    return f"none of the {len({root.path for root in roots})} directories exists that compilers keep their caches in"
