"""The public operations, and the edge: the one place where errors become an OperationStatus.

Nothing but KeyboardInterrupt and SystemExit leaves :func:`load` and :func:`save`. A cache must never be the reason
that a model does not start.
"""

from __future__ import annotations

import hashlib
import logging
import os
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO, TypeVar

from . import leases, snapshot
from . import restore as restoring
from .adapters import CacheRoot, cache_roots
from .config import Config, read_deadline
from .deadline import Deadline, run_within
from .environment import detect
from .errors import (
    CacheError,
    CorruptPackError,
    LocalCacheError,
    StoreError,
    UnreadablePackError,
    UnsupportedPackError,
)
from .pack import Limits, PackUnit, PackWriter
from .repository import LAYOUT, ReadRepository, Repository, Union
from .snapshot import LocalUnit
from .staging import locked
from .status import LoadReport, OperationStatus, Report, SaveReport
from .stores import DirectoryStore, Store

logger = logging.getLogger(__name__)

R = TypeVar("R", bound=Report)
StorePath = str | os.PathLike[str]


def load_compile_cache(
    *,
    namespace: str | None = None,
    store: StorePath | None = None,
    merge: bool | None = None,
    deadline_s: float | None = None,
) -> OperationStatus:
    """Put saved compile artifacts in place. Call it before the model compiles.

    Each argument overrides an environment variable (docs/configuration.md): ``namespace`` B10_NAMESPACE, ``store``
    B10_STORE, ``merge`` B10_MERGE, ``deadline_s`` (seconds) B10_DEADLINE_SECONDS.

    Returns SUCCESS: artifacts are in place. SKIPPED: the pod already has compile artifacts (with ``merge``: all that
    the store holds). DOES_NOT_EXIST: the store has nothing usable for this environment. ERROR: anything else; the log
    says what and what to do, and the model compiles as if there were no cache. Never raises.
    """
    return load(namespace=namespace, store=store, merge=merge, deadline_s=deadline_s).status


def save_compile_cache(
    *, namespace: str | None = None, store: StorePath | None = None, deadline_s: float | None = None
) -> OperationStatus:
    """Publish compile artifacts that the store does not hold yet. Call it when the model has compiled.

    Arguments as for :func:`load_compile_cache`. Returns SUCCESS: new artifacts were published. SKIPPED: the store
    already holds all there is, or nothing was compiled. ERROR: anything else; nothing was published. Never raises.
    """
    return save(namespace=namespace, store=store, deadline_s=deadline_s).status


def load(
    *,
    namespace: str | None = None,
    store: StorePath | None = None,
    merge: bool | None = None,
    deadline_s: float | None = None,
) -> LoadReport:
    """:func:`load_compile_cache` for a program that wants to know more: what was restored, from where, and why not."""

    def operate(deadline: Deadline) -> LoadReport:
        return _load(Config.from_environment(namespace=namespace, store=store, merge=merge), deadline)

    return _at_the_edge("load", deadline_s, operate, LoadReport)


def save(
    *, namespace: str | None = None, store: StorePath | None = None, deadline_s: float | None = None
) -> SaveReport:
    """:func:`save_compile_cache` for a program that wants to know more: what was published, and why nothing was."""

    def operate(deadline: Deadline) -> SaveReport:
        return _save(Config.from_environment(namespace=namespace, store=store), deadline)

    return _at_the_edge("save", deadline_s, operate, SaveReport)


def _at_the_edge(operation: str, deadline_s: float | None, operate: Callable[[Deadline], R], report_type: type[R]) -> R:
    """Run an operation within its deadline, and report whatever comes of it."""
    started = time.perf_counter()
    try:
        deadline = Deadline(operation, read_deadline(deadline_s))
        report = run_within(deadline, lambda: operate(deadline))
    except Exception as error:  # noqa: BLE001 - this is the edge
        report = report_type(status=OperationStatus.ERROR, reason=str(error) or type(error).__name__, error=error)
    report = replace(report, seconds=time.perf_counter() - started)
    _log(operation, report)
    return report


def _load(config: Config, deadline: Deadline) -> LoadReport:
    deadline.check("looking at the local caches")
    environment = detect()
    roots = cache_roots(config)
    report = LoadReport(
        status=OperationStatus.SKIPPED,
        reason="",
        namespace=config.namespace,
        environment_id=environment.id,
        store=str(config.store),
    )
    open_roots = _open_roots(roots, config)
    if not open_roots:
        return replace(report, reason=f"{_paths(roots)} already hold compile artifacts")
    store = DirectoryStore(config.store, make_parents=config.store_parents_may_be_made)
    repository = ReadRepository(
        store, config.namespace, environment, Limits.for_packs_of(config.max_pack_bytes), deadline
    )
    union = repository.union()
    stored_roots = {name.partition("/")[0] for name in union.units()}
    open_roots = [root for root in open_roots if root.name in stored_roots]
    if not stored_roots:
        return _nothing_usable(report, union)
    with ExitStack() as locks:
        # In one order everywhere, so that two processes never wait for each other.
        for root in sorted(open_roots, key=lambda root: root.path):
            locks.enter_context(locked(root.path, deadline) if config.locks else nullcontext())
        # Another rank may have restored, or a compiler begun, while this one waited.
        open_roots = _open_roots(open_roots, config)
        names = restoring.missing(union.units(), open_roots)
        restored = restoring.restore(repository, union, names, open_roots, deadline)
    report = replace(
        report,
        rejected_packs=_rejections(restored.union),
        already_present=len(restored.union.units()) - restored.units,
        units=restored.units,
        files=restored.files,
        bytes=restored.bytes,
        packed_bytes=restored.packed_bytes,
        packs=tuple(sorted(restored.packs)),
    )
    if restored.units:
        return replace(report, status=OperationStatus.SUCCESS, reason=f"restored to {_paths(open_roots)}")
    if not restored.union.units():
        return _nothing_usable(report, restored.union)
    return replace(report, reason=f"all that the store holds is already in {_paths(roots)}")


def _open_roots(roots: Sequence[CacheRoot], config: Config) -> list[CacheRoot]:
    """The roots that a load may add to: those without artifacts, or all of them when merging."""
    return [root for root in roots if config.merge or not snapshot.has_artifacts(root)]


def _nothing_usable(report: LoadReport, union: Union) -> LoadReport:
    report = replace(report, rejected_packs=_rejections(union))
    unreadable = [pack.error for pack in union.rejected if isinstance(pack.error, UnreadablePackError)]
    if unreadable:
        raise unreadable[0]
    found = f"{len(union.rejected)} unusable packs" if union.rejected else "nothing"
    return replace(
        report,
        status=OperationStatus.DOES_NOT_EXIST,
        reason=f"{report.store} has {found} for environment {report.environment_id}, namespace {report.namespace!r}",
    )


def _rejections(union: Union) -> tuple[str, ...]:
    """Say loudly, once, which packs count as absent."""
    for pack in union.rejected:
        if isinstance(pack.error, UnsupportedPackError):
            logger.info("%s; it is left alone", pack.error)
        else:
            logger.error("%s. It counts as absent; the next save replaces what it held", pack.error)
    return tuple(str(pack.error) for pack in union.rejected)


def _save(config: Config, deadline: Deadline) -> SaveReport:
    deadline.check("looking at the local caches")
    environment = detect()
    roots = cache_roots(config)
    found = snapshot.take(roots, deadline)
    report = SaveReport(
        status=OperationStatus.SKIPPED,
        reason="",
        namespace=config.namespace,
        environment_id=environment.id,
        store=str(config.store),
        left_for_next_save=found.incomplete,
    )
    if not found.units:
        return replace(report, reason=f"there are no finished compile artifacts in {_paths(roots)}")
    store = DirectoryStore(config.store, make_parents=config.store_parents_may_be_made)
    repository = Repository(store, config.namespace, environment, Limits.for_packs_of(config.max_pack_bytes), deadline)
    saver = _Saver(config, deadline, store, repository, found.units, report)
    report = saver.save()
    try:
        store.remove_abandoned(config.incomplete_timeout_s)
    except StoreError as error:
        logger.warning("%s; what other savers left behind stays until the next save", error)
    return report


class _Saver:
    """One save, once it is known that there is something to save."""

    def __init__(
        self,
        config: Config,
        deadline: Deadline,
        store: Store,
        repository: Repository,
        units: Sequence[LocalUnit],
        report: SaveReport,
    ) -> None:
        self._config = config
        self._deadline = deadline
        self._store = store
        self._repository = repository
        self._units = units
        self._report = report

    def save(self) -> SaveReport:
        union, new = self._survey()
        if not new:
            return self._nothing_new(union)
        # Replicas that compiled the same hold the same lease: one publishes, and the others find it done.
        names = hashlib.sha256("\n".join(sorted(unit.name for unit in new)).encode()).hexdigest()[:16]
        with self._lease(self._repository.lease_folder, [f"save-{names}"], "another replica saves the same") as waited:
            if waited:
                union, new = self._survey()
                if not new:
                    return self._nothing_new(union)
            return self._publish(union, new)

    def _survey(self) -> tuple[Union, list[LocalUnit]]:
        """What the store holds, every byte of it verified, and which local units it lacks."""
        union = self._repository.union(verify_frames=True)
        stored = {name: unit for name, (_pack, unit) in union.units().items()}
        return union, snapshot.lacking(self._units, stored)

    def _publish(self, union: Union, new: list[LocalUnit]) -> SaveReport:
        with _spool(self._config.work_dir) as spool:
            changed, packed = self._pack(new, spool)
            report = replace(self._report, left_for_next_save=self._report.left_for_next_save + changed)
            if not packed:
                return replace(report, reason="all new units were still being written")
            slots = [f"slot-{number:02d}" for number in range(self._config.max_concurrent_saves)]
            with self._lease(f"{LAYOUT}/.leases", slots, "MAX_CONCURRENT_SAVES others save"):
                pack_id = self._repository.publish(spool)
            return replace(
                report,
                status=OperationStatus.SUCCESS,
                reason=f"published as pack {pack_id}",
                pack=pack_id,
                units=len(packed),
                files=sum(len(unit.members) for unit in packed),
                bytes=sum(unit.size for unit in packed),
                packed_bytes=spool.tell(),
                quarantined_packs=self._quarantine(union),
            )

    def _pack(self, new: list[LocalUnit], spool: BinaryIO) -> tuple[int, Sequence[PackUnit]]:
        try:
            with PackWriter(spool, self._repository.limits, self._deadline) as writer:
                changed = snapshot.pack(new, writer)
                if writer.units:
                    writer.finish(self._config.namespace, self._repository.environment)
                return changed, writer.units
        except OSError as error:
            raise LocalCacheError(
                "build the pack in LOCAL_WORK_DIR,", str(self._config.work_dir), error.strerror or str(error)
            ) from error

    def _nothing_new(self, union: Union) -> SaveReport:
        return replace(
            self._report,
            reason=f"the store already holds all {len(self._units)} units",
            quarantined_packs=self._quarantine(union),
        )

    def _quarantine(self, union: Union) -> tuple[str, ...]:
        """Set damaged packs aside, now that the union holds again what this machine can give of what they held."""
        damaged = [pack for pack in union.rejected if isinstance(pack.error, CorruptPackError)]
        for pack in damaged:
            try:
                self._repository.quarantine(pack)
                logger.warning("%s. It has been set aside", pack.error)
            except StoreError as error:
                logger.warning("%s; later loads will complain about the damaged pack again", error)
        return tuple(pack.id for pack in damaged)

    def _lease(self, folder: str, names: list[str], waiting_for: str) -> AbstractContextManager[bool]:
        if not self._config.locks:
            return nullcontext(False)
        return leases.held(
            self._store,
            folder,
            names,
            self._config.lock_timeout_s,
            self._deadline,
            f"waiting while {waiting_for}",
        )


@contextmanager
def _spool(work_dir: Path) -> Iterator[BinaryIO]:
    """An unnamed file in the local working directory; gone with its descriptor, whatever happens."""
    with ExitStack() as cleanup:
        try:
            work_dir.mkdir(parents=True, exist_ok=True)
            file = cleanup.enter_context(tempfile.TemporaryFile(dir=work_dir, prefix="b10-transfer-"))
        except OSError as error:
            raise LocalCacheError("use LOCAL_WORK_DIR,", str(work_dir), error.strerror or str(error)) from error
        yield file


def _paths(roots: Iterable[CacheRoot]) -> str:
    return " and ".join(str(root.path) for root in roots)


def _log(operation: str, report: Report) -> None:
    """One line for each operation."""
    if report.status is OperationStatus.ERROR:
        # A traceback only for what nobody foresaw: our own errors say all there is to say.
        unforeseen = report.error if not isinstance(report.error, CacheError) else None
        logger.error("%s failed after %.2f s: %s", operation, report.seconds, report.reason, exc_info=unforeseen)
        return
    amount = ""
    if report.units:
        rate = report.bytes / 1e6 / max(report.seconds, 1e-9)
        amount = f", {report.units} units, {report.files} files, {report.bytes / 1e6:.1f} MB at {rate:.0f} MB/s"
    logger.info("%s: %s in %.2f s%s (%s)", operation, report.status.name, report.seconds, amount, report.reason)
