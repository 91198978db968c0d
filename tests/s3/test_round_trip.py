"""What is saved to a bucket comes back from it: every byte, mode and time, from small packs, large ones and many."""

from __future__ import annotations

import io
import os
import random
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from b10_transfer import OperationStatus, load, save
from b10_transfer.concurrency.deadline import Deadline
from b10_transfer.environment import detect
from b10_transfer.stores.base import Store
from b10_transfer.stores.bucket import store as bucket_module
from b10_transfer.stores.worker.client import bucket_store

from ..conftest import IsolatedEnv, Packs, ReadTree
from .conftest import Bucket

MB = 1024 * 1024


def incompressible(size_bytes: int, seed: int = 0) -> bytes:
    return random.Random(seed).randbytes(size_bytes)


class ThisPod(Packs):
    """Packs as this pod publishes them."""

    def __init__(self) -> None:
        self.environment = detect()


def modes_and_times(root: Path) -> dict[str, tuple[int, int]]:
    files = {path.relative_to(root).as_posix(): path.stat() for path in root.rglob("*") if path.is_file()}
    return {path: (found.st_mode, found.st_mtime_ns) for path, found in files.items()}


def test_saved_caches_come_back_with_every_byte_mode_and_time(
    isolated_env: IsolatedEnv, bucket: Bucket, read_tree: ReadTree
) -> None:
    isolated_env.fill(isolated_env.triton, {f"KEY{n}/kernel.so": incompressible(1000 * n, n) for n in range(30)})
    isolated_env.fill(isolated_env.inductor, {f"ey/key{n}.py": f"code {n}\n".encode() for n in range(30)})
    for number, path in enumerate(sorted(isolated_env.triton.rglob("*.so"))):
        path.chmod(0o755 if number % 2 else 0o600)
        os.utime(path, ns=(1, 1_700_000_000_123_456_789 + number))
    roots = (isolated_env.triton, isolated_env.inductor)
    before = [(read_tree(root), modes_and_times(root)) for root in roots]
    assert save().status is OperationStatus.SUCCESS
    assert bucket.leases() == []
    for root in roots:
        shutil.rmtree(root)
    report = load()
    assert (report.status, report.units) == (OperationStatus.SUCCESS, 60)
    assert [(read_tree(root), modes_and_times(root)) for root in roots] == before
    assert save().status is OperationStatus.SKIPPED
    assert len(bucket.packs()) == 1


def test_pack_too_large_for_one_request_comes_back(
    isolated_env: IsolatedEnv, bucket: Bucket, read_tree: ReadTree
) -> None:
    size = 2 * bucket_module._CONDITIONAL_BYTES + 12_345
    isolated_env.fill(isolated_env.inductor, {"ug/huge.so": incompressible(size)})
    before = read_tree(isolated_env.inductor)
    report = save()
    assert report.status is OperationStatus.SUCCESS
    assert report.packed_bytes > bucket_module._CONDITIONAL_BYTES
    assert bucket.uploads() == []
    shutil.rmtree(isolated_env.inductor)
    assert load().status is OperationStatus.SUCCESS
    assert read_tree(isolated_env.inductor) == before


def test_load_puts_together_what_many_packs_hold(
    isolated_env: IsolatedEnv, bucket: Bucket, read_tree: ReadTree
) -> None:
    files = {f"KEY{number}/kernel.so": incompressible(20_000, number) for number in range(70)}
    units = [{f"triton/{path[:-9]}": {"kernel.so": data}} for path, data in files.items()]
    bucket.publish(*(ThisPod().write(unit) for unit in units))
    report = load()
    assert (report.status, len(report.packs)) == (OperationStatus.SUCCESS, 70)
    assert read_tree(isolated_env.triton) == files


def test_later_saves_add_to_what_is_there(isolated_env: IsolatedEnv, bucket: Bucket) -> None:
    for number in range(3):
        isolated_env.fill(isolated_env.triton, {f"KEY{number}/kernel.so": b"%d" % number})
        report = save()
        assert (report.status, report.units) == (OperationStatus.SUCCESS, 1)
    shutil.rmtree(isolated_env.triton)
    assert load().units == 3


@pytest.fixture
def store(bucket: Bucket, deadline: Deadline) -> Iterator[Store]:
    with bucket_store(bucket.url, deadline=deadline) as store:
        yield store


@pytest.mark.parametrize(
    "size",
    [0, 1, MB - 1, MB, MB + 1, 4 * MB, 5 * MB - 1, 5 * MB, 5 * MB + 1, 8 * MB + 7, 16 * MB, 16 * MB + 1, 40 * MB],
)
def test_objects_of_all_sizes_read_back_in_order_and_at_random(store: Store, size: int) -> None:
    data = incompressible(size)
    assert store.create("a/object", io.BytesIO(data))
    reader = store.open("a/object")
    assert reader is not None
    with reader:
        assert reader.size_bytes == size
        step = 700_001
        pieces = [bytes(reader.read_at(at, min(step, size - at))) for at in range(0, size, step)]
        assert b"".join(pieces) == data
        choose = random.Random(size)
        for _ in range(20):
            start = choose.randint(0, size)
            length = choose.randint(0, min(6 * MB, size - start))
            assert reader.read_at(start, length) == data[start : start + length]
