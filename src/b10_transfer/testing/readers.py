"""The checks of the readers that a store opens."""

from __future__ import annotations

import os
from contextlib import ExitStack

import pytest

from ..errors import StoreError
from ..stores.base import Store
from .steps import content, create, opened


class ReaderContract:
    """The checks of a store's readers, part of :class:`StoreContract`."""

    @pytest.mark.parametrize(("offset", "length"), [(0, 0), (0, 10), (3, 4), (9, 1), (10, 0)])
    def test_read_at_returns_exactly_the_requested_bytes(self, store: Store, offset: int, length: int) -> None:
        create(store, "a/object", b"0123456789")
        with opened(store, "a/object") as reader:
            assert reader.read_at(offset, length) == b"0123456789"[offset : offset + length]
            assert reader.reread_at(offset, length) == b"0123456789"[offset : offset + length]
            assert b"".join(reader.views_at(offset, length)) == b"0123456789"[offset : offset + length]

    @pytest.mark.parametrize(("offset", "length"), [(0, 11), (9, 2), (10, 1), (100, 1)])
    def test_read_at_past_the_end_is_an_error(self, store: Store, offset: int, length: int) -> None:
        create(store, "a/object", b"0123456789")
        with opened(store, "a/object") as reader, pytest.raises(StoreError):
            reader.read_at(offset, length)

    def test_borrowed_bytes_are_the_bytes_that_are_read(self, store: Store) -> None:
        data = os.urandom(9_000_000)
        create(store, "a/object", data)
        with opened(store, "a/object") as reader:
            for _ in range(6):  # more often than there may be room for at once, and one larger than any room
                for start, length in ((0, 2_000_000), (1_999_999, 3), (1_000_000, 4_000_000), (0, 9_000_000), (5, 0)):
                    with reader.borrow_at(start, length) as lent, reader.borrow_at(start, length) as again:
                        assert bytes(lent) == bytes(again) == data[start : start + length]

    def test_borrowed_bytes_do_not_change_until_they_are_returned(self, store: Store) -> None:
        data = os.urandom(3_000_000)
        create(store, "a/object", data)
        with opened(store, "a/object") as reader, ExitStack() as loans:
            lent = [loans.enter_context(reader.borrow_at(start, 100_000)) for start in range(0, 2_900_000, 100_000)]
            assert b"".join(lent) == data[:2_900_000]

    def test_open_reader_knows_the_size(self, store: Store) -> None:
        create(store, "a/object", b"12345")
        with opened(store, "a/object") as reader:
            assert reader.size_bytes == 5

    def test_reader_may_be_closed_twice(self, store: Store) -> None:
        create(store, "a/object")
        reader = opened(store, "a/object")
        reader.close()
        reader.close()
        assert content(store, "a/object") == b"content"

    def test_several_readers_are_open_at_once(self, store: Store) -> None:
        for name in ("a/one", "a/two"):
            create(store, name, name.encode())
        with opened(store, "a/one") as one, opened(store, "a/two") as two:
            assert (one.read_at(0, 5), two.read_at(0, 5)) == (b"a/one", b"a/two")
