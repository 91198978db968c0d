"""The public names of the published 0.4.1, as programs that were written for it call them."""

from __future__ import annotations

import errno
import http.server
import inspect
import logging
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator

import pytest

import b10_transfer
from b10_transfer import (
    CacheError,
    CacheOperationInterrupted,
    CacheValidationError,
    OperationStatus,
    clear_local_cache,
    get_b10_logger,
    get_cache_info,
    list_available_caches,
    load_compile_cache,
    save_compile_cache,
    save_vllm_compile_cache,
    transfer,
)
from b10_transfer.environment import detect
from b10_transfer.errors import ConfigurationError, CorruptPackError, NoSpaceError
from tests.command import Publisher, pod_like_this
from tests.conftest import IsolatedEnv

MIB = 1024 * 1024
ARTIFACT = {"fxgraph/ke/fkey/graph": b"a graph" * 1000}


@pytest.fixture
def store_is_missing(isolated_env: IsolatedEnv, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("B10_STORE", str(isolated_env.home / "missing" / "store"))


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("get_cache_info", []),
        ("list_available_caches", []),
        ("clear_local_cache", []),
        ("save_vllm_compile_cache", []),
        ("transfer", ["source", "dest"]),
        ("get_b10_logger", ["name"]),
    ],
)
def test_functions_are_called_as_before(name: str, parameters: list[str]) -> None:
    assert list(inspect.signature(getattr(b10_transfer, name)).parameters) == parameters


def test_importing_the_package_imports_none_of_it() -> None:
    program = "import sys, b10_transfer; print([name for name in sys.modules if name.startswith('b10_transfer.')])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "['b10_transfer.version']\n"


def test_info_of_a_pod_and_a_store_without_anything(isolated_env: IsolatedEnv) -> None:
    assert get_cache_info() == {
        "environment_key": detect().id,
        "local_cache_exists": False,
        "b10fs_enabled": True,
        "b10fs_cache_exists": False,
    }


def test_info_has_sizes_of_existing_caches(isolated_env: IsolatedEnv) -> None:
    isolated_env.fill(isolated_env.inductor, ARTIFACT)
    save_compile_cache()
    [pack] = isolated_env.store.glob("v1/*/*/packs/*")
    assert get_cache_info() == {
        "environment_key": detect().id,
        "local_cache_exists": True,
        "b10fs_enabled": True,
        "b10fs_cache_exists": True,
        "local_cache_size_mb": 7000 / MIB,
        "b10fs_cache_size_mb": pack.stat().st_size / MIB,
    }


@pytest.mark.usefixtures("store_is_missing")
def test_info_with_a_missing_store_reports_it_and_raises_nothing(
    isolated_env: IsolatedEnv, caplog: pytest.LogCaptureFixture
) -> None:
    isolated_env.fill(isolated_env.inductor, ARTIFACT)
    info = get_cache_info()
    assert (info["local_cache_exists"], info["b10fs_enabled"], info["b10fs_cache_exists"]) == (True, False, False)
    assert "is the volume mounted?" in caplog.text


def test_info_with_a_broken_setting_raises_nothing(isolated_env: IsolatedEnv, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", "/etc")
    assert get_cache_info()["local_cache_exists"] is False


def test_list_of_an_empty_store(isolated_env: IsolatedEnv) -> None:
    assert list_available_caches() == {
        "caches": [],
        "current_environment": detect().id,
        "total_caches": 0,
        "current_cache_exists": False,
        "b10fs_enabled": True,
    }


def test_list_names_each_pack_of_the_namespace_newest_first(isolated_env: IsolatedEnv) -> None:
    mine = Publisher(isolated_env.store, detect())
    other = Publisher(isolated_env.store, pod_like_this(torch="2.12.0"))
    Publisher(isolated_env.store, detect(), "other-team").publish()
    old, new, aside = other.publish(), mine.publish(), mine.publish()
    (mine.folder / "quarantine").mkdir()
    (mine.folder / "quarantine" / aside.name.removesuffix(".tar.zst")).write_text("{}")
    os.utime(old, (1_700_000_000, 1_700_000_000))
    found = list_available_caches()
    caches = found.pop("caches")
    assert found == {
        "current_environment": mine.environment.id,
        "total_caches": 2,
        "current_cache_exists": True,
        "b10fs_enabled": True,
    }
    assert caches == [
        {
            "filename": new.name,
            "environment_key": mine.environment.id,
            "size_mb": new.stat().st_size / MIB,
            "is_current_environment": True,
            "created_time": new.stat().st_mtime,
        },
        {
            "filename": old.name,
            "environment_key": other.environment.id,
            "size_mb": old.stat().st_size / MIB,
            "is_current_environment": False,
            "created_time": 1_700_000_000.0,
        },
    ]


@pytest.mark.usefixtures("store_is_missing")
def test_list_where_the_store_is_missing_has_an_error(isolated_env: IsolatedEnv) -> None:
    found = list_available_caches()
    assert (found["caches"], found["b10fs_enabled"]) == ([], False)
    assert "is the volume mounted?" in found["error"]


def test_cleared_cache_does_not_exist_and_is_loaded_again(isolated_env: IsolatedEnv) -> None:
    isolated_env.fill(isolated_env.inductor, ARTIFACT)
    save_compile_cache()
    assert clear_local_cache() is True
    assert get_cache_info()["local_cache_exists"] is False
    assert load_compile_cache() is OperationStatus.SUCCESS


def test_clearing_missing_caches_is_true(isolated_env: IsolatedEnv) -> None:
    assert clear_local_cache() is True


@pytest.mark.parametrize("failure", ["a file that stays", "a broken setting"])
def test_cache_that_cannot_be_cleared_is_false(
    isolated_env: IsolatedEnv, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, failure: str
) -> None:
    isolated_env.fill(isolated_env.inductor, ARTIFACT)

    unlink = os.unlink

    def refuse(path: str, *, dir_fd: int | None = None) -> None:
        if path == "graph":
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        unlink(path, dir_fd=dir_fd)

    if failure == "a file that stays":
        monkeypatch.setattr(os, "unlink", refuse)
    else:
        monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", "/etc")
    assert clear_local_cache() is False
    assert ("fxgraph/ke/fkey/graph" if failure == "a file that stays" else "TORCHINDUCTOR_CACHE_DIR") in caplog.text


def test_transfer_copies_a_file_with_its_time_and_mode(isolated_env: IsolatedEnv) -> None:
    source, dest = isolated_env.home / "source", isolated_env.home / "new" / "folder" / "dest"
    source.write_bytes(b"content" * MIB)
    source.chmod(0o640)
    os.utime(source, ns=(1, 1_600_000_000_123_456_789))
    assert transfer(str(source), str(dest)) is OperationStatus.SUCCESS
    assert dest.read_bytes() == source.read_bytes()
    status = dest.stat()
    assert (status.st_mode & 0o777, status.st_mtime_ns) == (0o640, 1_600_000_000_123_456_789)
    assert [path.name for path in dest.parent.iterdir()] == ["dest"]


def test_transfer_replaces_a_file_and_copies_into_a_folder(isolated_env: IsolatedEnv) -> None:
    source, dest = isolated_env.home / "source", isolated_env.home / "dest"
    source.write_text("new")
    dest.write_text("old")
    assert transfer(str(source), str(dest)) is OperationStatus.SUCCESS
    assert dest.read_text() == "new"
    assert transfer(str(source), str(isolated_env.work)) is OperationStatus.SUCCESS
    assert (isolated_env.work / "source").read_text() == "new"


@pytest.mark.parametrize("source", ["missing", "folder"])
def test_transfer_of_a_missing_file_is_a_logged_error(
    isolated_env: IsolatedEnv, caplog: pytest.LogCaptureFixture, source: str
) -> None:
    (isolated_env.home / "folder").mkdir()
    dest = isolated_env.home / "dest"
    assert transfer(str(isolated_env.home / source), str(dest)) is OperationStatus.ERROR
    assert not dest.exists()
    assert str(isolated_env.home / source) in caplog.text


def test_transfer_without_space_keeps_the_earlier_file(
    isolated_env: IsolatedEnv, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    source, dest = isolated_env.home / "source", isolated_env.home / "dest"
    source.write_text("new content")
    dest.write_text("old")
    usage = shutil.disk_usage(isolated_env.home)._replace(free=3)
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: usage)
    assert transfer(str(source), str(dest)) is OperationStatus.ERROR
    assert dest.read_text() == "old"
    assert "has 3 bytes free" in caplog.text


class _Ready(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[str]:
    """A server that is ready; its URL."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Ready) as listening:
        thread = threading.Thread(target=listening.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{listening.server_port}/v1/models"
        listening.shutdown()
        thread.join()


def test_vllm_cache_is_loaded_and_saved_when_the_server_is_ready(
    isolated_env: IsolatedEnv, monkeypatch: pytest.MonkeyPatch, server: str
) -> None:
    monkeypatch.setenv("B10_TRANSFER_VLLM_URL", server)
    Publisher(isolated_env.store, detect()).publish({"triton/STORED/": {"launcher.so": b"x"}})
    isolated_env.fill(isolated_env.triton, {"MINE/launcher.so": b"y"})
    save_vllm_compile_cache()
    assert (isolated_env.triton / "STORED" / "launcher.so").read_bytes() == b"x"
    assert len(list(isolated_env.store.glob("v1/*/*/packs/*"))) == 2


def test_complete_artifacts_of_a_vllm_server_that_is_never_ready_are_saved(
    isolated_env: IsolatedEnv, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("B10_TRANSFER_VLLM_URL", "http://127.0.0.1:9/")
    monkeypatch.setenv("B10_TRANSFER_TIMEOUT_S", "0.05")
    monkeypatch.setenv("B10_TRANSFER_INTERVAL_S", "0.01")
    isolated_env.fill(isolated_env.triton, {"MINE/launcher.so": b"y"})
    save_vllm_compile_cache()
    assert "no server answered within B10_TRANSFER_TIMEOUT_S" in caplog.text
    assert len(list(isolated_env.store.glob("v1/*/*/packs/*"))) == 1


def test_logger_that_is_created_twice_writes_each_line_once(capsys: pytest.CaptureFixture[str]) -> None:
    logger = get_b10_logger("a program of 0.4.1")
    try:
        assert get_b10_logger("a program of 0.4.1") is logger
        logger.debug("not shown")
        logger.info("half of %d", 2)
        assert capsys.readouterr().err == "INFO - [b10-transfer] half of 2\n"
        assert (logger.level, logger.propagate) == (logging.INFO, False)
    finally:
        logger.handlers.clear()


def test_exceptions_have_their_earlier_bases() -> None:
    assert isinstance(ConfigurationError("NAME", "value", "rule"), CacheValidationError)
    assert isinstance(CorruptPackError("pack", "damaged"), CacheValidationError)
    assert isinstance(NoSpaceError("/", 2, 1), CacheOperationInterrupted)
    for exception in (CacheValidationError, CacheOperationInterrupted):
        assert issubclass(exception, CacheError)
        assert str(exception("message")) == "message"


def test_wrong_setting_is_a_validation_error_in_the_report(
    isolated_env: IsolatedEnv, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MAX_CACHE_SIZE_MB", "many")
    assert isinstance(b10_transfer.load().error, CacheValidationError)
