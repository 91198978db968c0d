"""Fleets in simulated time, small ones: the project's own code, and what must hold of it in a fleet of any size."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.simulate import TERMS
from benchmarks.simulation.fleet import Fleet, Outcome, Scenario


def simulated(folder: Path, kind: str, replicas: int, *, waits: bool, failures: float | None = None) -> Outcome:
    terms = TERMS[kind] if failures is None else replace(TERMS[kind], failures=failures)
    return Fleet(Scenario(replicas, kind, terms, waits, pack_bytes=5_000_000), folder).run()


@pytest.mark.parametrize("kind", ["mount", "bucket"])
def test_requests_and_bytes_of_a_replica_do_not_grow_with_the_fleet(tmp_path: Path, kind: str) -> None:
    few, many = (simulated(tmp_path / str(count), kind, count, waits=False) for count in (5, 50))
    assert few.failed == many.failed == 0
    assert many.usage.requests / 50 <= 1.05 * few.usage.requests / 5
    assert many.usage.bytes / 50 <= 1.05 * few.usage.bytes / 5
    assert many.usage.bytes / 50 <= 1.1 * many.pack_bytes


@pytest.mark.parametrize("kind", ["mount", "bucket"])
def test_one_of_fifty_compiles_and_all_are_warm_soon_after_its_save(tmp_path: Path, kind: str) -> None:
    outcome = simulated(tmp_path, kind, 50, waits=True)
    assert (outcome.compiled, outcome.failed, len(outcome.warm_s)) == (1, 0, 50)
    assert outcome.last_warm_s < 3


def crowded(folder: Path, *, waits: bool) -> Outcome:
    """200 replicas at a bucket that takes as many requests a second as that of ``TERMS`` does for 10,000."""
    terms = replace(TERMS["bucket"], requests_per_s=TERMS["bucket"].requests_per_s / 50, bytes_per_s=250e6)
    return Fleet(Scenario(200, "bucket", terms, waits, pack_bytes=48_000_000), folder).run()


def test_crowded_bucket_is_asked_little_more_and_no_later(tmp_path: Path) -> None:
    outcome = crowded(tmp_path, waits=False)
    assert outcome.failed == 0
    assert 0 < outcome.usage.refused < 5 * 200
    assert outcome.usage.bytes / 200 <= 1.05 * outcome.pack_bytes
    assert outcome.last_warm_s < 1.1 * outcome.bound_s


def test_one_compiles_though_the_bucket_is_crowded_with_waiters(tmp_path: Path) -> None:
    outcome = crowded(tmp_path, waits=True)
    assert (outcome.compiled, outcome.failed) == (1, 0)
    assert outcome.last_warm_s < 1.1 * outcome.bound_s


def test_every_replica_of_a_failing_service_is_warm_in_the_end(tmp_path: Path) -> None:
    outcome = simulated(tmp_path, "bucket", 50, waits=True, failures=0.2)
    assert (outcome.failed, len(outcome.warm_s)) == (0, 50)
    assert outcome.usage.failed > 0


def test_equal_seeds_give_equal_fleets(tmp_path: Path) -> None:
    one, other = (simulated(tmp_path / name, "bucket", 20, waits=True) for name in ("one", "other"))
    assert one == other
