"""Requests to a bucket are counted, across the worker process and all attempts."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator

import pytest

from b10_transfer import OperationStatus, load, save
from b10_transfer.repository.use import today
from b10_transfer.stores.traffic import total
from tests.conftest import IsolatedEnv
from tests.security.fake_bucket import FakeBucket


@pytest.fixture
def bucket(isolated_env: IsolatedEnv, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeBucket]:
    fake = FakeBucket()
    for name, value in fake.variables(deadline_s=30).items():
        monkeypatch.setenv(name, value)
    isolated_env.fill(isolated_env.triton, {"KEY/a.so": b"code"})
    total.take()
    yield fake
    fake.close()


def test_requests_of_a_load_and_a_save_are_counted(bucket: FakeBucket, isolated_env: IsolatedEnv) -> None:
    assert save().status is OperationStatus.SUCCESS
    assert (total.requests, total.throttled, total.failed) == (bucket.requests, 0, 0)
    shutil.rmtree(isolated_env.triton)
    bucket.requests, bucket.throttled = 0, 2
    total.take()
    assert load().status is OperationStatus.SUCCESS
    assert (total.requests, total.throttled, total.failed) == (bucket.requests, 2, 0)


def test_load_sends_one_more_request_only_if_there_is_no_record_of_today(
    bucket: FakeBucket, isolated_env: IsolatedEnv
) -> None:
    def requests_of_a_load() -> int:
        shutil.rmtree(isolated_env.triton)
        bucket.requests = 0
        assert load().status is OperationStatus.SUCCESS
        end = time.monotonic() + 20
        while not bucket.keys(f"/used/{today()}") and time.monotonic() < end:
            time.sleep(0.01)
        return bucket.requests

    assert save().status is OperationStatus.SUCCESS
    [record] = bucket.keys("/used/")
    later = requests_of_a_load()
    del bucket.objects[record]
    first = requests_of_a_load()
    assert bucket.keys("/used/") == [record]
    assert first == later + 1
