"""Processes that fork before, during and after loads and saves: parent and child can use the bucket all the same."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from ..conftest import IsolatedEnv
from .conftest import Bucket

_COMMON = """
import multiprocessing, os, sys, threading, time, warnings
from pathlib import Path
warnings.simplefilter("ignore")  # of forking with threads, which is the point
from b10_transfer import load, save

def compile(name):
    folder = Path(os.environ["TRITON_CACHE_DIR"], name)
    folder.mkdir(parents=True)
    (folder / "a.so").write_text(name)

def child(number):
    os.environ["TRITON_CACHE_DIR"] += f"-{number}"
    compile(f"CHILD{number}")
    report = save()
    if report.status.name != "SUCCESS":
        print(report.reason, file=sys.stderr)
    os._exit(0 if report.status.name == "SUCCESS" else 1)

def fork(number):
    pid = os.fork()
    if not pid:
        child(number)
    return pid

def ended(pid):
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
"""

_FORKED_AFTER = """
assert load().status.name == "SUCCESS"
assert ended(fork(0)) == 0
compile("PARENT")
assert save().status.name == "SUCCESS"
assert ended(fork(1)) == 0
"""

_MULTIPROCESSING = """
assert load().status.name == "SUCCESS"
context = multiprocessing.get_context("fork")
children = [context.Process(target=child, args=(number,)) for number in range(3)]
for process in children:
    process.start()
for process in children:
    process.join()
assert [process.exitcode for process in children] == [0, 0, 0]
"""

# The main thread forks again and again while others load and save: whatever a fork meets, nobody may hang.
_FORKED_DURING = """
statuses = []

def work(operation, number):
    for turn in range(3):
        if operation is save:
            compile(f"TURN{number}{turn}")
        statuses.append(operation(merge=True).status.name if operation is load else operation().status.name)

threads = [threading.Thread(target=work, args=(operation, 0)) for operation in (load, save)]
for thread in threads:
    thread.start()
forked = []
while any(thread.is_alive() for thread in threads):
    if len(forked) < 4:
        forked.append(fork(len(forked)))
    else:
        # One that is idle for long, and holds on to whatever it has inherited.
        pid = os.fork()
        if not pid:
            time.sleep(600)
        forked.append(-pid)
    time.sleep(0.02)
codes = [ended(pid) for pid in forked if pid > 0]
for pid in forked:
    if pid < 0:
        os.kill(-pid, 9)
        ended(-pid)
assert codes == [0] * len(codes), codes
assert len(statuses) == 6 and "ERROR" not in statuses, statuses
"""

# Another thread forks in the moment in which a worker is started. The child inherits nothing of it: when the worker
# dies, its end of the connection is closed, and that is noticed at once.
_FORKED_WHILE_A_WORKER_STARTS = """
from b10_transfer.concurrency.deadline import Deadline
from b10_transfer.errors import StoreError
from b10_transfer.stores.worker import client as worker

starting, real = threading.Event(), worker.subprocess.Popen

def slow(*arguments, **options):
    starting.set()
    time.sleep(0.5)
    return real(*arguments, **options)

def fork_an_idle_child():
    starting.wait()
    idle.append(os.fork())
    if not idle[0]:
        time.sleep(600)

idle = []
worker.subprocess.Popen = slow
forking = threading.Thread(target=fork_an_idle_child)
forking.start()
with worker.bucket_store(os.environ["B10_STORE"], deadline=Deadline("test", 30)) as store:
    forking.join()
    store._process.kill()
    store._process.wait()
    try:
        store.list("v1")
    except StoreError as error:
        said = str(error)
os.kill(idle[0], 9)
ended(idle[0])
assert "worker process ended" in said, said
"""


@pytest.fixture
def stored(isolated_env: IsolatedEnv, bucket: Bucket) -> None:
    """Something to load, saved by another process so that nothing has happened in this one."""
    elsewhere = {"TRITON_CACHE_DIR": str(isolated_env.home / ".cache" / "elsewhere")}
    run('compile("STORED")\nassert save().status.name == "SUCCESS"', isolated_env, elsewhere)


def run(program: str, env: IsolatedEnv, variables: dict[str, str] | None = None) -> None:
    done = subprocess.run(
        [sys.executable, "-c", _COMMON + program],
        env=os.environ | (variables or {}),
        cwd=env.home,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def units_in(cache: Path) -> set[str]:
    return {path.name for path in cache.iterdir()}


def test_fork_while_a_worker_is_started_keeps_nothing_of_it(isolated_env: IsolatedEnv, bucket: Bucket) -> None:
    run(_FORKED_WHILE_A_WORKER_STARTS, isolated_env)


@pytest.mark.parametrize("program", [_FORKED_AFTER, _MULTIPROCESSING], ids=["os.fork", "multiprocessing"])
def test_child_saves_to_the_bucket_that_its_parent_loaded_from(
    isolated_env: IsolatedEnv, bucket: Bucket, stored: None, program: str
) -> None:
    run(program, isolated_env)
    assert len(bucket.packs()) == 4


def test_forks_during_loads_and_saves_disturb_neither_side(
    isolated_env: IsolatedEnv, bucket: Bucket, stored: None
) -> None:
    run(_FORKED_DURING, isolated_env, {"B10_DEADLINE_SECONDS": "50"})
    run("load()", isolated_env, {"TRITON_CACHE_DIR": str(isolated_env.home / ".cache" / "all")})
    expected = {"STORED", *(f"CHILD{number}" for number in range(4)), *(f"TURN0{turn}" for turn in range(3))}
    assert units_in(isolated_env.home / ".cache" / "all") == expected
