"""A store of another package that is broken makes a load and a save an ERROR that names the package."""

from __future__ import annotations

import logging

import pytest

from b10_transfer import OperationStatus, load, save
from tests.conftest import IsolatedEnv

from .conftest import Packages

FACTORIES = {
    "missing module": "no_such_module_at_all:open_store",
    "missing attribute": "acme_store:missing",
    "no entry point": "acme_store",
    "wrong type": "acme_store:wrong_type",
    "not callable": "acme_store:constant",
    "raises": "acme_store:raises",
    "exits": "acme_store:exits",
    "exits when imported": "acme_exits:open_store",
}
MODULES = {
    "acme_store": """
import os, sys, time
constant = 1
def wrong_type(url, timeout_s):
    return {}
def raises(url, timeout_s):
    raise RuntimeError("no such database")
def exits(url, timeout_s):
    sys.exit(3)
def hangs(url, timeout_s):
    time.sleep(600)
def dies(url, timeout_s):
    os._exit(3)
def prints(url, timeout_s):
    print("x" * 100_000, flush=True)
    from b10_transfer.testing import MemoryStore
    return MemoryStore()
""",
    "acme_exits": "import sys\nsys.exit('not supported here')\n",
}


@pytest.mark.parametrize("fault", FACTORIES)
def test_broken_store_is_an_error_that_names_the_package(
    isolated_env: IsolatedEnv, packages: Packages, fault: str
) -> None:
    packages.add("acme", stores={"acme": FACTORIES[fault]}, modules=MODULES)
    report = load(store="acme://place")
    assert report.status is OperationStatus.ERROR
    assert "acme 1.0" in report.reason
    isolated_env.fill(isolated_env.triton, {"KERNEL/launcher.so": b"x"})
    assert save(store="acme://place").status is OperationStatus.ERROR


def test_store_that_hangs_costs_no_more_than_the_deadline(isolated_env: IsolatedEnv, packages: Packages) -> None:
    packages.add("acme", stores={"acme": "acme_store:hangs"}, modules=MODULES)
    report = load(store="acme://place", deadline_s=1.5)
    assert report.status is OperationStatus.ERROR
    assert "gave up after its deadline" in report.reason


def test_store_that_crashes_is_an_error(isolated_env: IsolatedEnv, packages: Packages) -> None:
    packages.add("acme", stores={"acme": "acme_store:dies"}, modules=MODULES)
    report = load(store="acme://place")
    assert report.status is OperationStatus.ERROR
    assert "worker process ended" in report.reason


def test_store_that_prints_does_not_disturb_the_worker(isolated_env: IsolatedEnv, packages: Packages) -> None:
    packages.add("acme", stores={"acme": "acme_store:prints"}, modules=MODULES)
    assert load(store="acme://place").status is OperationStatus.DOES_NOT_EXIST


def test_broken_store_that_is_not_configured_is_not_imported(
    isolated_env: IsolatedEnv, packages: Packages, caplog: pytest.LogCaptureFixture
) -> None:
    packages.add("acme", stores={"acme": "acme_exits:open_store"}, modules=MODULES)
    assert load().status is OperationStatus.DOES_NOT_EXIST
    assert [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING] == []


def test_second_package_with_a_scheme_is_ignored_with_one_warning(
    isolated_env: IsolatedEnv, packages: Packages, caplog: pytest.LogCaptureFixture
) -> None:
    packages.add("acme", stores={"acme": "acme_store:prints"}, modules=MODULES)
    packages.add("zebra", stores={"acme": "no_such_module:open_store"})
    for _ in range(2):
        assert load(store="acme://place").status is OperationStatus.DOES_NOT_EXIST
    [warning] = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert "zebra 1.0" in warning
    assert "acme 1.0" in warning


@pytest.mark.parametrize("scheme", ["s3", "file", "gs"])
def test_package_does_not_take_a_scheme_of_b10_transfer(
    isolated_env: IsolatedEnv, packages: Packages, caplog: pytest.LogCaptureFixture, scheme: str
) -> None:
    packages.add("acme", stores={scheme: "acme_store:prints", "other": "acme_store:prints"}, modules=MODULES)
    assert load(store="other://place").status is OperationStatus.DOES_NOT_EXIST
    assert f"acme 1.0 adds stores at {scheme}://, which is ignored" in caplog.text
    assert load(store=f"file://{isolated_env.store}").status is OperationStatus.DOES_NOT_EXIST
    assert not isolated_env.store.exists()


@pytest.mark.parametrize("url", ["acme://user:secret@host/x", "acme://", "acme://a b", "acme://a\n"])
def test_url_that_no_store_is_given(isolated_env: IsolatedEnv, packages: Packages, url: str) -> None:
    packages.add("acme", stores={"acme": "acme_store:prints"}, modules=MODULES)
    report = load(store=url)
    assert report.status is OperationStatus.ERROR
    assert "printable ASCII" in report.reason
    assert "secret" not in report.reason
