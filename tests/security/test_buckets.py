"""A writer of the bucket puts odd keys into it, or the pods may not delete."""

from __future__ import annotations

import shutil
from collections.abc import Iterator

import pytest

from b10_transfer import OperationStatus, load, save
from tests.command import command
from tests.conftest import IsolatedEnv
from tests.security.fake_bucket import FakeBucket

OLD = "2026-01-01T00:00:00.000Z"


@pytest.fixture
def bucket(isolated_env: IsolatedEnv, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeBucket]:
    """A bucket with one pack in it, and a pod whose cache is empty."""
    fake = FakeBucket()
    for name, value in fake.variables(deadline_s=20).items():
        monkeypatch.setenv(name, value)
    isolated_env.fill(isolated_env.triton, {"KEY/a.so": b"code"})
    assert save().status is OperationStatus.SUCCESS
    shutil.rmtree(isolated_env.triton)
    yield fake
    fake.close()


def folder(bucket: FakeBucket) -> str:
    [description] = bucket.keys("environment.json")
    return description.rpartition("/")[0]


HARMLESS = [
    *("", "/x", "a\nb", "a b", "ü", "%41", "foreign/../x", "leases//x", "leases/x\n", "quarantine//x", "recalled//x"),
    *("packs/", "packs//x", "packs/../x", "packs/..", "packs/./x", "packs/\x01", "packs/x//y", "packs/0/../y"),
]


@pytest.mark.parametrize("key", HARMLESS)
def test_object_with_an_odd_key_keeps_no_load_and_no_save_from_working(
    bucket: FakeBucket, isolated_env: IsolatedEnv, key: str
) -> None:
    bucket.put(f"{folder(bucket)}/{key}")
    assert load().status is OperationStatus.SUCCESS
    isolated_env.fill(isolated_env.triton, {"NEW/a.so": b"new"})
    report = save()
    assert report.status is OperationStatus.SUCCESS, report.reason
    assert bucket.keys(report.pack)


@pytest.mark.parametrize("key", ["packs/x\n", "quarantine/x\n"])
def test_object_that_the_client_cannot_skip_is_named(bucket: FakeBucket, key: str) -> None:
    """Its key sorts behind the names of packs, and the client refuses the page of keys that holds it."""
    bucket.put(f"{folder(bucket)}/{key}")
    report = load()
    assert report.status is OperationStatus.ERROR
    assert "holds an object named 'prefix/v1/default/" in report.reason
    assert key.encode("unicode_escape").decode() in report.reason
    assert "delete this object" in report.reason


@pytest.mark.parametrize(
    "key", ["prefix/", "prefix//x", "prefix/v1//x", "prefix/v1/../x", "prefix/v1/default//x", "prefix/v1/default/x//x"]
)
def test_odd_key_anywhere_keeps_no_load_and_no_command_from_working(bucket: FakeBucket, key: str) -> None:
    bucket.put(key)
    assert load().status is OperationStatus.SUCCESS
    for arguments in (("ls", "--packs"), ("verify",), ("explain",), ("prune", "--yes")):
        answer = command(*arguments)
        assert answer.exit_code == 0, answer
    assert command("ls", "--json").json["environments"]


@pytest.mark.parametrize("key", ["prefix/v1/x\n/x", "prefix/v1/default/x\n/x"])
def test_odd_key_that_the_client_cannot_skip_ends_no_command_in_a_traceback(bucket: FakeBucket, key: str) -> None:
    bucket.put(key)
    assert load().status is OperationStatus.SUCCESS
    for arguments in (("ls", "--packs"), ("verify",), ("explain",), ("prune", "--yes")):
        answer = command(*arguments)
        assert answer.exit_code in (0, 1)
        if answer.exit_code:
            assert "holds an object named 'prefix/" in answer.stderr


def test_without_permission_to_delete_nothing_accumulates_without_bound(
    bucket: FakeBucket, isolated_env: IsolatedEnv
) -> None:
    bucket.may_delete = False
    for number in range(4):
        isolated_env.fill(isolated_env.triton, {f"N{number}/a.so": b"%d" % number})
        assert save().status is OperationStatus.SUCCESS
    clocks = {key.split("/")[-2] for key in bucket.keys(".clock")}
    assert all(len(name) == 2 for name in clocks), "names of a fixed set"
    assert len(bucket.keys("leases/")) <= 2 * len(bucket.keys("packs/"))


def test_leftovers_that_may_not_be_deleted_cost_a_save_a_few_requests(
    bucket: FakeBucket, isolated_env: IsolatedEnv
) -> None:
    isolated_env.fill(isolated_env.triton, {"KEY/a.so": b"code"})
    save()
    before = bucket.requests
    assert save().status is OperationStatus.SKIPPED
    usual = bucket.requests - before
    bucket.may_delete = False
    for number in range(3000):
        bucket.put(f"prefix/.clock/{number:016x}/now", modified=OLD)
        bucket.put(f"{folder(bucket)}/leases/save-{number:016x}.00000001", modified=OLD)
        bucket.put(f"prefix/v1/.leases/slot-{number % 50:02d}.{number:08d}", modified=OLD)
    before = bucket.requests
    assert save().status is OperationStatus.SKIPPED
    assert bucket.requests - before < usual + 10
    isolated_env.fill(isolated_env.triton, {"NEW/a.so": b"new"})
    before = bucket.requests
    assert save().status is OperationStatus.SUCCESS
    assert bucket.requests - before < 60


def test_leftovers_go_a_part_with_each_save_where_deleting_is_allowed(
    bucket: FakeBucket, isolated_env: IsolatedEnv
) -> None:
    for number in range(250):
        bucket.put(f"prefix/.clock/{number:016x}/now", modified=OLD)
    bucket.put("prefix/.clock/notes/now", modified=OLD)
    bucket.put("prefix/.clock/0a/id_rsa", modified=OLD)
    isolated_env.fill(isolated_env.triton, {"KEY/a.so": b"code"})
    for left in (152, 52, 2):
        save()
        assert len(bucket.keys(".clock")) == left
    assert sorted(bucket.keys(".clock")) == ["prefix/.clock/0a/id_rsa", "prefix/.clock/notes/now"]


@pytest.mark.parametrize("key", [".clock//x", ".clock/00/x\n", "v1/.leases//x", "v1/.leases/x\n", ".clock/00//x"])
def test_odd_key_where_work_is_coordinated_keeps_no_save_from_working(
    bucket: FakeBucket, isolated_env: IsolatedEnv, key: str
) -> None:
    for number in range(256):
        bucket.put(f"prefix/{key.replace('00', f'{number:02x}')}")
    isolated_env.fill(isolated_env.triton, {"NEW/a.so": b"new"})
    report = save()
    assert report.status is OperationStatus.SUCCESS, report.reason
    assert command("prune", "--yes").exit_code == 0


def test_foreign_objects_cost_a_load_nothing(bucket: FakeBucket) -> None:
    before = bucket.requests
    assert load().status is OperationStatus.SUCCESS
    usual = bucket.requests - before
    for number in range(5000):
        for folder in (".staging", "foreign", "v1/foreign", "v1/default/foreign", "v1/.leases", ".clock/00"):
            bucket.put(f"prefix/{folder}/{number}")
    before = bucket.requests
    assert load(merge=True).status is OperationStatus.SKIPPED
    assert bucket.requests - before <= usual
