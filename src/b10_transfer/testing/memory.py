"""A store in the memory of this process."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from ..errors import StoreError
from ..stores.base import ObjectInfo, ObjectReader, Store, StoreFacts, is_name

if TYPE_CHECKING:
    from ..stores.base import Source


class MemoryStore(Store):
    """A store in the memory of this process, for tests and simulations.

    Args:
        clock: Returns the time on the store's clock, in seconds. Default: ``time.time``.

    Example:
        >>> import io
        >>> from b10_transfer.testing import MemoryStore
        >>> store = MemoryStore()
        >>> store.create("folder/object", io.BytesIO(b"content"))
        True
        >>> [info.name for info in store.list("folder")]
        ['folder/object']
    """

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self.location = "memory"
        self._clock = clock
        self._objects: dict[str, tuple[bytes, float]] = {}
        self._lock = threading.Lock()

    def folders(self, folder: str) -> list[str]:
        prefix = _checked(folder) + "/"
        with self._lock:
            below = [name[len(prefix) :] for name in self._objects if name.startswith(prefix)]
        return sorted({prefix + name.partition("/")[0] for name in below if "/" in name})

    def list(self, folder: str) -> list[ObjectInfo]:
        prefix = _checked(folder) + "/"
        with self._lock:
            return [
                ObjectInfo(name, len(data), modified)
                for name, (data, modified) in sorted(self._objects.items())
                if name.startswith(prefix) and "/" not in name[len(prefix) :]
            ]

    def facts(self) -> StoreFacts:
        return StoreFacts(exists=True)

    def open(self, name: str) -> ObjectReader | None:
        with self._lock:
            found = self._objects.get(_checked(name))
        return None if found is None else _BytesReader(name, found[0])

    def create(self, name: str, source: Source) -> bool:
        data = bytes(source.read())
        with self._lock:
            if _checked(name) in self._objects:
                return False
            self._objects[name] = (data, self._clock())
            return True

    def delete(self, name: str) -> bool:
        with self._lock:
            return self._objects.pop(_checked(name), None) is not None

    def now(self) -> float:
        return self._clock()

    def remove_abandoned(self, older_than_s: float) -> int:
        return 0


def _checked(name: str) -> str:
    if not is_name(name):
        raise StoreError("use", f"the object name {name!r}", "it is not a relative name of plain characters")
    return name


class _BytesReader(ObjectReader):
    waits = False

    def __init__(self, name: str, data: bytes) -> None:
        self._name = name
        self._data = data
        self.size_bytes = len(data)

    def read_at(self, offset: int, length: int) -> bytes:
        data = self._data[offset : offset + length]
        if len(data) != length:
            raise StoreError("read", self._name, f"it ends at byte {offset + len(data)}, before {offset + length}")
        return data

    def close(self) -> None:
        pass
