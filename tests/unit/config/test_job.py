"""Ranks of one job have the same id, and other processes another one or none."""

from __future__ import annotations

import pytest

from b10_transfer.config.job import job_of

TORCHRUN = {"MASTER_ADDR": "10.0.0.1", "MASTER_PORT": "29500", "WORLD_SIZE": "4"}


def test_ranks_of_a_job_agree() -> None:
    ids = {job_of(TORCHRUN | {"RANK": str(rank), "LOCAL_RANK": str(rank)}) for rank in range(4)}
    assert len(ids) == 1
    assert ids != {""}


@pytest.mark.parametrize("other", [{"MASTER_ADDR": "10.0.0.2"}, {"MASTER_PORT": "29501"}])
def test_jobs_differ(other: dict[str, str]) -> None:
    assert job_of(TORCHRUN | other) != job_of(TORCHRUN)


@pytest.mark.parametrize("size", [{"WORLD_SIZE": "1"}, {"WORLD_SIZE": ""}])
def test_process_alone_belongs_to_no_job(size: dict[str, str]) -> None:
    assert job_of(TORCHRUN | size) == ""
    assert job_of({}) == ""


def test_job_whose_address_is_this_machine_differs_on_each_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    ids = set()
    for host in ("pod-1", "pod-2"):
        monkeypatch.setattr("socket.gethostname", lambda host=host: host)
        ids.add(job_of(TORCHRUN | {"MASTER_ADDR": "localhost"}))
    assert len(ids) == 2


def test_steps_of_slurm_are_jobs() -> None:
    step = {"SLURM_NTASKS": "2", "SLURM_JOB_ID": "7", "SLURM_STEP_ID": "0"}
    assert job_of(step) == job_of(step | {"SLURM_PROCID": "1"}) != ""
    assert job_of(step) != job_of(step | {"SLURM_STEP_ID": "1"})


def test_group_comes_before_the_job() -> None:
    assert job_of(TORCHRUN, "a") == job_of({}, "a") != ""
    assert len({job_of({}, "a"), job_of({}, "b"), job_of(TORCHRUN)}) == 3


def test_processes_of_a_pod_belong_together_unless_they_are_in_a_job(monkeypatch: pytest.MonkeyPatch) -> None:
    kubernetes = {"KUBERNETES_SERVICE_HOST": "10.0.0.1"}
    here = job_of(kubernetes)
    assert here == job_of(kubernetes | {"RANK": "1"}) != ""
    assert job_of(kubernetes | TORCHRUN) == job_of(TORCHRUN)
    monkeypatch.setattr("socket.gethostname", lambda: "another-pod")
    assert job_of(kubernetes) not in ("", here)


def test_containers_of_one_node_differ(monkeypatch: pytest.MonkeyPatch) -> None:
    """With hostNetwork both have the node's host name."""
    ids = set()
    for namespace in ("pid:[1]", "pid:[2]"):
        monkeypatch.setattr("os.readlink", lambda _path, namespace=namespace: namespace)
        ids.add(job_of({"KUBERNETES_SERVICE_HOST": "10.0.0.1"}))
    assert len(ids) == 2


def test_size_without_an_address_is_no_job() -> None:
    assert job_of({"WORLD_SIZE": "4"}) == ""


def test_values_that_are_no_text_are_accepted() -> None:
    assert job_of(TORCHRUN | {"MASTER_PORT": "\udcff"}) != ""
