"""Opens the configured store."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from ..concurrency.deadline import Deadline
from ..config import BucketUrl, Config, PluginUrl
from ..errors import StoreError
from ..notices import notices
from .base import Store
from .locality import is_local, is_on_root_file_system
from .tiered import TieredStore
from .worker.client import bucket_store, directory_store, plugin_store

logger = logging.getLogger(__name__)


@contextmanager
def opened(config: Config, deadline: Deadline) -> Iterator[Store]:
    """The store that a configuration names, through the node's cache if there is one.

    Nothing it does outlasts the deadline.
    """
    with _opened(config, deadline) as store:
        if config.node_cache is None:
            yield store
        elif is_local(str(config.node_cache)):
            yield TieredStore(store, config.node_cache, deadline, config.incomplete_timeout_s)
        else:
            logger.warning("B10_NODE_CACHE=%s is not used: it is not on a local file system", config.node_cache)
            yield store


def why_not_shared(config: Config) -> str:
    """Say that no other pod can see the store, because no volume is mounted there.

    Returns:
        What to say; empty if other pods can see the store, if that is unknown, or if no volume is expected there.
    """
    if not isinstance(config.store, Path) or not (config.expects_mount or config.require_mount):
        return ""
    if not is_on_root_file_system(str(config.store)):
        return ""
    return (
        f"{config.store} is on this container's own disk, where no other pod can see it: no volume is mounted there. "
        "Mount the shared volume, or set B10_STORE to a directory on one"
    )


def check_shared(config: Config) -> None:
    """Warn, once in a process, if no other pod can see the store.

    Raises:
        StoreError: The same, if ``B10_REQUIRE_MOUNT`` is set.
    """
    if why := why_not_shared(config):
        if config.require_mount:
            raise StoreError("use", str(config.store), f"B10_REQUIRE_MOUNT=1, and {why}")
        notices.log(logger, logging.WARNING, why)


def _opened(config: Config, deadline: Deadline) -> AbstractContextManager[Store]:
    if isinstance(config.store, BucketUrl):
        return bucket_store(config.store, deadline=deadline)
    if isinstance(config.store, PluginUrl):
        return plugin_store(config.store, deadline=deadline)
    return directory_store(config.store, make_parents=config.store_parents_may_be_made, deadline=deadline)
