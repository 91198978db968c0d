"""A store whose user dies, or is refused, at any of its calls."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from hypothesis import strategies as st

from b10_transfer.errors import StoreError
from b10_transfer.stores.base import ObjectInfo, ObjectReader, Store, StoreFacts

if TYPE_CHECKING:
    from b10_transfer.stores.base import Source

Death = tuple[int, str] | None
"""At which call of the store, counted from 0, an operation dies, and how; None if it lives."""
WAYS = ["before", "after", "error", "error after"]
DEATHS = st.one_of(st.none(), st.tuples(st.integers(0, 4), st.sampled_from(WAYS)))


class Killed(BaseException):
    """The process is dead: no handler of ours sees it."""


class MortalStore(Store):
    """Another store, whose user dies, or is refused, at the call that ``death`` says."""

    def __init__(self, below: Store, death: Death) -> None:
        self.location = below.location
        self._below = below
        self._death = death
        self.calls = 0
        self._dead = False

    def _call(self, function: Callable[[], Any]) -> Any:
        if self._dead:
            raise Killed
        number, self.calls = self.calls, self.calls + 1
        if self._death is None or self._death[0] != number:
            return function()
        how = self._death[1]
        if how in ("after", "error after"):
            function()
        if how.startswith("error"):
            raise StoreError("use", "the store", "Input/output error")
        self._dead = True
        raise Killed

    def folders(self, folder: str) -> list[str]:
        return self._call(lambda: self._below.folders(folder))  # type: ignore[no-any-return]

    def list(self, folder: str) -> list[ObjectInfo]:
        return self._call(lambda: self._below.list(folder))  # type: ignore[no-any-return]

    def list_each(self, folders: Sequence[str]) -> Sequence[Sequence[ObjectInfo]]:
        return self._call(lambda: self._below.list_each(folders))  # type: ignore[no-any-return]

    def facts(self) -> StoreFacts:
        return self._call(self._below.facts)  # type: ignore[no-any-return]

    def open(self, name: str) -> ObjectReader | None:
        return self._call(lambda: self._below.open(name))  # type: ignore[no-any-return]

    def create(self, name: str, source: Source) -> bool:
        return self._call(lambda: self._below.create(name, source))  # type: ignore[no-any-return]

    def delete(self, name: str) -> bool:
        return self._call(lambda: self._below.delete(name))  # type: ignore[no-any-return]

    def now(self) -> float:
        return self._call(self._below.now)  # type: ignore[no-any-return]

    def remove_abandoned(self, older_than_s: float) -> int:
        return self._call(lambda: self._below.remove_abandoned(older_than_s))  # type: ignore[no-any-return]
