"""Small fleets in simulated time, which run the project's own code."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from tests.simulation.fleet import Fleet, Outcome, Scenario
from tests.simulation.service import TERMS


def simulated(folder: Path, kind: str, replicas: int, *, waits: bool, failures: float | None = None) -> Outcome:
    terms = TERMS[kind] if failures is None else replace(TERMS[kind], failures=failures)
    return Fleet(Scenario(replicas, kind, terms, waits, pack_bytes=5_000_000), folder).run()


@pytest.mark.parametrize("kind", ["mount", "bucket"])
def test_requests_and_bytes_per_replica_do_not_grow_with_the_fleet(tmp_path: Path, kind: str) -> None:
    few, many = (simulated(tmp_path / str(count), kind, count, waits=False) for count in (5, 50))
    assert few.failed == many.failed == 0
    assert many.usage.requests / 50 <= 1.05 * few.usage.requests / 5
    assert many.usage.bytes / 50 <= 1.05 * few.usage.bytes / 5
    assert many.usage.bytes / 50 <= 1.1 * many.pack_bytes


@pytest.mark.parametrize("kind", ["mount", "bucket"])
def test_one_of_fifty_replicas_compiles_and_all_are_warm_within_three_seconds_of_its_save(
    tmp_path: Path, kind: str
) -> None:
    outcome = simulated(tmp_path, kind, 50, waits=True)
    assert (outcome.compiled, outcome.failed, len(outcome.warm_s)) == (1, 0, 50)
    assert outcome.last_warm_s < 3


def crowded(folder: Path, *, waits: bool) -> Outcome:
    """200 replicas and a bucket with a fiftieth of the usual request rate: as crowded as 10,000 replicas."""
    terms = replace(TERMS["bucket"], requests_per_s=TERMS["bucket"].requests_per_s / 50, bytes_per_s=250e6)
    return Fleet(Scenario(200, "bucket", terms, waits, pack_bytes=48_000_000), folder).run()


def test_refused_requests_are_few_and_delay_no_replica(tmp_path: Path) -> None:
    outcome = crowded(tmp_path, waits=False)
    assert outcome.failed == 0
    assert 0 < outcome.usage.refused < 5 * 200
    assert outcome.usage.bytes / 200 <= 1.05 * outcome.pack_bytes
    assert outcome.last_warm_s < 1.1 * outcome.bound_s


def test_one_replica_compiles_while_many_wait_on_a_crowded_bucket(tmp_path: Path) -> None:
    outcome = crowded(tmp_path, waits=True)
    assert (outcome.compiled, outcome.failed) == (1, 0)
    assert outcome.last_warm_s < 1.1 * outcome.bound_s


def test_every_replica_becomes_warm_despite_failing_requests(tmp_path: Path) -> None:
    outcome = simulated(tmp_path, "bucket", 50, waits=True, failures=0.2)
    assert (outcome.failed, len(outcome.warm_s)) == (0, 50)
    assert outcome.usage.failed > 0


def test_equal_seeds_give_equal_fleets(tmp_path: Path) -> None:
    one, other = (simulated(tmp_path / name, "bucket", 20, waits=True) for name in ("one", "other"))
    assert one == other
