"""Many pods at one bucket: one compiles for all, equal saves become one pack, different ones are all kept."""

from __future__ import annotations

import signal
import time
from collections import Counter

import pytest

from b10_transfer.repository.use import today

from ..concurrency.test_compile_once import Replica
from ..concurrency.test_savers import assert_whole, replica, save_all, union_of
from ..conftest import IsolatedEnv, ReadTree
from .conftest import Bucket

REPLICAS = 8
WAIT_S = "100"


def wait_for_lease(bucket: Bucket) -> None:
    ends = time.monotonic() + 60
    while not bucket.leases():
        assert time.monotonic() < ends, "nobody has claimed it"
        time.sleep(0.05)


def test_one_of_eight_compiles_and_the_others_load_what_it_saves(isolated_env: IsolatedEnv, bucket: Bucket) -> None:
    replicas = [Replica(isolated_env, number, 2, B10_WAIT_FOR_COMPILE_SECONDS=WAIT_S) for number in range(REPLICAS)]
    told = [replica.events() for replica in replicas]
    assert Counter(events[0]["status"] for events in told) == {"SUCCESS": REPLICAS - 1, "DOES_NOT_EXIST": 1}
    assert len({(replica.cache / "KEY" / "a.so").read_text() for replica in replicas}) == 1
    assert len(bucket.packs()) == 1
    assert bucket.leases() == []


def test_replica_that_dies_while_it_compiles_is_replaced(
    isolated_env: IsolatedEnv, bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CLEANUP_LOCK_TIMEOUT_SECONDS", "3")
    dying = Replica(isolated_env, 0, 600, B10_WAIT_FOR_COMPILE_SECONDS=WAIT_S)
    wait_for_lease(bucket)
    waiting = [Replica(isolated_env, number, 0.1, B10_WAIT_FOR_COMPILE_SECONDS=WAIT_S) for number in (1, 2)]
    time.sleep(4)  # longer than a lease lives: it is renewed
    assert [replica.process.poll() for replica in waiting] == [None, None]
    dying.process.send_signal(signal.SIGKILL)
    dying.process.communicate()
    told = [replica.events() for replica in waiting]
    assert Counter(events[0]["status"] for events in told) == {"DOES_NOT_EXIST": 1, "SUCCESS": 1}


def test_replicas_that_compiled_the_same_publish_one_pack(isolated_env: IsolatedEnv, bucket: Bucket) -> None:
    roots = [replica(isolated_env, number, ["A", "B", "C"]) for number in range(REPLICAS)]
    assert Counter(save_all(roots)) == {"SUCCESS": 1, "SKIPPED": REPLICAS - 1}
    assert len(bucket.packs()) == 1
    others = {name.rpartition("/")[2] for name in bucket.objects() if "/packs/" not in name}
    assert others == {"environment.json", today()}


@pytest.mark.parametrize("locks", ["1", "0"])
def test_replicas_that_compiled_different_things_all_contribute(
    isolated_env: IsolatedEnv, bucket: Bucket, monkeypatch: pytest.MonkeyPatch, read_tree: ReadTree, locks: str
) -> None:
    names = [["SHARED", f"OWN{number}"] for number in range(REPLICAS)]
    roots = [replica(isolated_env, number, names[number]) for number in range(REPLICAS)]
    assert set(save_all(roots, B10_LOCKS=locks)) == {"SUCCESS"}
    tree = union_of(isolated_env, monkeypatch, read_tree)
    assert_whole(tree, ["SHARED", *(name for pair in names for name in pair)])
    assert bucket.leases() == []


def test_without_leases_replicas_repeat_work_but_nothing_is_lost(
    isolated_env: IsolatedEnv, bucket: Bucket, monkeypatch: pytest.MonkeyPatch, read_tree: ReadTree
) -> None:
    roots = [replica(isolated_env, number, ["A", "B", "C"]) for number in range(REPLICAS)]
    assert set(save_all(roots, B10_LOCKS="0")) <= {"SUCCESS", "SKIPPED"}
    assert_whole(union_of(isolated_env, monkeypatch, read_tree), ["A", "B", "C"])
