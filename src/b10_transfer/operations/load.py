"""One load: look at the local caches, read what the store holds, put in place what is missing."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass, replace

from ..adapters import CacheRoot, cache_roots, named
from ..concurrency.deadline import Deadline
from ..config import Config
from ..environment import detect
from ..errors import LocalCacheError, UnreadablePackError, UnsupportedPackError
from ..local import snapshot
from ..local.ownership import check_private
from ..local.presence import missing
from ..local.restore import restore
from ..local.staging import locked, remove_leftovers, wait_for_restore
from ..pack import Limits
from ..repository.repository import ReadRepository
from ..repository.signing import trusted_keys
from ..repository.union import Union
from ..status import LoadReport, OperationStatus
from ..stores.opening import opened

logger = logging.getLogger(__name__)


def load(config: Config, deadline: Deadline) -> LoadReport:
    """Restore what the store holds for this environment. Raises CacheError."""
    deadline.check("looking at the local caches")
    # The store first: its worker process starts while this one looks around.
    with opened(config, deadline) as store:
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
        sorted_roots = _sort(roots, config)
        for path in sorted({root.outermost for root in sorted_roots.used}):
            remove_leftovers(path)  # here nothing will be staged, which would do it
        if not roots:
            return replace(report, reason="B10_CACHES leaves no cache")
        if not sorted_roots.open:
            return replace(report, reason=_in_use(sorted_roots.used))
        limits = Limits.for_packs_of(config.max_pack_bytes)
        repository = ReadRepository(store, config.namespace, environment, limits, deadline, trusted)
        return _restore(repository, sorted_roots, config, deadline, report)


@dataclass
class _Roots:
    """Cache roots, by what a load may do with them."""

    open: list[CacheRoot]
    """Those it may add to: without artifacts, or any when merging."""
    used: list[CacheRoot]
    """Those that hold artifacts already."""
    failed: dict[str, LocalCacheError]
    """Why others cannot be used, by name."""

    def __post_init__(self) -> None:
        """What only goes along with artifacts waits for some."""
        if all(root.adapter.accompanies for root in self.open):
            self.open = []

    def only(self, names: set[str]) -> _Roots:
        """Those of some names."""
        return _Roots(
            [root for root in self.open if root.name in names],
            [root for root in self.used if root.name in names],
            {name: error for name, error in self.failed.items() if name in names},
        )


def _restore(
    repository: ReadRepository,
    roots: _Roots,
    config: Config,
    deadline: Deadline,
    report: LoadReport,
) -> LoadReport:
    union = repository.union()
    roots = roots.only({name.partition("/")[0] for name in union.units})
    with ExitStack() as locks:
        # In one order everywhere, so that two processes never wait for each other.
        for path in sorted({root.outermost for root in roots.open}):
            locks.enter_context(locked(path, deadline) if config.locks else nullcontext())
        # Another rank may have restored, or a compiler begun, while this one waited.
        still = _sort(roots.open, config)
        names = missing(union.units, still.open)
        restored = restore(repository, union, names, still.open, deadline)
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
        return replace(report, status=OperationStatus.SUCCESS, reason=f"restored to {named(still.open)}")
    if restored.union.units:
        for error in roots.failed.values():  # there was something for it
            raise error
        used = [*roots.used, *still.used]
        return replace(report, reason=_in_use(used) if used else "all that the store holds is already in place")
    return _nothing_usable(report, restored.union)


def _sort(roots: Sequence[CacheRoot], config: Config) -> _Roots:
    """Which roots a load may add to. Raises LocalCacheError if there are none because they cannot be used."""
    open_roots: list[CacheRoot] = []
    used: list[CacheRoot] = []
    failed: dict[str, LocalCacheError] = {}
    for root in roots:
        try:
            check_private(root)
            (open_roots if config.merge or not snapshot.has_artifacts(root) else used).append(root)
        except LocalCacheError as error:
            failed[root.name] = error
    found = _Roots(open_roots, used, failed)
    failures = list(failed.values())
    snapshot.say_left_out(failures)
    if failures and not found.open:
        raise failures[0]
    return found


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
