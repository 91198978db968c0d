"""One load: look at the local caches, read what the store holds, put in place what is missing."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from contextlib import ExitStack, nullcontext
from dataclasses import replace

from . import snapshot
from .adapters import CacheRoot, cache_roots, named
from .config import Config
from .deadline import Deadline
from .environment import detect
from .errors import LocalCacheError, UnreadablePackError, UnsupportedPackError
from .pack import Limits
from .repository import ReadRepository, Union
from .restore import missing, restore
from .signing import trusted_keys
from .staging import locked, wait_for_restore
from .status import LoadReport, OperationStatus
from .stores.worker import directory_store

logger = logging.getLogger(__name__)


def load(config: Config, deadline: Deadline) -> LoadReport:
    """Restore what the store holds for this environment. Raises CacheError."""
    deadline.check("looking at the local caches")
    # The store first: its worker process starts while this one looks around.
    with directory_store(config.store, make_parents=config.store_parents_may_be_made, deadline=deadline) as store:
        trusted = trusted_keys(config)
        environment = detect()
        roots = cache_roots(config)
        report = LoadReport(
            status=OperationStatus.SKIPPED,
            reason="",
            namespace=config.namespace,
            environment_id=environment.id,
            store=str(config.store),
        )
        if config.locks:
            for path in sorted({root.outermost for root in roots}):
                wait_for_restore(path, deadline)
        open_roots, used_roots = _sort(roots, config)
        if not roots:
            return replace(report, reason="B10_CACHES leaves no cache")
        if not open_roots:
            return replace(report, reason=_in_use(used_roots))
        limits = Limits.for_packs_of(config.max_pack_bytes)
        repository = ReadRepository(store, config.namespace, environment, limits, deadline, trusted)
        return _restore(repository, open_roots, used_roots, config, deadline, report)


def _restore(
    repository: ReadRepository,
    open_roots: list[CacheRoot],
    used_roots: list[CacheRoot],
    config: Config,
    deadline: Deadline,
    report: LoadReport,
) -> LoadReport:
    union = repository.union()
    stored_roots = {name.partition("/")[0] for name in union.units}
    open_roots = [root for root in open_roots if root.name in stored_roots]
    used_roots = [root for root in used_roots if root.name in stored_roots]
    with ExitStack() as locks:
        # In one order everywhere, so that two processes never wait for each other.
        for path in sorted({root.outermost for root in open_roots}):
            locks.enter_context(locked(path, deadline) if config.locks else nullcontext())
        # Another rank may have restored, or a compiler begun, while this one waited.
        open_roots, used_meanwhile = _sort(open_roots, config)
        names = missing(union.units, open_roots)
        restored = restore(repository, union, names, open_roots, deadline)
    report = replace(
        report,
        rejected_packs=_rejections(restored.union),
        already_present=len(restored.union.units) - restored.units,
        restored=tuple(restored.names),
        units=restored.units,
        files=restored.files,
        bytes=restored.bytes,
        packed_bytes=restored.packed_bytes,
        packs=tuple(sorted(restored.packs)),
    )
    if restored.units:
        return replace(report, status=OperationStatus.SUCCESS, reason=f"restored to {named(open_roots)}")
    if restored.union.units:
        used_roots += used_meanwhile
        reason = _in_use(used_roots) if used_roots else "all that the store holds is already in place"
        return replace(report, reason=reason)
    return _nothing_usable(report, restored.union)


def _sort(roots: Sequence[CacheRoot], config: Config) -> tuple[list[CacheRoot], list[CacheRoot]]:
    """The roots that a load may add to, which are those without artifacts, or all of them when merging; and the others.

    Raises LocalCacheError if there is none of the former because they cannot be read.
    """
    found: list[CacheRoot] = []
    used: list[CacheRoot] = []
    failures: list[LocalCacheError] = []
    for root in roots:
        try:
            (found if config.merge or not snapshot.has_artifacts(root) else used).append(root)
        except LocalCacheError as error:
            failures.append(error)
    snapshot.say_left_out(failures)
    if failures and not found:
        raise failures[0]
    return found, used


def _in_use(roots: Sequence[CacheRoot]) -> str:
    return f"{named(roots)} already {'holds' if len(roots) == 1 else 'hold'} compile artifacts"


def _nothing_usable(report: LoadReport, union: Union) -> LoadReport:
    """A store that holds nothing is one thing, a store that does not deliver what it holds an error."""
    for pack in union.rejected:
        if isinstance(pack.error, UnreadablePackError):
            raise pack.error
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
