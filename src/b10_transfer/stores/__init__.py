"""The stores that hold packs. ``base`` is the contract; every other module is a store that keeps it, or a wrapper.

Only ``base`` is imported here: the worker process starts with this package and must start fast.
"""

from __future__ import annotations

from .base import ObjectInfo, ObjectReader, Store, StoreFacts, is_name

__all__ = ["ObjectInfo", "ObjectReader", "Store", "StoreFacts", "is_name"]
