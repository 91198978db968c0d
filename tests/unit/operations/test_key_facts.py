"""What only a compiler's keys hold is recorded beside a pack, and named where it differs."""

from __future__ import annotations

import json
import logging
import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from b10_transfer import load, save
from b10_transfer.adapters import CacheRoot, find_adapter
from b10_transfer.adapters.key_facts import cuda_home, package
from b10_transfer.config.reader import EnvReader
from b10_transfer.environment import detect
from b10_transfer.launcher.explanation import with_differences
from b10_transfer.operations.key_facts import facts_of
from b10_transfer.operations.public import cache_report
from b10_transfer.status import OperationStatus
from tests.command import Publisher, command
from tests.shapes import ARTIFACTS, INDUCTOR_KEY

if TYPE_CHECKING:
    from tests.conftest import IsolatedEnv


def facts(cache: str, env: dict[str, str], accelerator: str = "cuda") -> dict[str, str]:
    adapter = find_adapter(cache)
    assert adapter is not None
    environment = detect()
    environment = replace(environment, parts={**environment.parts, "accelerator": accelerator})
    return facts_of([CacheRoot(adapter, Path("/caches"))], environment, EnvReader(env))


@pytest.fixture
def kernels(isolated_env: IsolatedEnv, monkeypatch: pytest.MonkeyPatch) -> Path:
    """DeepGEMM's kernels, compiled with CUDA in one place."""
    monkeypatch.setenv("CUDA_HOME", "/opt/cuda-12.9")
    folder = isolated_env.home / ".deep_gemm"
    isolated_env.fill(folder, ARTIFACTS["deep_gemm"])
    return folder


@pytest.fixture
def graphs(isolated_env: IsolatedEnv, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A graph for CPUs, compiled for two threads."""
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    isolated_env.fill(isolated_env.inductor, {f"dq/{INDUCTOR_KEY}.py": b"source"})
    return isolated_env.inductor


def restored_elsewhere(folder: Path, monkeypatch: pytest.MonkeyPatch, variable: str, value: str) -> None:
    """Save, and load with an empty cache and another value of a variable."""
    assert save().status is OperationStatus.SUCCESS
    shutil.rmtree(folder)
    monkeypatch.setenv(variable, value)


def test_cuda_home_is_found_as_compilers_find_it(tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "nvcc").write_text("#!/bin/sh\n")
    (tmp_path / "bin" / "nvcc").chmod(0o755)
    path = f"/nowhere{os.pathsep}{tmp_path / 'bin'}"
    assert cuda_home(EnvReader({"PATH": path})) == {"CUDA home": str(tmp_path)}
    assert cuda_home(EnvReader({"PATH": path, "CUDA_PATH": "/b"})) == {"CUDA home": "/b"}
    assert cuda_home(EnvReader({"PATH": path, "CUDA_PATH": "/b", "CUDA_HOME": "/a"})) == {"CUDA home": "/a"}
    assert cuda_home(EnvReader({"PATH": "/nowhere"})) == {"CUDA home": "/usr/local/cuda"}


def test_package_is_found_without_being_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "a_server"
    (folder / "third_party" / "deep_gemm").mkdir(parents=True)
    (folder / "__init__.py").write_text("raise SystemExit")
    monkeypatch.syspath_prepend(tmp_path)
    assert package("a_server") == {"path of a_server": str(folder)}
    assert package("a_server", "third_party/deep_gemm") == {
        "path of deep_gemm": str(folder / "third_party" / "deep_gemm")
    }
    assert package("a_server", "missing") == {}
    assert package("no_such_package") == {}


def test_threads_count_only_for_kernels_of_cpus() -> None:
    assert facts("inductor", {"OMP_NUM_THREADS": "4"}, "cpu")["inductor/number of threads"] == "4"
    assert facts("vllm", {"OMP_NUM_THREADS": "4,2"}, "cpu")["vllm/number of threads"] == "4"
    assert facts("inductor", {"OMP_NUM_THREADS": "4"}, "cuda") == {}


@pytest.mark.parametrize("text", ["", "many", "0", "-3"])
def test_threads_are_the_usable_cpus_unless_a_number_is_set(text: str) -> None:
    expected = str(len(os.sched_getaffinity(0)))
    assert facts("inductor", {"OMP_NUM_THREADS": text}, "cpu")["inductor/number of threads"] == expected


@pytest.mark.parametrize("cache", ["cute_dsl", "jax"])
def test_path_of_the_cache_is_known_where_keys_hold_it(cache: str) -> None:
    assert facts(cache, {})[f"{cache}/path of the cache"] == "/caches"


def test_home_directory_is_in_the_keys_of_earlier_releases_of_vllm(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/pod")
    assert facts("vllm", {}) == {"vllm/home directory (up to vLLM 0.26)": "/home/pod"}


def test_working_directory_that_is_gone_stops_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    assert facts("cute_dsl", {}) == {}


def test_path_that_differs_is_named_by_load_and_explain(kernels: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = "the keys of deep_gemm hold the CUDA home: /opt/cuda-12.9 on the pod that saved, /usr/cuda here"
    restored_elsewhere(kernels, monkeypatch, "CUDA_HOME", "/usr/cuda")
    assert command("explain", "--json").json["key_differences"] == [expected]
    assert f"warning: {expected}" in command("explain").stdout
    report = load()
    assert report.status is OperationStatus.SUCCESS
    assert report.key_differences == (expected,)


def test_equal_pods_have_no_differences(kernels: Path) -> None:
    assert save().status is OperationStatus.SUCCESS
    shutil.rmtree(kernels)
    assert command("explain", "--json").json["key_differences"] == []
    assert load().key_differences == ()


def test_report_of_use_names_the_path_if_nothing_was_used(
    kernels: Path, isolated_env: IsolatedEnv, monkeypatch: pytest.MonkeyPatch
) -> None:
    restored_elsewhere(kernels, monkeypatch, "CUDA_HOME", "/usr/cuda")
    assert load().status is OperationStatus.SUCCESS
    other = {path.replace("gemm.", "gemm.f"): data for path, data in ARTIFACTS["deep_gemm"].items()}
    isolated_env.fill(kernels, other)
    warning = cache_report().warning
    assert "deep_gemm: 1 unit was restored and not used" in warning
    assert warning.endswith("hold the CUDA home: /opt/cuda-12.9 on the pod that saved, /usr/cuda here")


def test_message_names_a_difference_once(kernels: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    restored_elsewhere(kernels, monkeypatch, "CUDA_HOME", "/usr/cuda")
    report = load()
    said = with_differences("it compiled", report)
    assert said == f"it compiled; {report.key_differences[0]}"
    assert with_differences(said, report) == said


@pytest.mark.skipif(detect().parts["accelerator"] != "cpu", reason="kernels for CPUs are of no interest with a GPU")
@pytest.mark.parametrize(
    ("threads", "is_logged"), [("1", False), ("3", False), ("4", False), ("5", True), ("64", True)]
)
def test_other_number_of_threads_is_warned_of(
    threads: str,
    is_logged: bool,
    graphs: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    restored_elsewhere(graphs, monkeypatch, "OMP_NUM_THREADS", threads)
    with caplog.at_level(logging.WARNING):
        report = load()
    logged = [record.getMessage() for record in caplog.records if "OMP_NUM_THREADS" in record.getMessage()]
    assert len(logged) == is_logged
    if is_logged:
        assert f"compiled for 2 threads, and this pod has {threads}." in logged[0]
    expected = f"the keys of inductor hold the number of threads: 2 on the pod that saved, {threads} here"
    assert report.key_differences == (expected,)


def test_pack_of_an_earlier_version_has_no_differences(isolated_env: IsolatedEnv) -> None:
    Publisher(isolated_env.store, detect()).publish(
        {"deep_gemm/cache/kernel.a.b/": {"kernel.cu": b"", "kernel.cubin": b""}}
    )
    assert load().key_differences == ()


def test_text_of_a_store_is_bounded_and_printable(isolated_env: IsolatedEnv) -> None:
    environment = detect()
    text = "/a\n\x1b[31m" + "x" * 10_000
    hostile = {"deep_gemm/CUDA home": text, "deep_gemm/anything": text, "flashinfer/CUDA home": text}
    publisher = Publisher(isolated_env.store, replace(environment, recorded={**environment.recorded, **hostile}))
    publisher.publish({"deep_gemm/cache/kernel.a.b/": {"kernel.cu": b"", "kernel.cubin": b""}})
    [difference] = json.loads(command("explain", "--json").stdout)["key_differences"]
    assert difference.startswith("the keys of deep_gemm hold the CUDA home: /a\\n\\x1b[31mxxx")
    assert difference.isprintable()
    assert len(difference) < 500
