"""Pods with different versions of a package share a store, and neither harms the other's packs."""

from __future__ import annotations

import logging
import shutil

import pytest

from b10_transfer import OperationStatus, load, save
from b10_transfer.adapters.plugins import root_name
from tests.command import command
from tests.conftest import IsolatedEnv, read_tree_of

from .conftest import Packages
from .test_broken_adapters import ADAPTER

KERNELS = [{f"{letter}/launcher.so": b"machine code " + letter.encode()} for letter in "ABCD"]


class Pod:
    """This process, as a pod with one version of the package or without it."""

    def __init__(self, pod: IsolatedEnv, packages: Packages) -> None:
        self._pod = pod
        self._packages = packages
        self.acme = pod.home / ".cache" / "acme"

    def become(self, *lines: str, number: int) -> None:
        """Start with empty caches, and with the adapter of these lines; without any the package is not there."""
        self._packages.remove("acme")
        if lines:
            module = f"acme_{number}"
            self._packages.add(
                "acme", adapters={"acme": f"{module}:Acme"}, modules={module: "\n".join([ADAPTER, *lines, ""])}
            )
        for root in (self.acme, self._pod.triton):
            shutil.rmtree(root, ignore_errors=True)

    def fill(self, number: int) -> None:
        self._pod.fill(self.acme, {"abc/kernel": b"code"})
        self._pod.fill(self._pod.triton, KERNELS[number])


@pytest.fixture
def pod(isolated_env: IsolatedEnv, packages: Packages) -> Pod:
    return Pod(isolated_env, packages)


def marks(pod: IsolatedEnv) -> list[str]:
    return sorted(path.name for path in pod.store.glob("v1/*/*/quarantine/*"))


OTHERS = {
    "another version": ["Acme.version = '2.0'"],
    "no package": [],
    "a broken package": ["1 / 0"],
    "another layout": ["Acme.layout = Layout(folder_shape('[A-Z]+', 'kernel'))", "Acme.version = '1.0'"],
    "other units": [
        "Acme.unit_of = lambda self, path: Unit(path, UnitKind.STEM)",
        "Acme.version = '1.0'",
    ],
}


@pytest.mark.parametrize("other", OTHERS)
def test_pod_that_does_not_know_the_units_loads_the_others_and_harms_nothing(
    isolated_env: IsolatedEnv, pod: Pod, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, other: str
) -> None:
    monkeypatch.setenv("B10_MAX_PACKS", "1")
    monkeypatch.setenv("B10_GRACE_SECONDS", "0")
    first = ["Acme.version = '1.0'"]
    pod.become(*first, number=1)
    pod.fill(0)
    assert save().units == 2
    pod.become(*OTHERS[other], number=2)
    report = load()
    assert (report.status, report.restored, report.rejected_packs) == (OperationStatus.SUCCESS, ("triton/A",), ())
    for number in (1, 2, 3):  # each save also merges packs, and deletes those that were merged
        pod.fill(number)
        assert save().status is OperationStatus.SUCCESS
    assert command("verify").exit_code == 0
    assert marks(isolated_env) == []
    assert [record for record in caplog.records if record.levelno >= logging.ERROR] == []
    pod.become(*first, number=3)
    assert set(load().restored) >= {"acme_v1_0/abc", "triton/A", "triton/B", "triton/C", "triton/D"}
    assert read_tree_of(pod.acme) == {"abc/kernel": b"code"}


def test_pack_of_unknown_caches_alone_is_left_alone(isolated_env: IsolatedEnv, pod: Pod) -> None:
    pod.become("Acme.version = '1.0'", number=1)
    isolated_env.fill(pod.acme, {"abc/kernel": b"code"})
    assert save().units == 1
    pod.become(number=2)
    report = load()
    assert report.status is OperationStatus.DOES_NOT_EXIST
    [rejected] = report.rejected_packs
    assert "acme_v1_0" in rejected
    assert marks(isolated_env) == []


def test_two_versions_never_have_the_same_name() -> None:
    versions = ["1.0", "1.0.0", "10", "1.0+cu130", "1.0+CU130", "1.0-a", "1_0", "v1", "1" * 10, "1" * 11, "ü", "1 0"]
    names = [root_name("a" * 20, version) for version in versions]
    assert len(set(names)) == len(names)
    assert max(map(len, names)) <= 32
    assert root_name("acme", "1.0") == "acme_v1_0"
