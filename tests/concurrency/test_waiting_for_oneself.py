"""A process that compiles never waits for its own lease, and a wait never loads the same packs again."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from b10_transfer import OperationStatus, load, save
from b10_transfer.operations import load as loading
from b10_transfer.operations.session import session
from tests.command import command

from ..conftest import IsolatedEnv

LONG_S = 600
"""A wait that no test survives: its own limit is half of it."""


@pytest.fixture(autouse=True)
def no_lease_left() -> Iterator[None]:
    yield
    session._leases.clear()


def leases_in(env: IsolatedEnv) -> list[str]:
    return sorted(path.parent.parent.parent.name for path in env.store.glob("v1/*/*/leases/*"))


def compiles(reason: str) -> bool:
    return "this replica compiles" in reason


def test_second_load_of_a_process_does_not_wait_for_its_own_lease(isolated_env: IsolatedEnv) -> None:
    for _ in range(3):
        report = load(wait_for_compile_s=LONG_S)
        assert (report.status, compiles(report.reason)) == (OperationStatus.DOES_NOT_EXIST, True)
    assert leases_in(isolated_env) == ["default"]


def test_threads_of_a_process_do_not_wait_for_each_other(isolated_env: IsolatedEnv) -> None:
    reports = []
    threads = [threading.Thread(target=lambda: reports.append(load(wait_for_compile_s=LONG_S))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [report.status for report in reports] == [OperationStatus.DOES_NOT_EXIST] * 4


def test_each_namespace_has_a_lease_of_its_own(isolated_env: IsolatedEnv) -> None:
    for name in ("one", "two", "one"):
        assert compiles(load(namespace=name, wait_for_compile_s=LONG_S).reason)
    assert leases_in(isolated_env) == ["one", "two"]
    isolated_env.fill(isolated_env.triton, {"KERNEL/launcher.so": b"x"})
    assert save(namespace="one").status is OperationStatus.SUCCESS
    assert leases_in(isolated_env) == ["two"]
    assert save(namespace="two").status is OperationStatus.SUCCESS
    assert leases_in(isolated_env) == []


def test_each_store_has_a_lease_of_its_own(isolated_env: IsolatedEnv) -> None:
    other = isolated_env.home / "other-store"
    for store in (isolated_env.store, other, isolated_env.store):
        assert compiles(load(store=store, wait_for_compile_s=LONG_S).reason)
    save(store=other)
    assert leases_in(isolated_env) == ["default"]
    assert list(other.glob("v1/*/*/leases/*")) == []


def test_lease_that_was_lost_is_not_taken_for_ones_own(isolated_env: IsolatedEnv) -> None:
    load(wait_for_compile_s=LONG_S)
    [lease] = session._leases.values()
    lease.is_held = False  # as after renewals that failed
    report = load(wait_for_compile_s=0.1)
    assert not compiles(report.reason)


def test_process_that_compiles_is_still_waited_for_by_another(isolated_env: IsolatedEnv) -> None:
    load(wait_for_compile_s=LONG_S)
    program = """
import json, sys
from b10_transfer import load
report = load(wait_for_compile_s=0.5)
print(json.dumps([report.status.name, report.reason]))
"""
    result = subprocess.run([sys.executable, "-c", program], env=os.environ, capture_output=True, text=True, check=True)
    status, reason = json.loads(result.stdout)
    assert status == "DOES_NOT_EXIST"
    assert not compiles(reason)


class CountedLoads:
    """Counts the loads of a wait, without the last look at pods with another CPU."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.count = 0
        real = loading.load

        def load_and_count(*arguments: Any, **named: Any) -> Any:
            self.count += not named.get("from_siblings")
            return real(*arguments, **named)

        monkeypatch.setattr(loading, "load", load_and_count)


def held_by_another(env: IsolatedEnv) -> None:
    """Have another process hold the lease: nobody here may take it."""
    [environment] = env.store.glob("v1/default/*")
    (environment / "leases").mkdir(exist_ok=True)
    (environment / "leases" / "compile.00000001").write_text("{}")


def nothing_counts(env: IsolatedEnv, monkeypatch: pytest.MonkeyPatch) -> None:
    """Packs that were merged, and all of whose contents were recalled."""
    monkeypatch.setenv("B10_MAX_PACKS", "1")
    monkeypatch.setenv("B10_GRACE_SECONDS", "0")
    ids = []
    for number in range(3):
        env.fill(env.triton, {f"K{number}/launcher.so": os.urandom(100)})
        ids.append(save().pack)
    assert command("recall", *ids).exit_code == 0
    assert list(env.store.rglob("*.tar.zst"))


def only_left_out_caches(env: IsolatedEnv, monkeypatch: pytest.MonkeyPatch) -> None:
    env.fill(env.triton, {"KERNEL/launcher.so": b"x"})
    save()
    monkeypatch.setenv("B10_CACHES", "inductor")


def only_damaged_packs(env: IsolatedEnv, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(3):
        env.fill(env.triton, {f"K{number}/launcher.so": os.urandom(100)})
        save()
    for pack in env.store.rglob("*.tar.zst"):
        pack.chmod(0o644)
        pack.write_bytes(b"damaged")


@pytest.mark.parametrize(
    "situation", [nothing_counts, only_left_out_caches, only_damaged_packs], ids=lambda found: found.__name__
)
def test_packs_that_hold_nothing_for_this_pod_are_loaded_once(
    isolated_env: IsolatedEnv, monkeypatch: pytest.MonkeyPatch, situation: Any
) -> None:
    situation(isolated_env, monkeypatch)
    held_by_another(isolated_env)
    shutil.rmtree(isolated_env.triton)
    loads = CountedLoads(monkeypatch)
    assert load(wait_for_compile_s=1.5).status is OperationStatus.DOES_NOT_EXIST
    assert loads.count == 1


def test_each_new_pack_is_worth_one_load(isolated_env: IsolatedEnv, monkeypatch: pytest.MonkeyPatch) -> None:
    only_left_out_caches(isolated_env, monkeypatch)
    held_by_another(isolated_env)
    [pack] = isolated_env.store.rglob("*.tar.zst")
    loads = CountedLoads(monkeypatch)
    counted = loading.load

    def load_then_publish(*arguments: Any, **named: Any) -> Any:
        report = counted(*arguments, **named)
        if loads.count < 3:  # a copy under an id of its own
            shutil.copy(pack, pack.with_name(f"01a20000000{loads.count}-0000000000000000.tar.zst"))
        return report

    monkeypatch.setattr(loading, "load", load_then_publish)
    load(wait_for_compile_s=5)
    assert loads.count == 3
