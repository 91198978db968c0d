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


@pytest.mark.parametrize(("kind", "most_requests"), [("mount", 6), ("bucket", 1)])
def test_record_of_use_costs_few_requests_once_a_day(tmp_path: Path, kind: str, most_requests: int) -> None:
    def requests(name: str, *, is_used_today: bool) -> float:
        scenario = Scenario(50, kind, TERMS[kind], False, 5_000_000, is_used_today, start_within_s=0)
        fleet = Fleet(scenario, tmp_path / name)
        count = fleet.run().usage.requests / 50
        [folder] = fleet.contents.objects.folders("v1/default")
        assert len(fleet.contents.objects.list(f"{folder}/used")) == 1
        return count

    first, later = requests("first", is_used_today=False), requests("later", is_used_today=True)
    assert 0.5 < first - later <= most_requests + 0.2  # lost requests are repeated


@pytest.mark.parametrize("kind", ["mount", "bucket"])
def test_fleet_is_warm_in_proportion_to_the_bytes_that_starts_use(tmp_path: Path, kind: str) -> None:
    """As crowded as 10,000 replicas behind 20 Gbit/s: a fiftieth of them, and of the bandwidth."""
    terms = replace(TERMS[kind], bytes_per_s=2.5e9 / 50)
    scenario = Scenario(200, kind, terms, False, pack_bytes=20_000_000)
    everything = Fleet(scenario, tmp_path / "everything").run()
    used = Fleet(replace(scenario, used=5), tmp_path / "used").run()
    assert everything.failed == used.failed == 0
    assert used.usage.bytes < 0.15 * everything.usage.bytes
    assert used.usage.requests <= everything.usage.requests + 7 * 200  # for the record, or on a mount for its folder
    assert used.last_warm_s < 0.2 * everything.last_warm_s


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
