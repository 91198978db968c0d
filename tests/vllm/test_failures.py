"""``b10-compile-cache run`` with the real server, when it is stopped early or the store fails.

The server starts and ends as it does alone, nothing of it or of ours is left behind, and nothing half is in the store.
To save time servers do not compile (``--enforce-eager``) or are stopped while they start, where that shows as much.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from tests.faults.conftest import Mount
from tests.launcher.conftest import mounted
from tests.launcher.pod import end
from tests.vllm.conftest import GPU_MODE, Case, NewPod, Starts
from tests.vllm.log import cache_lines, graphs_compiled, lines_with
from tests.vllm.server import Pod, Server, SetUp, Way

STARTING = "Initializing a V1 LLM engine"
COMPILING = "Warming up model for the compilation"
START_WITHIN_S = 3
HANGS = dict.fromkeys(("getattr", "readdir", "open", "create", "mkdir", "statfs"), "HANG")
READ_ONLY = dict.fromkeys(("mkdir", "create", "write", "link", "rename", "unlink"), "EROFS")

INTERRUPTED = 128 + signal.SIGINT
"""vLLM makes an interrupt of SIGTERM while it starts, and ends of that. It may also lose it, and ends with 0 later."""


def own_exit_code(server: Server) -> int:
    """What vLLM ends with, started alone or by us, after SIGTERM while it starts."""
    return 0 if "Application startup complete" in server.log else INTERRUPTED


@pytest.mark.parametrize("line", [STARTING, COMPILING], ids=["starting", "compiling"])
def test_exit_code_of_the_server_alone_is_known(new_pod: NewPod, model: Path, line: str) -> None:
    with new_pod(SetUp.STOCK, "alone", "alone").serve(model) as server:
        server.wait_until_it_says(line)
        assert server.stop() == own_exit_code(server)


def all_say(text: str, lines: list[str]) -> bool:
    """There is a line, or two where the server lost the signal and served: then it saves once more."""
    return bool(lines) and all(text in line for line in lines)


@contextmanager
def run(pod: Pod, model: Path, *options: str) -> Iterator[Server]:
    """A server under ``run``, which started it in time and leaves nothing behind."""
    with pod.serve(model, *options, prefix=Way.RUN.prefix) as server:
        server.wait_until_it_says(r"\(APIServer pid=")
        assert server.pid is not None
        # A second for our own start: the machine is busy.
        assert _started_s(server.pid) - _started_s(server.process.pid) <= START_WITHIN_S + 1
        yield server
        pod.wait_until_deserted()


def with_store(pod: Pod, store: Path, **variables: str) -> Pod:
    """The same pod with another store, and one finished kernel that no store has."""
    kernel = pod.root / "home/.triton/cache/KERNEL"
    kernel.mkdir(parents=True)
    (kernel / "kernel.cubin").write_bytes(os.urandom(100_000))
    (kernel / "__grp__kernel.json").write_text(json.dumps({"child_paths": {"kernel.cubin": f"{kernel}/kernel.cubin"}}))
    return replace(pod, store=store, variables={"B10_START_WITHIN_SECONDS": str(START_WITHIN_S), **variables})


def test_server_that_is_stopped_while_it_compiles(new_pod: NewPod, model: Path, tmp_path: Path) -> None:
    """It ends as it does alone, and what the last save published is whole."""
    pod = replace(new_pod(SetUp.STOCK, "stopped", "stopped"), store=tmp_path / "store")
    with run(pod, model) as server:
        server.wait_until_it_says(COMPILING)
        server.wait_until("a compiled kernel", lambda: any(pod.root.glob("tmp/torchinductor_*/*/*.so")))
        assert server.stop() == own_exit_code(server)
        assert lines_with("save: SUCCESS", server.log)
    assert "every byte is as published" in pod.run("b10-compile-cache", "verify")
    elsewhere = replace(new_pod(SetUp.STOCK, "after", "after"), store=pod.store)
    assert elsewhere.call("load").status == "SUCCESS"
    restored = elsewhere.artifacts()
    assert [path for path in restored if restored[path] != pod.artifacts().get(path)] == []
    assert restored != {}


def test_server_starts_though_the_store_cannot_be_reached(new_pod: NewPod, model: Path) -> None:
    pod = with_store(new_pod(SetUp.STOCK, "unreach", "unreach"), Path("/nonexistent/volume/store"))
    with run(pod, model) as server:
        server.wait_until_it_says(STARTING)
        assert server.stop() == own_exit_code(server)
    for operation in ("load", "save"):
        assert all_say("is the volume mounted?", lines_with(f"{operation} failed", server.log))


def test_server_starts_though_the_store_is_read_only(new_pod: NewPod, model: Path, mount: Mount) -> None:
    mount.fail(**READ_ONLY)
    pod = with_store(new_pod(SetUp.STOCK, "readonly", "readonly"), mount.path)
    with run(pod, model) as server:
        server.wait_until_it_says(STARTING)
        assert server.stop() == own_exit_code(server)
    assert len(lines_with("save: SKIPPED", server.log)) == 1
    assert "Read-only file system" in server.log
    assert not lines_with("failed", server.log)


def test_server_serves_though_the_store_hangs_and_can_be_stopped_during_the_last_save(
    new_pod: NewPod, model: Path, mount: Mount
) -> None:
    (mount.path / "store").mkdir()
    mount.fail(**HANGS)
    pod = with_store(new_pod(SetUp.STOCK, "hung", "hung"), mount.path / "store", B10_DEADLINE_SECONDS="6")
    with run(pod, model, "--enforce-eager") as server:
        server.wait_until_ready()
        server.wait_until_it_says("the load takes longer than 3 s: starting the server meanwhile")
        server.wait_until_it_says("load failed .*gave up after its deadline of 6 s")
        server.wait_until_it_says("save failed .*gave up after its deadline of 6 s")
        os.kill(server.process.pid, signal.SIGTERM)
        server.wait_until_it_says("the server has ended with exit code 0")
        assert server.process.poll() is None, "there was no last save"
        assert server.stop() == 0
        assert lines_with("a signal ended the last save", server.log)
        # What is killed in a call to FUSE goes when that is answered.
        below = end(mount.path) / "store"
    assert [path for path in below.rglob("*") if path.is_file()] == []
    assert "every byte is as published" in replace(pod, store=below).run("b10-compile-cache", "verify")


@pytest.mark.parametrize("case", GPU_MODE[:1], ids=str)
def test_full_store_is_loaded_from_and_a_variable_of_the_pods_own_is_named(
    new_pod: NewPod, cold_start: Starts, model: Path, tmp_path: Path, case: Case
) -> None:
    """A replica that differs from the one that saved in nothing but VLLM_XGRAMMAR_CACHE_MB, which is in vLLM's hash."""
    saved = cold_start(case).pod.store
    used_kb = sum(file.stat().st_size for file in saved.rglob("*") if file.is_file()) // 1024
    with mounted(tmp_path / "full", f"size={used_kb + 512}k") as full:
        shutil.copytree(saved, full / "store")
        _fill(full)
        pod = with_store(new_pod(SetUp.GPU_MODE, "full", "full"), full / "store", VLLM_XGRAMMAR_CACHE_MB="256")
        with run(pod, model) as server:
            server.wait_until_ready()
            server.wait_until_it_says("save failed .*No space left on device")
            assert server.stop() == 0
        assert "every byte is as published" in pod.run("b10-compile-cache", "verify")
    assert lines_with("load: SUCCESS", server.log)
    assert graphs_compiled(server.log) == 1
    warned = lines_with(" WARNING: ", server.log)
    assert "VLLM_XGRAMMAR_CACHE_MB: vLLM's cache keys hold these values" in warned[0]
    assert any("were restored and none was used" in line and "VLLM_XGRAMMAR_CACHE_MB" in line for line in warned[1:])
    assert [line for line in cache_lines(server.log) if line.cache == "vllm" and line.used] == []


def _started_s(pid: int) -> float:
    """Seconds from the machine's start to that of a process."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[19]) / os.sysconf("SC_CLK_TCK")


def _fill(volume: Path) -> None:
    with (volume / "filler").open("wb", buffering=0) as filler:
        try:
            while filler.write(bytes(4096)):
                pass
        except OSError:
            return
