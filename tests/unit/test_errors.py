"""Every error says what happened to what, and carries its fields."""

from __future__ import annotations

import pytest

from b10_transfer import errors


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (
            errors.ConfigurationError("B10_MERGE", "yes", "it must be 0 or 1"),
            "B10_MERGE='yes' is not usable: it must be 0 or 1",
        ),
        (
            errors.StoreError("read", "/mnt/store/a", "Input/output error"),
            "could not read /mnt/store/a: Input/output error",
        ),
        (errors.CorruptPackError("0123", "it is truncated"), "pack 0123: it is truncated"),
        (errors.UnreadablePackError("0123", "it was deleted"), "pack 0123: it was deleted"),
        (errors.UnsupportedPackError("0123", "has format 2"), "pack 0123: has format 2"),
        (errors.PackTooLargeError("0123", "has 5 bytes"), "pack 0123: has 5 bytes"),
        (
            errors.SaveTooLargeError("unit triton/K", "2 files", "1 files", "B10_MAX_FILES"),
            "unit triton/K has 2 files, over the limit of 1 files, and was not published. "
            "Raise B10_MAX_FILES in every pod that saves or loads it",
        ),
        (
            errors.SaveTooLargeError("/c/file", "300 bytes", "256"),
            "/c/file has 300 bytes, over the limit of 256, and was not published",
        ),
        (
            errors.NoSpaceError("/tmp", 2_500_000, 1_000_000, "TRITON_CACHE_DIR"),
            "/tmp has 1.0 MB free and the restore needs 2.5 MB; "
            "free some space, or point TRITON_CACHE_DIR at a larger file system",
        ),
        (
            errors.NoSpaceError("/tmp", 1, 5, "", needed_files=3, free_files=2),
            "/tmp has room for 2 more files (inodes) and the restore creates 3; "
            "remove files, or use another file system",
        ),
        (errors.LocalCacheError("read", "/tmp/x", "Is a directory"), "could not read /tmp/x: Is a directory"),
        (
            errors.DeadlineExceededError("load", 60.0, "listing the packs in /mnt"),
            "load gave up after its deadline of 60 s while listing the packs in /mnt. If the store is "
            "healthy but slow, raise B10_DEADLINE_SECONDS; if it hangs, check the mount, or the network to the bucket",
        ),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else "",
)
def test_message_has_the_cause_and_advice(error: errors.CacheError, message: str) -> None:
    assert str(error) == message


def test_fields_are_there_for_programs() -> None:
    no_space = errors.NoSpaceError("/tmp", 2, 1)
    assert (no_space.path, no_space.needed_bytes, no_space.free_bytes) == ("/tmp", 2, 1)
    configuration = errors.ConfigurationError("B10_MERGE", "yes", "rule")
    assert (configuration.variable, configuration.value, configuration.rule) == ("B10_MERGE", "yes", "rule")
    store = errors.StoreError("read", "/mnt", "detail")
    assert (store.operation, store.target, store.detail) == ("read", "/mnt", "detail")
    pack = errors.CorruptPackError("0123", "detail")
    assert (pack.pack, pack.detail) == ("0123", "detail")
    deadline = errors.DeadlineExceededError("load", 60.0, "waiting")
    assert (deadline.operation, deadline.deadline_s, deadline.waiting_for) == ("load", 60.0, "waiting")


def test_one_except_clause_catches_every_error_of_this_package() -> None:
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type)]
    assert len(kinds) > 10
    assert all(issubclass(kind, errors.CacheError) for kind in kinds)
