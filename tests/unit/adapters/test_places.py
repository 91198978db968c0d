"""Directories that clearly hold something else are no caches, and the variable that names one is named."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from b10_transfer import OperationStatus, load, save
from b10_transfer.adapters import locate_caches
from b10_transfer.config import Config
from tests.command import command
from tests.conftest import IsolatedEnv
from tests.shapes import KERNEL, TRITON

PLACES = ["/", "/tmp", "/var/tmp", "/dev/shm", "~", "~/..", "~/.cache", "~/.config", "~/.cache/huggingface", "~/.ssh"]


def refused(name: str) -> str:
    return str(locate_caches(Config.from_environment()).refused.get(name, ""))


@pytest.mark.parametrize("place", PLACES)
def test_directory_with_another_use_is_refused_by_name(
    isolated_env: IsolatedEnv, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    monkeypatch.setenv("TRITON_CACHE_DIR", place.replace("~", str(isolated_env.home)))
    assert "TRITON_CACHE_DIR" in refused("triton")
    assert "is " in refused("triton")
    assert "inductor" not in locate_caches(Config.from_environment()).refused


@pytest.mark.parametrize(
    "variable", ["TRITON_CACHE_DIR", "TILELANG_CACHE_DIR", "TORCH_EXTENSIONS_DIR", "SGLANG_JIT_CACHE_DIR"]
)
def test_each_variable_is_checked(isolated_env: IsolatedEnv, monkeypatch: pytest.MonkeyPatch, variable: str) -> None:
    monkeypatch.setenv(variable, str(isolated_env.home))
    found = locate_caches(Config.from_environment()).refused
    assert [error.variable for error in found.values()] == [variable]


@pytest.mark.parametrize("variable", ["HF_HOME", "HF_HUB_CACHE", "TORCH_HOME", "XDG_CACHE_HOME"])
def test_model_hub_elsewhere_is_refused(
    isolated_env: IsolatedEnv, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    hub = isolated_env.home / "data"
    monkeypatch.setenv(variable, str(hub))
    monkeypatch.setenv("TRITON_CACHE_DIR", str(hub))
    assert "TRITON_CACHE_DIR" in refused("triton")
    monkeypatch.setenv("TRITON_CACHE_DIR", str(hub / "models--org--name" / "blobs"))
    assert "model hub" in refused("triton")
    monkeypatch.setenv("TRITON_CACHE_DIR", str(hub / "kernels"))
    assert not refused("triton")


def test_link_to_the_home_directory_is_refused(
    isolated_env: IsolatedEnv, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "link").symlink_to(isolated_env.home)
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path / "link"))
    assert "home directory" in refused("triton")


def test_directory_in_the_store_is_refused(isolated_env: IsolatedEnv, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRITON_CACHE_DIR", str(isolated_env.store / "kernels"))
    assert "store" in refused("triton")


def test_token_and_weights_beside_a_kernel_stay_where_they_are(
    isolated_env: IsolatedEnv, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A job script points a compiler's variable at the directory that holds everything else, too."""
    secrets = {
        "huggingface/token": b"hf_secret",
        "huggingface/hub/models--m/blobs/0a": b"weights",
        "config.json": b"{}",
    }
    shared = isolated_env.home / "scratch"
    isolated_env.fill(shared, {**TRITON, **secrets})
    monkeypatch.setenv("TRITON_CACHE_DIR", str(shared))
    assert save().units == 2
    pod = isolated_env.home / "another"
    monkeypatch.setenv("TRITON_CACHE_DIR", str(pod))
    assert load().units == 2
    assert (pod / KERNEL / "kernel.cubin").exists()
    assert sorted(path.name for path in pod.iterdir()) == sorted({path.split("/")[0] for path in TRITON})
    monkeypatch.setenv("TRITON_CACHE_DIR", str(shared))
    assert "(2 entries not recognised)" in command("info").stdout
    assert command("clear", "--cache", "triton").exit_code == 0
    assert sorted(path.name for path in shared.iterdir()) == ["config.json", "huggingface"]
    monkeypatch.setenv("TRITON_CACHE_DIR", str(isolated_env.home / ".cache"))
    with caplog.at_level(logging.ERROR):
        assert save().status is not OperationStatus.SUCCESS
    assert "TRITON_CACHE_DIR" in caplog.text
