"""Where packs live. ``base`` is the contract; every other module here is one store that keeps it."""

from __future__ import annotations

from .base import ObjectInfo, ObjectReader, ReadStore, Store
from .directory import DirectoryStore
from .memory import MemoryStore

__all__ = ["DirectoryStore", "MemoryStore", "ObjectInfo", "ObjectReader", "ReadStore", "Store"]
