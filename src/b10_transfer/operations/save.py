"""One save: find finished units, choose those the store lacks, pack and publish them.

:func:`plan` decides what is published. The save acts on it, ``info`` and ``doctor`` show it.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import NamedTuple

from ..adapters import CacheRoot, locate_caches, named
from ..concurrency.deadline import Deadline
from ..config import Config
from ..environment import identify
from ..errors import CacheError, CorruptPackError
from ..local import snapshot
from ..local.files import LocalUnit
from ..local.snapshot import Snapshot
from ..pack import Limits
from ..repository import compaction
from ..repository.ignored import few, lines_about
from ..repository.layout import SHARED_LEASES
from ..repository.order import published_ms
from ..repository.repository import Content, Repository
from ..repository.results import collected_results
from ..repository.signing import signing_key, trusted_keys
from ..repository.union import Rejected, Union
from ..status import OperationStatus, SaveReport
from ..stores import leases
from ..stores.base import Store
from ..stores.opening import opened
from .publishing import Publisher

logger = logging.getLogger(__name__)

_MOST_MARKS = 100
"""Damaged packs that one save sets aside: each costs a request. Later saves go on."""
_READ_ONLY = "B10_READ_ONLY=1: this pod publishes nothing"


def save(config: Config, deadline: Deadline, on_published: Callable[[str], None] = lambda _pack_id: None) -> SaveReport:
    """Publish what the store lacks. Raises CacheError.

    Args:
        config: The settings.
        deadline: When to give up.
        on_published: Given the id of each pack once it is published, whatever happens to the save later.
    """
    if config.read_only:
        return SaveReport(
            status=OperationStatus.SKIPPED,
            reason=_READ_ONLY,
            namespace=config.namespace,
            store=str(config.store),
        )
    deadline.check("looking at the local caches")
    # The store first: its worker process starts while this one looks around.
    with _open_store(config, deadline) as store:
        environment = identify()
        caches = locate_caches(config)
        roots = caches.roots
        found = snapshot.take(roots, deadline, caches.refused)
        snapshot.log_left_out(found.failed)
        report = SaveReport(
            status=OperationStatus.SKIPPED,
            reason="",
            namespace=config.namespace,
            environment_id=environment.id,
            store=str(config.store),
            left_for_next_save=found.incomplete,
        )
        if planned := _plan_without_store(config, roots, found):
            return replace(report, reason=planned.reason)
        limits = Limits.of(config)
        repository = Repository(
            store, config.namespace, environment, limits, deadline, trusted_keys(config), signing_key(config)
        )
        try:
            saver = _Saver(config, deadline, store, repository, partial(plan, config, roots, found), report)
            report = saver.save(found.units, on_published)
        except CacheError:
            # Now above all: what dead savers left may be what fills the store.
            _clean_up(store, config, logging.DEBUG)
            raise
        _clean_up(store, config, logging.WARNING)
        if report.status is OperationStatus.SUCCESS:
            saver.compact()
        return report


@dataclass(frozen=True)
class SavePlan:
    """A save's decision. SUCCESS: it publishes ``units``; SKIPPED: it publishes nothing."""

    status: OperationStatus
    reason: str
    units: Sequence[LocalUnit] = ()
    """Units to publish."""
    recalled: int = 0
    """Units that are not published because an operator recalled them."""


class Stored(NamedTuple):
    """What a store holds for this pod, as far as a save depends on it."""

    union: Union
    read_recalled: Callable[[], Mapping[str, set[Content]]]
    """Reads what the recalled packs hold, by unit."""
    read_results: Callable[[str], bytes | None]
    """Reads the results that the packs hold of a unit."""


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
    if planned := _plan_without_store(config, roots, found):
        return planned
    union, read_recalled, read_results = read_store()
    stored = {name: unit for name, (_pack, unit) in union.units.items()}
    lacking = [
        *snapshot.lacking(found.units, stored, union.settled()),
        *snapshot.with_new_results(found.units, stored, read_results),
    ]
    # A pod that restored what was recalled later must not publish it again.
    recalled = read_recalled() if lacking else {}
    new = [unit for unit in lacking if unit.name not in recalled or snapshot.content(unit) not in recalled[unit.name]]
    withheld, total = len(lacking) - len(new), len(found.units)
    if new:
        return SavePlan(OperationStatus.SUCCESS, "would publish", new, withheld)
    reason = f"nothing new: all {total} units are in the store"
    if withheld:
        reason = f"nothing new: {total - withheld} of {total} units are in the store, {withheld} were recalled"
    return SavePlan(OperationStatus.SKIPPED, reason, (), withheld)


def _plan_without_store(config: Config, roots: Sequence[CacheRoot], found: Snapshot) -> SavePlan | None:
    """The decision if it does not depend on the store."""
    if config.read_only:
        return SavePlan(OperationStatus.SKIPPED, _READ_ONLY)
    if snapshot.hold_artifacts(found.units):
        return None
    for error in found.failed.values():
        raise error
    return SavePlan(OperationStatus.SKIPPED, _nothing_found(roots))


def _clean_up(store: Store, config: Config, log_level: int) -> None:
    try:
        store.remove_abandoned(config.incomplete_timeout_s)
    except CacheError as error:  # what was published is published
        logger.log(log_level, "%s; what other savers left behind stays until the next save", error)


def _nothing_found(roots: Sequence[CacheRoot]) -> str:
    """Why there is nothing to save. Of the roots, most belong to compilers that are not in use here."""
    if not roots:
        return "B10_CACHES leaves no cache"
    if there := [root for root in roots if root.path.exists()]:
        return f"there are no finished compile artifacts in {named(there)}"
    if len(roots) <= 3:
        return f"there is no {named(roots)}"
    return f"none of the {len(roots)} directories exists that compilers keep their caches in"


class _Saver:
    """One save, once it is known that there is something to save."""

    def __init__(
        self,
        config: Config,
        deadline: Deadline,
        store: Store,
        repository: Repository,
        plan: Callable[[Callable[[], Stored]], SavePlan],
        report: SaveReport,
    ) -> None:
        self._config = config
        self._deadline = deadline
        self._store = store
        self._repository = repository
        self._plan = plan
        self._report = report
        self._union = Union((), ())
        """What the store held when it was last looked at."""

    def save(self, local: Sequence[LocalUnit], on_published: Callable[[str], None]) -> SaveReport:
        union, planned = self._survey(local)
        if not planned.units:
            return self._nothing_new(union, planned)
        # Replicas that compiled the same hold the same lease: one publishes, and the others find it done.
        names = hashlib.sha256("\n".join(sorted(unit.name for unit in planned.units)).encode()).hexdigest()[:16]
        with self._lease(self._repository.lease_folder, [f"save-{names}"], "another replica saves the same"):
            if not self._repository.is_current(union):
                union, planned = self._survey(local)
                if not planned.units:
                    return self._nothing_new(union, planned)
            return self._publish(union, planned.units, on_published)

    def compact(self) -> None:
        """Merge packs, where they have become many. Whatever comes of it: what was published is published."""
        deadline = Deadline("compacting", self._deadline.remaining_s / 2)
        try:
            if compaction.is_due(self._store, self._repository, self._union, self._config):
                compaction.compact(self._config, self._repository.environment, deadline)
        except Exception as error:
            unforeseen = error if not isinstance(error, CacheError) else None
            logger.warning("the packs stay as they are until the next save: %s", error, exc_info=unforeseen)

    def _survey(self, local: Sequence[LocalUnit]) -> tuple[Union, SavePlan]:
        """What the store holds, without packs that are damaged as far as this pod can know, and what it lacks."""
        union = self._union = self._without_damaged(self._repository.union(), local)
        planned = self._plan(
            lambda: Stored(
                union,
                lambda: self._repository.recalled_content(union),
                lambda name: collected_results(self._repository, union, name),
            )
        )
        if planned.recalled:
            logger.warning("%d units are not published: they were recalled from the store", planned.recalled)
        return union, planned

    def _without_damaged(self, union: Union, local: Sequence[LocalUnit]) -> Union:
        """Read every byte of the packs that may be damaged, and leave out those that are."""
        doubtful = union.suspect | _compiled_anew(union, local)
        for pack in [pack for pack in union.packs if pack.id in doubtful]:
            checked = self._repository.checked(pack)
            if isinstance(checked, Rejected):
                union = union.without(pack, checked.error)
            elif pack.id in union.suspect:
                with suppress(CacheError):  # the next save checks it again
                    self._repository.clear(pack.id)
        return union

    def _publish(self, union: Union, new: Sequence[LocalUnit], on_published: Callable[[str], None]) -> SaveReport:
        slots = [f"slot-{number:02d}" for number in range(self._config.max_concurrent_saves)]

        def transferring() -> AbstractContextManager[None]:
            return self._lease(SHARED_LEASES, slots, "MAX_CONCURRENT_SAVES others save")

        publisher = Publisher(self._repository, self._config.work_dir, self._deadline, transferring, on_published)
        done = publisher.publish(new)
        report = replace(
            self._report,
            left_for_next_save=self._report.left_for_next_save + done.left_out.changed,
            packs=tuple(done.packs),
            pack=done.packs[-1] if done.packs else "",
            units=done.units,
            files=done.files,
            bytes=done.bytes,
            packed_bytes=done.packed_bytes,
        )
        if done.packs:
            report = replace(report, status=OperationStatus.SUCCESS, reason=published_as(done.packs))
        if too_large := done.left_out.too_large:
            others = f" (and {len(too_large) - 1} more)" if len(too_large) > 1 else ""
            reason = f"{too_large[0]}{others}" + (f"; the rest was {report.reason}" if done.packs else "")
            # Damaged packs stay in place: the union may not hold again what they held.
            return replace(report, status=OperationStatus.ERROR, reason=reason, error=too_large[0])
        if not done.packs:
            return replace(report, reason="all new units were still being written")
        return replace(report, quarantined_packs=self._quarantine(union))

    def _nothing_new(self, union: Union, planned: SavePlan) -> SaveReport:
        return replace(self._report, reason=planned.reason, quarantined_packs=self._quarantine(union))

    def _quarantine(self, union: Union) -> tuple[str, ...]:
        """Set damaged packs aside, now that the union holds again what this machine can give of what they held."""
        damaged = [pack for pack in union.rejected if isinstance(pack.error, CorruptPackError)]
        done: list[Rejected] = []
        try:
            for pack in damaged[-_MOST_MARKS:]:
                self._deadline.check("setting damaged packs aside")
                self._repository.quarantine(pack)
                done.append(pack)
                if pack.id in union.suspect:
                    self._repository.clear(pack.id)
        except CacheError as error:
            logger.warning("%s; later loads report the damaged packs again", error)
        for line in lines_about(done, 0):
            logger.warning("%s. Set aside: loads no longer read it", line)
        return tuple(pack.id for pack in done)

    def _lease(self, folder: str, names: list[str], waiting_for: str) -> AbstractContextManager[None]:
        if not self._config.locks:
            return nullcontext()
        return leases.held(
            self._store,
            folder,
            names,
            self._config.lock_timeout_s,
            self._deadline,
            f"waiting while {waiting_for}",
            # Renewed through a store of its own: this one may be busy with a pack for longer than a lease lives.
            renewing=lambda: _open_store(self._config, self._deadline),
        )


def published_as(packs: Sequence[str]) -> str:
    """Which packs a save has published, for people."""
    return f"published as pack {packs[0]}" if len(packs) == 1 else f"published as {len(packs)} packs: {few(packs)}"


def _compiled_anew(union: Union, local: Iterable[LocalUnit]) -> set[str]:
    """Ids of the packs whose units this pod compiled although they were there: its load may have found damage.

    Only a reason to look: a pod that loaded nothing, or whose clock is wrong, makes a save read a sound pack.
    """
    found = set()
    for unit in local:
        stored = union.units.get(unit.name)
        if stored and snapshot.compiled_since(unit, stored[1], published_ms(stored[0].id) / 1000):
            found.add(stored[0].id)
    return found


def _open_store(config: Config, deadline: Deadline) -> AbstractContextManager[Store]:
    return opened(config, deadline)
