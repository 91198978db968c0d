"""Opens the configured store."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager

from ..concurrency.deadline import Deadline
from ..config import BucketUrl, Config, PluginUrl
from .base import Store
from .locality import is_local
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


def _opened(config: Config, deadline: Deadline) -> AbstractContextManager[Store]:
    if isinstance(config.store, BucketUrl):
        return bucket_store(config.store, deadline=deadline)
    if isinstance(config.store, PluginUrl):
        return plugin_store(config.store, deadline=deadline)
    return directory_store(config.store, make_parents=config.store_parents_may_be_made, deadline=deadline)
