"""Members of a job on two nodes load the same units while others publish, even if processes are killed."""

from __future__ import annotations

import json
import os
import random
import time
from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

from b10_transfer import OperationStatus, load, save
from b10_transfer.config.job import job_of

from .members import MEMBERS, Process
from .pods import packs

if TYPE_CHECKING:
    from ..conftest import IsolatedEnv

ROUNDS = int(os.environ.get("ROUNDS", "15"))
NODES, SAVERS, KILLED = 2, 2, 2


def run_jobs(env: IsolatedEnv, rounds: int, **variables: str) -> list[Counter[tuple[str, str]]]:
    """Run jobs one after the other. Returns how many members of each had which status and content."""
    chance = random.Random(7)
    # Superseded packs are deleted while others load, but not those that a new record names.
    variables = {"B10_MAX_PACKS": "12", "B10_GRACE_SECONDS": "60", "CLEANUP_LOCK_TIMEOUT_SECONDS": "1", **variables}

    def saver(number: int) -> Process:
        return Process("saver", variables | {"TRITON_CACHE_DIR": str(env.home / ".cache" / f"saver{number}")})

    nodes = [Process("node", variables) for _ in range(NODES)]
    savers = [saver(number) for number in range(SAVERS)]
    outcomes = []
    try:
        for job in range(rounds):
            for number, node in enumerate(nodes):
                folder = env.home / ".cache" / f"job{job}-{number}"
                node.begin(f"job {job}", folder, KILLED if job % 2 else 0, chance.randrange(1 << 30))
            results = [result for node in nodes for result in node.results()]
            outcomes.append(Counter((result["status"], result["content"]) for result in results))
            assert all(result["group"] in ("recorded", "followed") for result in results), results
            if job % 3 == 2:
                victim = chance.randrange(SAVERS)
                savers[victim].close()
                savers[victim] = saver(victim)
    finally:
        for process in (*nodes, *savers):
            process.close()
    return outcomes


def agreed(outcomes: list[Counter[tuple[str, str]]]) -> int:
    """Check that the members of each job had one result. Returns how many different ones there were."""
    assert [dict(outcome) for outcome in outcomes if len(outcome) != 1] == []
    sizes = [sum(outcome.values()) for outcome in outcomes]
    assert sizes[::2] == [NODES * MEMBERS] * len(sizes[::2])  # where none was killed
    assert min(sizes) >= NODES * (MEMBERS - KILLED)
    return len({content for outcome in outcomes for _status, content in outcome})


@pytest.mark.parametrize("locks", ["1", "0"])
def test_all_members_of_a_job_load_the_same_units_while_others_publish(isolated_env: IsolatedEnv, locks: str) -> None:
    outcomes = run_jobs(isolated_env, ROUNDS, B10_LOCKS=locks)
    assert agreed(outcomes) > ROUNDS // 3, "the savers have published too little"


Rank = Callable[[int], None]


@pytest.fixture
def rank(monkeypatch: pytest.MonkeyPatch, isolated_env: IsolatedEnv) -> Rank:
    """``rank(n)`` makes this process the n-th rank of a job, with empty caches of its own."""

    def become(number: int) -> None:
        monkeypatch.setenv("B10_GROUP", "job")
        monkeypatch.setenv("TRITON_CACHE_DIR", str(isolated_env.home / f"rank{number}"))

    return become


def compile_and_save(env: IsolatedEnv, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv("TRITON_CACHE_DIR", str(env.home / "saver"))
    env.fill(env.home / "saver", {f"{name}/launcher.so": name.encode()})
    assert save().status is OperationStatus.SUCCESS


def test_group_starts_cold_if_a_pack_is_gone(
    isolated_env: IsolatedEnv, monkeypatch: pytest.MonkeyPatch, rank: Rank
) -> None:
    compile_and_save(isolated_env, monkeypatch, "A")
    rank(0)
    assert (load().status, load(merge=True).group) == (OperationStatus.SUCCESS, "followed")
    for pack in packs(isolated_env.store):
        pack.unlink()
    compile_and_save(isolated_env, monkeypatch, "B")
    started = time.monotonic()
    for number in (1, 2):
        rank(number)
        report = load(wait_for_compile_s=60)  # which a cold group does not do
        assert (report.status, report.group, report.units) == (OperationStatus.DOES_NOT_EXIST, "cold", 0)
        assert "the group job starts cold" in report.reason
    assert time.monotonic() - started < 30


def test_group_starts_cold_if_a_pack_is_damaged_and_the_next_save_heals_it(
    isolated_env: IsolatedEnv, monkeypatch: pytest.MonkeyPatch, rank: Rank
) -> None:
    compile_and_save(isolated_env, monkeypatch, "A")
    compile_and_save(isolated_env, monkeypatch, "B")
    damaged = packs(isolated_env.store)[0]
    with damaged.open("r+b") as file:  # a frame, so that only reading the files shows it
        file.seek(20)
        file.write(b"DAMAGED")
    for number in range(3):
        rank(number)
        report = load()
        assert (report.status, report.group) == (OperationStatus.DOES_NOT_EXIST, "cold"), report
        assert not list(isolated_env.home.glob(f"rank{number}/*"))
    compile_and_save(isolated_env, monkeypatch, "C")
    rank(3)
    assert load(group="the next job").units == 3


def test_group_that_finds_nothing_stays_cold_although_another_pod_saves(
    isolated_env: IsolatedEnv, monkeypatch: pytest.MonkeyPatch, rank: Rank
) -> None:
    rank(0)
    assert load().status is OperationStatus.DOES_NOT_EXIST
    compile_and_save(isolated_env, monkeypatch, "A")
    rank(1)
    report = load()
    assert (report.status, report.group) == (OperationStatus.DOES_NOT_EXIST, "followed")
    # A process that waits for a compilation loads what it gives.
    assert load(wait_for_compile_s=30).status is OperationStatus.SUCCESS
    rank(2)
    assert load(wait_for_compile_s=30).status is OperationStatus.SUCCESS


def test_member_does_not_load_what_came_after_another_member_began_to_compile(
    isolated_env: IsolatedEnv, monkeypatch: pytest.MonkeyPatch, rank: Rank
) -> None:
    rank(0)
    assert load().status is OperationStatus.DOES_NOT_EXIST
    compile_and_save(isolated_env, monkeypatch, "A")
    [environment] = isolated_env.store.glob("v1/default/*")
    (environment / "leases").mkdir(exist_ok=True)
    lease = environment / "leases" / "compile.00000001"
    lease.write_text(json.dumps({"job": job_of({}, "job")}))
    rank(1)
    report = load(wait_for_compile_s=60)
    assert report.status is OperationStatus.DOES_NOT_EXIST
    assert "another process of this group, job or pod compiles" in report.reason
    lease.unlink()
    assert load(wait_for_compile_s=60).status is OperationStatus.SUCCESS


def test_group_of_a_pod_that_may_not_write_says_so(
    isolated_env: IsolatedEnv, monkeypatch: pytest.MonkeyPatch, rank: Rank
) -> None:
    compile_and_save(isolated_env, monkeypatch, "A")
    monkeypatch.setenv("B10_READ_ONLY", "1")
    rank(0)
    report = load()
    assert report.status is OperationStatus.SUCCESS
    assert report.group.startswith("not recorded: ")


@pytest.mark.parametrize("text", ["x" * 201, "a\nb"])
def test_group_of_another_form_is_an_error(isolated_env: IsolatedEnv, text: str) -> None:
    report = load(group=text)
    assert report.status is OperationStatus.ERROR
    assert "group=" in report.reason
