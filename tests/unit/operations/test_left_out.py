"""A cache that cannot be used is named once, and decides the status only if there is no other one."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

from b10_transfer import LocalCacheError, OperationStatus, load, save
from b10_transfer.local.left_out import log_left_out

if TYPE_CHECKING:
    from tests.conftest import IsolatedEnv

KERNEL = {"KEY/launcher.so": b"machine code"}
GRAPH = {"fxgraph/ab/fabkey/graph": b"a graph"}
Break = Callable[["IsolatedEnv", pytest.MonkeyPatch], str]


def relative(_env: IsolatedEnv, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("TRITON_CACHE_DIR", "./kernels")
    return "TRITON_CACHE_DIR='./kernels' is not usable: it must be an absolute path"


def open_to_all(env: IsolatedEnv, _monkeypatch: pytest.MonkeyPatch) -> str:
    env.triton.mkdir(parents=True, exist_ok=True)
    env.triton.chmod(0o777)
    return f"every user can write to {env.triton}"


def model_hub(env: IsolatedEnv, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("TRITON_CACHE_DIR", str(env.home))
    return f"TRITON_CACHE_DIR='{env.home}' is not usable"


each_fault = pytest.mark.parametrize("fault", [relative, open_to_all, model_hub], ids=lambda fault: fault.__name__)


def lines(caplog: pytest.LogCaptureFixture, cause: str) -> list[str]:
    return [record.levelname for record in caplog.records if cause in record.getMessage() and record.levelno > 10]


@each_fault
@pytest.mark.parametrize("merge", [False, True])
def test_load_into_the_other_cache_is_no_error(
    isolated_env: IsolatedEnv,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    fault: Break,
    merge: bool,
) -> None:
    isolated_env.fill(isolated_env.triton, KERNEL)
    isolated_env.fill(isolated_env.inductor, GRAPH)
    assert save().units == 2
    shutil.rmtree(isolated_env.triton)
    shutil.rmtree(isolated_env.inductor)
    cause = fault(isolated_env, monkeypatch)
    first, second = load(merge=merge), load(merge=merge)
    assert (first.status, first.units) == (OperationStatus.SUCCESS, 1)
    assert second.status is OperationStatus.SKIPPED  # everything that can be restored is in place
    assert len(lines(caplog, cause)) == 1


@each_fault
def test_save_of_the_other_cache_is_no_error(
    isolated_env: IsolatedEnv, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, fault: Break
) -> None:
    isolated_env.fill(isolated_env.inductor, GRAPH)
    cause = fault(isolated_env, monkeypatch)
    assert [save().status for _ in range(2)] == [OperationStatus.SUCCESS, OperationStatus.SKIPPED]
    assert len(lines(caplog, cause)) == 1


@each_fault
def test_operation_that_has_nothing_else_to_do_is_one_error(
    isolated_env: IsolatedEnv, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, fault: Break
) -> None:
    isolated_env.fill(isolated_env.triton, KERNEL)
    assert save().units == 1
    shutil.rmtree(isolated_env.triton)
    caplog.clear()
    cause = fault(isolated_env, monkeypatch)
    for operation in (load, save):
        report = operation()
        assert report.status is OperationStatus.ERROR
        assert cause in report.reason
        assert lines(caplog, cause) == ["ERROR"]
        caplog.clear()


def test_each_cause_is_a_line_of_its_own(
    isolated_env: IsolatedEnv, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("TRITON_CACHE_DIR", "./kernels")
    monkeypatch.setenv("VLLM_CACHE_ROOT", str(isolated_env.home / "open"))
    (isolated_env.home / "open").mkdir(parents=True)
    (isolated_env.home / "open").chmod(0o777)
    with caplog.at_level(logging.INFO, "b10_transfer"):
        assert load().status is OperationStatus.DOES_NOT_EXIST
    left_out = [record.getMessage() for record in caplog.records if "left out" in record.getMessage()]
    assert len(left_out) == 2
    assert "more cache directories likewise" in next(line for line in left_out if "every user" in line)


@pytest.mark.parametrize(
    ("number", "said"),
    [
        (1, "; this cache is"),
        (2, " (and 1 more cache directory likewise); these caches are"),
        (3, " 2 more cache directories"),
    ],
)
def test_line_counts_the_caches_of_one_cause(caplog: pytest.LogCaptureFixture, number: int, said: str) -> None:
    cause = f"every user can write to a folder above {number}"
    log_left_out({str(cache): LocalCacheError("use", f"/{cache}", cause) for cache in range(number)})
    [line] = caplog.messages
    assert said in line
