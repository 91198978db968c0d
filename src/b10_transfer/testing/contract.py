"""The checks that every store must pass, as a class to inherit from."""

from __future__ import annotations

import errno
import io
import threading
import time
from collections.abc import Callable

import pytest

from ..errors import StoreError
from ..stores.base import Store
from .place import StorePlace
from .readers import ReaderContract
from .steps import REFUSED_NAMES, Unreliable, content, create, names


class StoreContract(ReaderContract):
    """The checks that every store must pass. Inherit from it in a class named ``Test…``, and define ``place``.
    docs/extending.md shows a complete example.
    """

    clock_step_s: float = 0.05
    """Seconds after which the store's clock shows a later time. Default: 0.05."""

    @pytest.fixture
    def place(self) -> StorePlace:
        """An empty place. A subclass must define this fixture."""
        raise NotImplementedError("define the fixture `place`: it returns a StorePlace")

    @pytest.fixture
    def store(self, place: StorePlace) -> Store:
        """A store in the place."""
        return place.open()

    @pytest.fixture
    def same_store(self, place: StorePlace) -> Store:
        """The same store, as another client opens it."""
        return place.open()

    # One object.

    @pytest.mark.parametrize("data", [b"", b"x", bytes(range(256)) * 40_000], ids=["empty", "one byte", "10 MB"])
    def test_created_object_reads_back_whole(self, store: Store, place: StorePlace, data: bytes) -> None:
        assert create(store, "v1/a/object", data)
        assert content(store, "v1/a/object") == data
        assert place.read("v1/a/object") == data

    def test_create_publishes_what_its_source_holds_from_its_position_on(self, store: Store) -> None:
        source = io.BytesIO(b"skipped, published")
        source.seek(9)
        store.create("a/object", source)
        assert content(store, "a/object") == b"published"

    def test_create_never_replaces(self, store: Store, place: StorePlace) -> None:
        assert create(store, "a/object", b"first")
        assert not create(store, "a/object", b"second")
        assert place.read("a/object") == b"first"

    def test_delete_makes_room_for_another_object_of_the_same_name(self, store: Store, place: StorePlace) -> None:
        create(store, "a/object", b"first")
        assert store.delete("a/object")
        assert place.read("a/object") is None
        assert content(store, "a/object") is None
        assert create(store, "a/object", b"second")
        assert content(store, "a/object") == b"second"

    def test_open_of_a_missing_object_returns_none(self, store: Store) -> None:
        assert store.open("a/object") is None
        create(store, "a/object")
        assert store.open("a/other") is None
        assert store.open("b/object") is None

    def test_delete_of_a_missing_object_returns_false(self, store: Store) -> None:
        assert not store.delete("a/object")
        create(store, "a/object")
        store.delete("a/object")
        assert not store.delete("a/object")

    @pytest.mark.parametrize("name", REFUSED_NAMES, ids=repr)
    def test_names_outside_the_rule_are_refused(self, store: Store, name: str) -> None:
        attempts: list[Callable[[], object]] = [
            lambda: create(store, name),
            lambda: store.open(name),
            lambda: store.delete(name),
            lambda: store.list(name),
            lambda: store.folders(name),
        ]
        for attempt in attempts:
            with pytest.raises(StoreError) as raised:
                attempt()
            assert repr(name) in str(raised.value)

    @pytest.mark.parametrize(
        "error", [ValueError("changed"), OSError(errno.EIO, "no luck"), KeyboardInterrupt()], ids=repr
    )
    def test_nothing_is_created_from_a_source_that_fails_midway(
        self, store: Store, place: StorePlace, error: BaseException
    ) -> None:
        with pytest.raises((type(error), StoreError)):
            store.create("a/object", Unreliable(b"half", error))
        assert place.read("a/object") is None
        assert store.list("a") == []
        assert store.open("a/object") is None
        assert create(store, "a/object", b"whole")
        assert content(store, "a/object") == b"whole"

    # Listings.

    def test_list_of_a_missing_folder_is_empty(self, store: Store) -> None:
        assert store.list("a") == []
        create(store, "a/object")
        assert store.list("b") == []

    def test_list_is_sorted_by_name(self, store: Store) -> None:
        for name in ("a/c", "a/B", "a/a.10", "a/a.9", "a/.hidden", "a/0"):
            create(store, name)
        assert names(store, "a") == ["a/.hidden", "a/0", "a/B", "a/a.10", "a/a.9", "a/c"]

    def test_list_shows_only_what_is_directly_below_the_folder(self, store: Store) -> None:
        for name in ("a/b/object", "a/b/deeper/object", "a/bb/object", "a/object"):
            create(store, name)
        assert names(store, "a/b") == ["a/b/object"]

    def test_list_each_is_the_list_of_each_folder(self, store: Store) -> None:
        for name in ("v1/a/x/2", "v1/a/x/1", "v1/a/x/deeper/3", "v1/a/y/4", "v1/a/z/5", "v1/a/6"):
            create(store, name)
        folders = ["v1/a/y", "v1/a/x", "v1/a/none"]
        listed = [
            [(info.name, info.size_bytes, info.modified_s) for info in found] for found in store.list_each(folders)
        ]
        assert listed == [
            [(info.name, info.size_bytes, info.modified_s) for info in store.list(folder)] for folder in folders
        ]
        assert [len(found) for found in listed] == [1, 2, 0]

    def test_list_shows_sizes(self, store: Store) -> None:
        create(store, "a/empty", b"")
        create(store, "a/three", b"123")
        assert [info.size_bytes for info in store.list("a")] == [0, 3]

    def test_folders_are_those_with_objects_at_any_depth_below_them(self, store: Store, same_store: Store) -> None:
        for name in ("v1/two/deep/deeper/object", "v1/one/object", "v1/object", "v2/other/object"):
            create(store, name)
        assert same_store.folders("v1") == ["v1/one", "v1/two"]
        assert same_store.folders("v1/two") == ["v1/two/deep"]
        assert same_store.folders("v1/one") == []

    def test_store_without_objects_has_no_folders(self, store: Store) -> None:
        assert store.folders("v1") == []

    def test_objects_that_will_be_opened_soon_may_be_announced(self, store: Store) -> None:
        for number in range(20):
            create(store, f"a/{number}", b"%d" % number)
        store.expect([f"a/{number}" for number in range(20)] + ["a/none"])
        assert [content(store, f"a/{number}") for number in range(20)] == [b"%d" % number for number in range(20)]
        assert content(store, "a/none") is None

    # Other clients of the same place.

    def test_object_of_another_client_is_listed_and_read(self, store: Store, place: StorePlace) -> None:
        place.write("v1/a/object", b"by another client")
        assert [(info.name, info.size_bytes) for info in store.list("v1/a")] == [("v1/a/object", 17)]
        assert store.folders("v1") == ["v1/a"]
        assert content(store, "v1/a/object") == b"by another client"

    def test_object_of_another_client_is_not_replaced(self, store: Store, place: StorePlace) -> None:
        place.write("a/object", b"first")
        assert not create(store, "a/object", b"second")
        assert place.read("a/object") == b"first"

    def test_object_that_another_client_deleted_is_missing(self, store: Store, place: StorePlace) -> None:
        create(store, "a/object", b"first")
        assert content(store, "a/object") == b"first"
        place.delete("a/object")
        assert store.open("a/object") is None
        assert store.list("a") == []
        assert not store.delete("a/object")
        assert create(store, "a/object", b"second")
        assert place.read("a/object") == b"second"

    def test_object_appears_only_when_its_creation_ends(
        self, store: Store, same_store: Store, place: StorePlace
    ) -> None:
        seen: list[object] = []

        class Watching(io.BytesIO):
            def read(self, size: int | None = -1, /) -> bytes:
                seen.extend([*names(same_store, "a"), place.read("a/object"), same_store.open("a/object")])
                return super().read(size)

        store.create("a/object", Watching(b"content"))
        assert seen
        assert not any(seen)
        assert names(store, "a") == ["a/object"]
        assert place.read("a/object") == b"content"

    def test_what_one_client_creates_another_sees_at_once(self, store: Store, same_store: Store) -> None:
        assert same_store.open("a/object") is None
        create(store, "a/object")
        assert names(same_store, "a") == ["a/object"]
        assert content(same_store, "a/object") == b"content"
        assert not create(same_store, "a/object")
        assert same_store.delete("a/object")
        assert store.open("a/object") is None

    def test_one_of_sixteen_racing_creators_wins(self, store: Store) -> None:
        everyone_is_ready = threading.Barrier(16)
        winners: list[int] = []
        errors: list[BaseException] = []

        def race(number: int) -> None:
            everyone_is_ready.wait()
            try:
                if create(store, "a/prize", bytes([number]) * 100_000):
                    winners.append(number)
            except BaseException as error:  # noqa: BLE001 - shown by the assertion below
                errors.append(error)

        threads = [threading.Thread(target=race, args=(number,)) for number in range(16)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not errors
        assert len(winners) == 1
        assert content(store, "a/prize") == bytes([winners[0]]) * 100_000

    def test_creators_of_different_names_do_not_hinder_each_other(self, store: Store, same_store: Store) -> None:
        taken: list[bool] = []

        class Interrupting(io.BytesIO):
            """Another creator comes and goes while this one reads its source."""

            def read(self, size: int | None = -1, /) -> bytes:
                if not taken:
                    taken.append(create(same_store, "b/object", b"other"))
                return super().read(size)

        assert store.create("a/object", Interrupting(b"content"))
        assert taken == [True]
        assert content(store, "b/object") == b"other"

    # The place itself.

    def test_new_object_is_as_young_as_the_stores_clock_says(self, store: Store) -> None:
        before = store.now()
        create(store, "a/object")
        after = store.now()
        [info] = store.list("a")
        # File systems stamp files with the time of the last timer tick, some milliseconds ago.
        assert before - 0.1 <= info.modified_s <= after + 0.1

    def test_clock_of_the_store_advances(self, store: Store) -> None:
        first = store.now()
        time.sleep(self.clock_step_s)
        assert store.now() > first

    def test_object_is_never_removed_as_abandoned(self, store: Store, place: StorePlace) -> None:
        create(store, "a/object")
        place.write("a/other", b"by another client")
        assert store.remove_abandoned(-1000) == 0
        assert content(store, "a/object") == b"content"
        assert place.read("a/other") == b"by another client"

    def test_store_is_usable_after_an_error(self, store: Store) -> None:
        create(store, "a/object")
        for _ in range(3):
            with pytest.raises(StoreError):
                store.open("../object")
            with pytest.raises(StoreError):
                create(store, "../object", bytes(5_000_000))
            with pytest.raises(ValueError, match="changed"):
                store.create("a/other", Unreliable(b"half", ValueError("changed")))
            assert content(store, "a/object") == b"content"

    def test_store_names_its_location(self, store: Store) -> None:
        assert store.location

    def test_store_that_holds_an_object_exists(self, store: Store) -> None:
        create(store, "a/object")
        facts = store.facts()
        assert facts.exists
        assert facts.free_bytes is None or facts.free_bytes > 0
