"""Opens the configured store."""

from __future__ import annotations

from contextlib import AbstractContextManager

from ..config import BucketUrl, Config
from ..deadline import Deadline
from .base import Store
from .worker import bucket_store, directory_store


def opened(config: Config, deadline: Deadline) -> AbstractContextManager[Store]:
    """The store that a configuration names, whatever it is. Nothing it does outlasts the deadline."""
    if isinstance(config.store, BucketUrl):
        return bucket_store(config.store, deadline=deadline)
    return directory_store(config.store, make_parents=config.store_parents_may_be_made, deadline=deadline)
