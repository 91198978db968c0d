"""Removes artifacts from this pod's caches, or packs from the store, and nothing else."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection
from dataclasses import dataclass

from ..adapters import CacheRoot, locate_caches
from ..concurrency.deadline import Deadline
from ..config import Config
from ..environment import detect
from ..errors import CacheError, ConfigurationError, LocalCacheError
from ..inspection.bounded import Observer, bounded, open_store
from ..local.files import RootScan
from ..local.ownership import OpenRoot, open_private
from ..local.staging import LOCKS_SHARE, wait_for_restore
from ..pack import Limits
from ..repository.catalogue import Catalogue, KnownById
from ..repository.repository import Repository
from .write_access import require_write_access


@dataclass(frozen=True)
class ClearedCache:
    """The artifacts that were removed from one cache of this pod."""

    name: str
    path: str
    files: int = 0
    bytes: int = 0
    errors: tuple[str, ...] = ()
    """One message for each file or folder that could not be removed, or one why nothing was."""


@dataclass(frozen=True)
class ClearedEnvironment:
    """The packs that were removed, or would be, from one environment."""

    namespace: str
    id: str
    this_pod: bool
    packs: int
    packed_bytes: int
    pack_ids: tuple[str, ...] = ()


def clear_caches(
    caches: Collection[str] = (), *, deadline_s: float | None = None, observe: Observer | None = None
) -> tuple[ClearedCache, ...]:
    """Remove the artifacts of this pod's caches.

    It removes regular files that an adapter recognises, and folders that are then empty. It follows no link. The root
    stays.

    Args:
        caches: Names of caches. Default: all that B10_CACHES selects.
        deadline_s: Overrides ``B10_DEADLINE_SECONDS``.
        observe: Receives the deadline when the work begins.

    Returns:
        One entry for each cache, with the errors of files that could not be removed.

    Raises:
        ConfigurationError: No selected cache has one of the names, or a setting is wrong.
        DeadlineExceededError: The time is up.
    """

    def work(deadline: Deadline) -> tuple[ClearedCache, ...]:
        config = Config.from_environment()
        located = locate_caches(config)
        known = [*(root.name for root in located.roots), *located.refused]
        if unknown := sorted(set(caches) - set(known)):
            raise ConfigurationError("cache", ", ".join(unknown), f"the caches of this pod are {', '.join(known)}")
        cleared = [_clear(root, config, deadline) for root in located.roots if not caches or root.name in caches]
        refused = [
            ClearedCache(name, error.value, errors=(_not_cleared(name, error),))
            for name, error in located.refused.items()
            if not caches or name in caches
        ]
        return (*cleared, *refused)

    return bounded("clear", work, deadline_s=deadline_s, observe=observe)


def _clear(root: CacheRoot, config: Config, deadline: Deadline) -> ClearedCache:
    deadline.check(f"clearing {root.path}")
    if config.locks:
        wait = Deadline("clear", deadline.remaining_s * LOCKS_SHARE)
        wait_for_restore(root.outermost, wait, may_be_shared=config.shared_roots)
    sweep = Sweep()
    try:
        if (opened := open_private(root, to_restore=True)) is not None:
            sweep.clear(opened, deadline)
            sweep.errors += map(str, opened.left_out)
    except LocalCacheError as error:
        sweep.errors.append(_not_cleared(root.name, error))
    return ClearedCache(root.name, str(root.path), sweep.files, sweep.bytes, tuple(sweep.errors))


def _not_cleared(name: str, error: CacheError) -> str:
    return f"the cache {name} was not cleared: {error}"


class Sweep:
    """Removes the units of one root by descriptors of its folders, so that no link can redirect it."""

    def __init__(self) -> None:
        self.files = 0
        self.bytes = 0
        self.errors: list[str] = []

    def clear(self, opened: OpenRoot, deadline: Deadline) -> None:
        """Remove the artifacts of a root, complete or not, and folders that are then empty."""
        emptied: set[str] = set()
        scan = RootScan(opened)
        for _unit, files in scan.units():
            deadline.check()
            for file in files:
                folder, _, name = file.path.rpartition("/")
                if self._attempt(opened, folder, name, os.unlink):
                    self.files, self.bytes = self.files + 1, self.bytes + file.size
                    emptied.add(folder)
        self.errors += scan.wholeness.messages if scan.wholeness is not None else ()
        while emptied:
            folder = max(emptied, key=lambda path: path.count("/"))
            emptied.remove(folder)
            above, _, name = folder.rpartition("/")
            # A folder that is not empty stays: it may hold a lock or another cache.
            if folder and self._attempt(opened, above, name, os.rmdir, is_required=False) and above:
                emptied.add(above)

    def _attempt(
        self, opened: OpenRoot, folder: str, name: str, remove: Callable[..., None], *, is_required: bool = True
    ) -> bool:
        try:
            descriptor = opened.open_folder(folder)
            try:
                remove(name, dir_fd=descriptor)
            finally:
                os.close(descriptor)
        except FileNotFoundError:  # another process removed it
            return False
        except OSError as error:
            if is_required:
                path = f"{opened.root.path}/{folder}/{name}".replace("//", "/")
                advice = (
                    "; clear the cache as the owner of its folder, or as root"
                    if isinstance(error, PermissionError)
                    else ""
                )
                self.errors.append(f"could not remove {path}: {error.strerror}{advice}")
            return False
        return True


def clear_store(
    *,
    namespace: str | None = None,
    store: str | os.PathLike[str] | None = None,
    all_environments: bool = False,
    only: Collection[str] | None = None,
    pretend: bool = False,
    deadline_s: float | None = None,
    observe: Observer | None = None,
) -> tuple[ClearedEnvironment, ...]:
    """Remove packs from one namespace of the store.

    Leases and folders stay, because a save may be about to use them. After an error a second call removes the rest.

    Args:
        namespace: Overrides ``B10_NAMESPACE``.
        store: Overrides ``B10_STORE``.
        all_environments: Whether to remove the packs of all environments. Default: only of this pod's.
        only: Ids of packs; others are not removed. Packs may be published after the operator confirmed a list.
        pretend: Whether to remove nothing.
        deadline_s: Overrides ``B10_DEADLINE_SECONDS``.
        observe: Receives the deadline when the work begins.

    Returns:
        The packs that were removed, or would be.

    Raises:
        CacheError: A setting is wrong, the store failed, or the time is up.
    """

    def work(deadline: Deadline) -> tuple[ClearedEnvironment, ...]:
        config = Config.from_environment(namespace=namespace, store=store)
        if not pretend:
            require_write_access(config)
        limits = Limits.of(config)
        pod = detect()
        cleared = []
        with open_store(config, deadline) as opened:
            ids = [pod.id]
            if all_environments:
                ids = Catalogue(opened, config, deadline).environments(config.namespace)
            for environment_id in ids:
                environment = KnownById({}, known_id=environment_id)
                repository = Repository(opened, config.namespace, environment, limits, deadline)
                everything = repository.look(with_use=True)
                listed = everything if only is None else everything.only(only)
                packs = listed.packs.values()
                if not packs and not listed.set_aside:
                    continue
                size = sum(info.size_bytes for info in packs)
                if not pretend:
                    repository.remove(listed, description=listed.packs.keys() == everything.packs.keys())
                is_pod = environment_id == pod.id
                cleared.append(
                    ClearedEnvironment(
                        config.namespace, environment_id, is_pod, len(packs), size, tuple(sorted(listed.packs))
                    )
                )
        return tuple(cleared)

    return bounded("clear", work, deadline_s=deadline_s, observe=observe)
