"""The place in which the contract tests open a store."""

from __future__ import annotations

from abc import ABC, abstractmethod

from ..stores.base import Store


class StorePlace(ABC):
    """An empty place for objects, for one test: a folder, a bucket, a table.

    A test opens stores in it, and reads and changes objects there without a store.
    """

    @abstractmethod
    def open(self) -> Store:
        """Open a store in this place, as another client would.

        Returns:
            A store. All stores that one place opens hold the same objects.
        """

    @abstractmethod
    def read(self, name: str) -> bytes | None:
        """Read an object without a store.

        Args:
            name: Name of the object.

        Returns:
            The content of the object; None if there is no such object.
        """

    @abstractmethod
    def write(self, name: str, data: bytes) -> None:
        """Put an object in place without a store, as another client of the same place would.

        Args:
            name: Name of the object. There is no such object yet.
            data: Content of the object.
        """

    @abstractmethod
    def delete(self, name: str) -> None:
        """Delete an object without a store.

        Args:
            name: Name of the object. It exists.
        """
