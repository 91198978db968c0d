"""Many replicas start with nothing saved: one compiles, the others wait for it; whatever fails, all of them start."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from b10_transfer import OperationStatus, load, save
from b10_transfer.stores.worker import client as worker

from .pods import packs

if TYPE_CHECKING:
    from ..conftest import IsolatedEnv

# Loads; compiles for a while if there was nothing, and saves. Says what happened, line by line, with the time.
_REPLICA = """
import json, os, sys, time
from pathlib import Path
from b10_transfer import load, save
from b10_transfer.stores.worker import client as worker
if sys.argv[2] == "far":
    worker.is_local = lambda path: False
def tell(**facts): print(json.dumps(facts | {"time": time.time()}), flush=True)
report = load()
tell(event="loaded", status=report.status.name, reason=report.reason)
if report.status.name != "SUCCESS":
    time.sleep(float(sys.argv[1]))
    folder = Path(os.environ["TRITON_CACHE_DIR"], "KEY")
    folder.mkdir(parents=True)
    (folder / "a.so").write_text(f"compiled by {os.getpid()}")
    tell(event="compiled")
    tell(event="saved", status=save().status.name)
"""


class Replica:
    """A pod with a cache of its own, in a process of its own."""

    def __init__(self, env: IsolatedEnv, number: int, compile_s: float, *, far: bool = False, **variables: str) -> None:
        self.cache = env.home / f"replica{number}"
        self.process = subprocess.Popen(
            [sys.executable, "-c", _REPLICA, str(compile_s), "far" if far else "near"],
            env=os.environ | {"TRITON_CACHE_DIR": str(self.cache)} | variables,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def events(self) -> list[dict[str, Any]]:
        """Wait until it has ended; what it told."""
        output, errors = self.process.communicate(timeout=120)
        assert self.process.returncode == 0, errors
        return [json.loads(line) for line in output.splitlines()]


def leases_in(env: IsolatedEnv) -> list[Path]:
    return sorted(env.store.glob("v1/*/*/leases/*"))


def wait_for_lease(env: IsolatedEnv) -> None:
    ends = time.monotonic() + 60
    while not leases_in(env):
        assert time.monotonic() < ends, "nobody has claimed it"
        time.sleep(0.02)


@pytest.mark.parametrize("far", [False, True], ids=["local", "at arm's length"])
def test_one_of_sixteen_compiles_and_the_others_load_what_it_saves(isolated_env: IsolatedEnv, far: bool) -> None:
    replicas = [Replica(isolated_env, number, 2, far=far, B10_WAIT_FOR_COMPILE_SECONDS="60") for number in range(16)]
    told = [replica.events() for replica in replicas]
    assert Counter(events[0]["status"] for events in told) == {"SUCCESS": 15, "DOES_NOT_EXIST": 1}
    [compiler] = [events for events in told if len(events) > 1]
    assert "this replica compiles" in compiler[0]["reason"]
    assert compiler[-1]["status"] == "SUCCESS"
    contents = {(replica.cache / "KEY" / "a.so").read_text() for replica in replicas}
    assert len(contents) == 1
    assert len(packs(isolated_env.store)) == 1
    assert leases_in(isolated_env) == []


def test_nobody_waits_unless_asked_to(isolated_env: IsolatedEnv) -> None:
    replicas = [Replica(isolated_env, number, 0) for number in range(3)]
    assert {replica.events()[0]["status"] for replica in replicas} <= {"DOES_NOT_EXIST", "SUCCESS"}
    assert leases_in(isolated_env) == []


def test_without_leases_nobody_waits_and_all_compile(isolated_env: IsolatedEnv) -> None:
    replicas = [
        Replica(isolated_env, number, 3, B10_WAIT_FOR_COMPILE_SECONDS="60", B10_LOCKS="0") for number in range(4)
    ]
    told = [replica.events() for replica in replicas]
    assert {events[0]["status"] for events in told} == {"DOES_NOT_EXIST"}
    assert {events[-1]["event"] for events in told} == {"saved"}


def test_replica_that_dies_while_it_compiles_is_replaced(
    isolated_env: IsolatedEnv, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("B10_WAIT_FOR_COMPILE_SECONDS", "60")
    monkeypatch.setenv("CLEANUP_LOCK_TIMEOUT_SECONDS", "1")
    dying = Replica(isolated_env, 0, 600)
    wait_for_lease(isolated_env)
    waiting = [Replica(isolated_env, number, 0.1) for number in (1, 2)]
    time.sleep(2)  # longer than a lease lives: it is renewed
    assert [replica.process.poll() for replica in waiting] == [None, None]
    dying.process.send_signal(signal.SIGKILL)
    dying.process.communicate()
    told = [replica.events() for replica in waiting]
    assert Counter(events[0]["status"] for events in told) == {"DOES_NOT_EXIST": 1, "SUCCESS": 1}


def test_wait_that_ends_in_vain_is_followed_by_compiling(isolated_env: IsolatedEnv) -> None:
    compiling = Replica(isolated_env, 0, 600, B10_WAIT_FOR_COMPILE_SECONDS="60")
    wait_for_lease(isolated_env)
    impatient = Replica(isolated_env, 1, 0, B10_WAIT_FOR_COMPILE_SECONDS="1")
    events = impatient.events()
    assert (events[0]["status"], events[-1]["status"]) == ("DOES_NOT_EXIST", "SUCCESS")
    compiling.process.kill()
    compiling.process.communicate()


def test_read_only_replica_waits_while_another_compiles_and_writes_nothing(isolated_env: IsolatedEnv) -> None:
    compiling = Replica(isolated_env, 0, 2, B10_WAIT_FOR_COMPILE_SECONDS="60")
    wait_for_lease(isolated_env)
    reading = Replica(isolated_env, 1, 0, B10_WAIT_FOR_COMPILE_SECONDS="60", B10_READ_ONLY="1")
    assert [event["status"] for event in reading.events()] == ["SUCCESS"]
    assert compiling.events()[-1]["status"] == "SUCCESS"


def test_read_only_replica_does_not_wait_where_nobody_compiles(isolated_env: IsolatedEnv) -> None:
    isolated_env.store.mkdir()
    events = Replica(isolated_env, 0, 0, B10_WAIT_FOR_COMPILE_SECONDS="60", B10_READ_ONLY="1").events()
    assert [event.get("status") for event in events] == ["DOES_NOT_EXIST", None, "SKIPPED"]
    assert list(isolated_env.store.iterdir()) == []


def test_store_that_cannot_be_written_keeps_nobody_waiting(
    isolated_env: IsolatedEnv, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    isolated_env.store.parent.mkdir(exist_ok=True)
    isolated_env.store.mkdir()
    (isolated_env.store / "v1").write_text("in the way")
    monkeypatch.setenv("B10_WAIT_FOR_COMPILE_SECONDS", "60")
    assert load().status in (OperationStatus.DOES_NOT_EXIST, OperationStatus.ERROR)


def test_damaged_pack_is_no_reason_to_stop_waiting(isolated_env: IsolatedEnv) -> None:
    isolated_env.fill(isolated_env.triton, {"KEY/a.so": b"a"})
    assert save().status is OperationStatus.SUCCESS
    [pack] = packs(isolated_env.store)
    pack.chmod(0o644)
    pack.write_bytes(b"damaged")
    compiling = Replica(isolated_env, 0, 2, B10_WAIT_FOR_COMPILE_SECONDS="60")
    wait_for_lease(isolated_env)
    waiting = Replica(isolated_env, 1, 0, B10_WAIT_FOR_COMPILE_SECONDS="60")
    assert waiting.events()[0]["status"] == "SUCCESS"
    assert compiling.events()[-1]["status"] == "SUCCESS"


def test_lease_is_given_back_by_a_save_that_has_nothing_to_publish(
    isolated_env: IsolatedEnv, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker, "is_local", lambda path: False)
    assert load(wait_for_compile_s=60).status is OperationStatus.DOES_NOT_EXIST
    assert len(leases_in(isolated_env)) == 1
    assert save().status is OperationStatus.SKIPPED
    assert leases_in(isolated_env) == []


@pytest.mark.parametrize("value", ["-1", "soon", "nan", "86401"])
def test_wait_that_is_no_number_of_seconds_is_said_and_nobody_waits(
    isolated_env: IsolatedEnv, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, value: str
) -> None:
    monkeypatch.setenv("B10_WAIT_FOR_COMPILE_SECONDS", value)
    assert load().status is OperationStatus.DOES_NOT_EXIST
    assert "B10_WAIT_FOR_COMPILE_SECONDS" in caplog.text


# Rank of a job: after its load it meets the others, as a model does whose layers are spread over all of them.
_RANK = """
import json, os, sys, time
from pathlib import Path
from b10_transfer import load
report = load()
folder, rank = Path(sys.argv[1]), os.environ["RANK"]
(folder / rank).touch()
ends = time.monotonic() + 100
while len(list(folder.iterdir())) < int(os.environ["WORLD_SIZE"]):
    assert time.monotonic() < ends, "the other ranks wait"
    time.sleep(0.02)
print(json.dumps({"status": report.status.name, "reason": report.reason}))
"""


KINDS = {
    "torchrun": {"MASTER_ADDR": "job", "MASTER_PORT": "29500"},
    "group": {"B10_GROUP": "job"},
    "pod": {"KUBERNETES_SERVICE_HOST": "10.0.0.1"},
}
"""Variables of processes that may need each other."""


def start_job(env: IsolatedEnv, name: str, ranks: int, kind: str = "torchrun") -> list[subprocess.Popen[str]]:
    met = env.home / name
    met.mkdir()
    job = KINDS[kind] | {"WORLD_SIZE": str(ranks), "B10_WAIT_FOR_COMPILE_SECONDS": "600"}
    return [
        subprocess.Popen(
            [sys.executable, "-c", _RANK, str(met)],
            env=os.environ | job | {"RANK": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(ranks)
    ]


@pytest.mark.parametrize("kind", KINDS)
def test_ranks_of_a_job_do_not_wait_for_each_other(isolated_env: IsolatedEnv, kind: str) -> None:
    ranks = start_job(isolated_env, "job", 6, kind)
    answers = []
    for rank in ranks:
        output, errors = rank.communicate(timeout=120)
        assert rank.returncode == 0, errors
        answers.append(json.loads(output))
    assert {answer["status"] for answer in answers} == {"DOES_NOT_EXIST"}
    assert sum("others may wait for it" in answer["reason"] for answer in answers) == 1
    assert sum("another process of this group, job or pod compiles" in answer["reason"] for answer in answers) == 5


def test_another_job_waits_for_the_one_that_compiles(isolated_env: IsolatedEnv) -> None:
    report = load(wait_for_compile_s=600)  # this process belongs to no job
    assert "others may wait for it" in report.reason
    waiting = start_job(isolated_env, "job", 2)
    cache = Path(os.environ["TRITON_CACHE_DIR"], "KEY")
    time.sleep(1)
    assert [rank.poll() for rank in waiting] == [None, None]
    cache.mkdir(parents=True)
    (cache / "a.so").write_text("compiled")
    assert save().status is OperationStatus.SUCCESS
    for rank in waiting:
        rank.communicate(timeout=120)
        assert rank.returncode == 0
