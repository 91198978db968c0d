"""One save: find finished units, choose those the store lacks, pack and publish them.

:func:`.save_plan.plan` decides what is published. The save acts on it.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Collection, Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import replace
from functools import partial

from ..adapters import locate_caches
from ..concurrency.deadline import Deadline
from ..config import Config
from ..environment import command_line, identify
from ..errors import CacheError, CorruptPackError, DeadlineExceededError, ReadOnlyStoreError, count
from ..local import snapshot
from ..local.files import LocalUnit
from ..local.left_out import planned_without
from ..pack import Limits
from ..repository import compaction
from ..repository.ignored import few, lines_about
from ..repository.layout import SHARED_LEASES
from ..repository.order import published_ms
from ..repository.repository import Repository
from ..repository.results import CollectedResults
from ..repository.signing import signing_key, trusted_keys
from ..repository.union import Rejected, Union
from ..status import OperationStatus, SaveReport
from ..stores import leases
from ..stores.base import Store
from ..stores.opening import check_shared, opened
from .key_facts import facts_of
from .publishing import Publisher
from .save_plan import READ_ONLY, SavePlan, Stored, plan, plan_without_store, store_is_read_only

logger = logging.getLogger(__name__)

_MOST_MARKS = 100
"""The most damaged packs that one save marks: each costs a request. Later saves mark the others."""


def save(
    config: Config,
    deadline: Deadline,
    on_published: Callable[[str], None] = lambda _pack_id: None,
    restored_later: Collection[str] = (),
) -> SaveReport:
    """Publish what the store lacks. Raises CacheError.

    Args:
        config: The settings.
        deadline: When to give up.
        on_published: Given the id of each pack once it is published, whatever happens to the save later.
        restored_later: Names of units that this pod may have compiled although they are sound in the store.
    """
    if config.read_only:
        return SaveReport(
            status=OperationStatus.SKIPPED,
            reason=READ_ONLY,
            namespace=config.namespace,
            store=str(config.store),
            read_only=True,
        )
    deadline.check("looking at the local caches")
    check_shared(config)
    # The store first: its worker process starts while this one looks around.
    with _open_store(config, deadline) as store:
        environment = identify()
        caches = locate_caches(config)
        roots = caches.roots
        found = snapshot.take(roots, deadline, caches.refused)
        planned = planned_without(found.failed, lambda: plan_without_store(config, roots, found))
        report = SaveReport(
            status=OperationStatus.SKIPPED,
            reason="",
            namespace=config.namespace,
            environment_id=environment.id,
            store=str(config.store),
            left_for_next_save=found.incomplete,
        )
        if planned is not None:
            return replace(report, reason=planned.reason)
        limits = Limits.of(config)
        repository = Repository(
            store, config.namespace, environment, limits, deadline, trusted_keys(config), signing_key(config)
        )
        saver = _Saver(config, deadline, store, repository, partial(plan, config, roots, found), report, restored_later)
        try:
            report = saver.save(found.units, on_published)
        except ReadOnlyStoreError as error:
            if saver.has_published:
                raise
            return replace(report, reason=store_is_read_only(config, error.detail), read_only=True)
        except CacheError:
            # Now above all: what dead savers left may be what fills the store.
            _clean_up(store, config, logging.DEBUG)
            raise
        _clean_up(store, config, logging.WARNING)
        if report.status is OperationStatus.SUCCESS:
            saver.compact()
        return report


def _clean_up(store: Store, config: Config, log_level: int) -> None:
    try:
        store.remove_abandoned(config.incomplete_timeout_s)
    except ReadOnlyStoreError as error:
        logger.debug("%s; this pod cleans nothing up", error)
    except CacheError as error:  # what was published is published
        logger.log(log_level, "%s; what other savers left behind stays until the next save", error)


class _Saver:
    """A save with units to publish."""

    def __init__(
        self,
        config: Config,
        deadline: Deadline,
        store: Store,
        repository: Repository,
        plan: Callable[[Callable[[], Stored]], SavePlan],
        report: SaveReport,
        restored_later: Collection[str] = (),
    ) -> None:
        self._config = config
        self._deadline = deadline
        self._store = store
        self._repository = repository
        self._plan = plan
        self._report = report
        self._restored_later = restored_later
        self._union = Union((), ())
        """The union at the last reading of the store."""
        self.has_published = False
        """Whether a pack was published."""

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
        """Merge packs if they are many. A failure does not affect the packs that were published."""
        deadline = Deadline("compacting", self._deadline.remaining_s / 2)
        try:
            if compaction.is_due(self._store, self._repository, self._union, self._config):
                compaction.compact(self._config, self._repository.environment, deadline)
        except Exception as error:
            unforeseen = error if not isinstance(error, CacheError) else None
            logger.warning("the packs stay as they are until the next save: %s", error, exc_info=unforeseen)

    def _survey(self, local: Sequence[LocalUnit]) -> tuple[Union, SavePlan]:
        """Read the union, without packs that this pod finds damaged, and plan the save."""
        union = self._union = self._without_damaged(self._repository.union(), local)
        planned = self._plan(
            lambda: Stored(
                union,
                lambda: self._repository.recalled_content(union),
                CollectedResults(self._repository, union).of,
                lambda: self._store.facts().read_only,
            )
        )
        if planned.recalled:
            logger.warning("not published, because recalled from the store: %s", count(planned.recalled, "unit"))
        return union, planned

    def _without_damaged(self, union: Union, local: Sequence[LocalUnit]) -> Union:
        """Read every byte of the packs that may be damaged, and leave out those that are.

        This takes at most half of the time that is left. Later saves check the other packs.
        """
        doubtful = union.suspect | _compiled_anew(union, local, self._restored_later)
        repository = self._repository.with_deadline(Deadline("checking packs", self._deadline.remaining_s / 2))
        for pack in [pack for pack in union.packs if pack.id in doubtful]:
            try:
                checked = repository.checked(pack)
            except DeadlineExceededError:
                logger.info("no time to read every byte of %s that may be damaged", count(len(doubtful), "pack"))
                break
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

        def note(pack_id: str) -> None:
            self.has_published = True
            on_published(pack_id)

        caches = {unit.root.name: unit.root for unit in new}
        facts = facts_of(caches.values(), self._repository.environment, self._config.reader) | command_line.recorded()
        publisher = Publisher(self._repository, self._config.work_dir, self._deadline, transferring, note, facts)
        done = publisher.publish(new)
        report = replace(
            self._report,
            left_for_next_save=self._report.left_for_next_save + done.left_out.changed + len(done.left_out.unfit),
            packs=tuple(done.packs),
            pack=done.packs[-1] if done.packs else "",
            units=done.units,
            files=done.files,
            bytes=done.bytes,
            packed_bytes=done.packed_bytes,
        )
        if done.packs:
            self._repository.record_use([self._report.environment_id], union)
            report = replace(report, status=OperationStatus.SUCCESS, reason=published_as(done.packs))
        if too_large := done.left_out.too_large:
            others = f" (and {len(too_large) - 1} more)" if len(too_large) > 1 else ""
            reason = f"{too_large[0]}{others}" + (f"; the rest was {report.reason}" if done.packs else "")
            # Damaged packs stay in place: the union may not hold again what they held.
            return replace(report, status=OperationStatus.ERROR, reason=reason, error=too_large[0])
        if not done.packs:
            unfit = done.left_out.unfit
            return replace(report, reason=unfit[0] if unfit else "all new units were still being written")
        return replace(report, quarantined_packs=self._quarantine(union))

    def _nothing_new(self, union: Union, planned: SavePlan) -> SaveReport:
        if planned.read_only:
            return replace(self._report, reason=planned.reason, read_only=True)
        return replace(self._report, reason=planned.reason, quarantined_packs=self._quarantine(union))

    def _quarantine(self, union: Union) -> tuple[str, ...]:
        """Mark damaged packs, after their units were published again as far as this pod has them."""
        damaged = [pack for pack in union.rejected if isinstance(pack.error, CorruptPackError)]
        done: list[Rejected] = []
        try:
            for pack in damaged[-_MOST_MARKS:]:
                self._deadline.check("setting damaged packs aside")
                self._repository.quarantine(pack)
                done.append(pack)
                if pack.id in union.suspect:
                    self._repository.clear(pack.id)
        except ReadOnlyStoreError as error:
            logger.debug("%s; damaged packs are not set aside", error)
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
    """The reason of a save that has published packs."""
    return f"published as pack {packs[0]}" if len(packs) == 1 else f"published as {len(packs)} packs: {few(packs)}"


def _compiled_anew(union: Union, local: Iterable[LocalUnit], expected: Collection[str]) -> set[str]:
    """Ids of the packs whose units this pod compiled although they were there: the load may have found damage.

    Only a reason to look: a pod that loaded nothing, or whose clock is wrong, makes a save read a sound pack.
    """
    found = set()
    for unit in local:
        stored = union.units.get(unit.name) if unit.name not in expected else None
        if stored and snapshot.compiled_since(unit, stored[1], published_ms(stored[0].id) / 1000):
            found.add(stored[0].id)
    return found


def _open_store(config: Config, deadline: Deadline) -> AbstractContextManager[Store]:
    return opened(config, deadline)
