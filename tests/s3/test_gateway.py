"""The gateway dies or hangs in the middle of a save or load: a status in time, nothing half, and the next one works."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable

import pytest

from b10_transfer import OperationStatus, load, save

from ..conftest import IsolatedEnv, ReadTree
from .ceph import Gateway
from .conftest import Bucket
from .proxy import Pass, Proxy, Request
from .test_round_trip import MB, incompressible

SHORT_S = 4.0
GRACE_S = 2.0
"""What a busy machine may need to notice that a deadline has passed."""
SIZES = pytest.mark.parametrize("size", [8 * MB, 40 * MB], ids=["in one request", "in parts"])


class Once:
    """A rule that strikes one large transfer of a pack, the first, and passes everything else."""

    def __init__(self, method: str, strike: Pass) -> None:
        self._method = method
        self._strike = strike
        self.struck = False

    def __call__(self, request: Request) -> Pass:
        if self.struck or request.method != self._method or "/packs/" not in request.path:
            return Pass()
        if request.method == "PUT" and request.body_bytes < 2 * MB:
            return Pass()
        if request.method == "GET" and any(line.lower().endswith("bytes=-1048576") for line in request.headers):
            return Pass()  # the end of the pack; the middle comes next
        self.struck = True
        return self._strike


@pytest.fixture(autouse=True)
def leases_die_young(isolated_env: IsolatedEnv, monkeypatch: pytest.MonkeyPatch) -> None:
    """A save that fails because its gateway is gone cannot give its lease back: the next one waits for it to die."""
    monkeypatch.setenv("CLEANUP_LOCK_TIMEOUT_SECONDS", "2")


def in_time(operation: Callable[[], OperationStatus]) -> OperationStatus:
    started = time.monotonic()
    status = operation()
    assert time.monotonic() - started < SHORT_S + GRACE_S
    return status


def compiled(env: IsolatedEnv, size: int) -> None:
    env.fill(env.inductor, {"ug/huge.so": incompressible(size)})


@SIZES
def test_save_whose_gateway_dies_fails_in_time_and_leaves_nothing_half(
    isolated_env: IsolatedEnv, bucket: Bucket, gateway: Gateway, proxied_gateway: Proxy, read_tree: ReadTree, size: int
) -> None:
    compiled(isolated_env, size)
    rule = proxied_gateway.rule = Once("PUT", Pass(body_bytes=MB, then=gateway.kill))
    assert in_time(lambda: save(deadline_s=SHORT_S).status) is OperationStatus.ERROR
    assert rule.struck
    assert bucket.packs() == []
    gateway.start()
    before = read_tree(isolated_env.inductor)
    assert save().status is OperationStatus.SUCCESS
    assert len(bucket.packs()) == 1
    shutil.rmtree(isolated_env.inductor)
    assert load().status is OperationStatus.SUCCESS
    assert read_tree(isolated_env.inductor) == before


@SIZES
def test_save_goes_on_when_its_gateway_comes_back(
    isolated_env: IsolatedEnv, bucket: Bucket, gateway: Gateway, proxied_gateway: Proxy, size: int
) -> None:
    compiled(isolated_env, size)

    def restart() -> None:
        gateway.kill()
        gateway.start()

    rule = proxied_gateway.rule = Once("PUT", Pass(body_bytes=MB, then=restart))
    assert save().status is OperationStatus.SUCCESS
    assert rule.struck
    assert len(bucket.packs()) == 1


def test_load_whose_gateway_dies_fails_in_time_and_places_nothing(
    isolated_env: IsolatedEnv, bucket: Bucket, gateway: Gateway, proxied_gateway: Proxy, read_tree: ReadTree
) -> None:
    compiled(isolated_env, 24 * MB)
    before = read_tree(isolated_env.inductor)
    assert save().status is OperationStatus.SUCCESS
    shutil.rmtree(isolated_env.inductor)
    rule = proxied_gateway.rule = Once("GET", Pass(answer_bytes=MB, then=gateway.kill))
    assert in_time(lambda: load(deadline_s=SHORT_S).status) is OperationStatus.ERROR
    assert rule.struck
    assert read_tree(isolated_env.inductor) == {}
    gateway.start()
    assert load().status is OperationStatus.SUCCESS
    assert read_tree(isolated_env.inductor) == before


def test_load_goes_on_when_its_gateway_comes_back(
    isolated_env: IsolatedEnv, bucket: Bucket, gateway: Gateway, proxied_gateway: Proxy, read_tree: ReadTree
) -> None:
    compiled(isolated_env, 24 * MB)
    before = read_tree(isolated_env.inductor)
    assert save().status is OperationStatus.SUCCESS
    shutil.rmtree(isolated_env.inductor)

    def restart() -> None:
        gateway.kill()
        gateway.start()

    rule = proxied_gateway.rule = Once("GET", Pass(answer_bytes=MB, then=restart))
    assert load().status is OperationStatus.SUCCESS
    assert rule.struck
    assert read_tree(isolated_env.inductor) == before


@pytest.mark.parametrize("operation", ["load", "save"])
def test_process_ends_by_itself_though_the_gateway_answers_nothing(
    isolated_env: IsolatedEnv, bucket: Bucket, gateway: Gateway, operation: str
) -> None:
    compiled(isolated_env, 1000)
    assert save().status is OperationStatus.SUCCESS
    compiled(isolated_env, 2000)
    if operation == "load":
        shutil.rmtree(isolated_env.inductor)
    program = (
        f"import b10_transfer; report = b10_transfer.{operation}(deadline_s=2); print(report.status, report.reason)"
    )
    gateway.pause()
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=30, check=True)
    gateway.resume()
    assert done.stdout.startswith("OperationStatus.ERROR")
    assert bucket.url in done.stdout
    assert load(merge=True).status is not OperationStatus.ERROR


def test_gateway_that_falls_silent_during_a_save_costs_the_deadline_and_no_more(
    isolated_env: IsolatedEnv, bucket: Bucket, gateway: Gateway, proxied_gateway: Proxy, read_tree: ReadTree
) -> None:
    compiled(isolated_env, 8 * MB)
    proxied_gateway.rule = Once("PUT", Pass(body_bytes=MB, then=gateway.pause))
    assert in_time(lambda: save(deadline_s=SHORT_S).status) is OperationStatus.ERROR
    gateway.resume()
    # What it had already been sent it may now carry out: a pack is there whole, or not at all.
    assert save().status in (OperationStatus.SUCCESS, OperationStatus.SKIPPED)
    before = read_tree(isolated_env.inductor)
    shutil.rmtree(isolated_env.inductor)
    assert load().rejected_packs == ()
    assert read_tree(isolated_env.inductor) == before


def test_worker_does_not_outlive_the_save_that_gave_up(
    isolated_env: IsolatedEnv, bucket: Bucket, gateway: Gateway
) -> None:
    compiled(isolated_env, 1000)
    gateway.pause()
    program = "import os, b10_transfer; b10_transfer.save(deadline_s=1); print(os.getpid())"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=30, check=True)
    ends = time.monotonic() + 10
    while workers := [pid for pid in os.listdir("/proc") if pid.isdigit() and bucket.url in command_line(pid)]:
        assert time.monotonic() < ends, f"of {done.stdout}: {workers}"
        time.sleep(0.05)


def command_line(pid: str) -> str:
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            return file.read().decode(errors="replace")
    except OSError:  # it has just ended
        return ""
