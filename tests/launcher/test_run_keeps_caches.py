"""What ``run`` does for caches: restored before a server starts, saved when it serves, when quiet, at last."""

from __future__ import annotations

import os
import shutil
import signal
import sys

import pytest

from tests.launcher.pod import LONG, Pod, lines_with


def test_what_one_server_compiled_is_there_before_the_next_one_starts(pod: Pod) -> None:
    pod.serve_and_end(FAKE_COMPILES="3")
    pod.empty_cache()
    second = pod.serve_and_end(FAKE_COMPILES="3")
    assert pod.noted("started")[1]["cached"] == ["KERNEL0", "KERNEL1", "KERNEL2"]
    assert [fact["unit"] for fact in pod.noted("hit")] == ["KERNEL0", "KERNEL1", "KERNEL2"]
    assert len(pod.noted("compiled")) == 3
    assert "triton: restored 3, used 3" in second.log
    assert "WARNING" not in second.log
    # Nothing is new: the second server has cost the store nothing.
    assert "save:" not in second.log


def test_artifacts_are_in_place_before_the_server_is_started(pod: Pod) -> None:
    """By the clock of the file system: the last change of a restored file is older than the server."""
    pod.serve_and_end()
    pod.empty_cache()
    pod.serve_and_end()
    placed = max(path.stat().st_ctime for path in pod.cache.rglob("*") if path.is_file())
    assert placed <= pod.noted("started")[1]["time"]


def test_it_is_saved_as_soon_as_the_server_serves(pod: Pod) -> None:
    started = pod.run(B10_QUIET_SECONDS=LONG)
    started.says("save: SUCCESS")
    assert pod.stored() == ["KERNEL0", "KERNEL1"]
    started.send(signal.SIGTERM)
    assert started.wait() == 0


def test_nothing_is_saved_before_the_server_serves(pod: Pod) -> None:
    """Artifacts of a start that is still going on may not be all of it."""
    pod.compile("EARLIER")
    started = pod.run(FAKE_GATE="/never", FAKE_COMPILES="0")
    pod.waits_for("started")
    assert pod.stored() == []
    started.send(signal.SIGTERM)
    assert started.wait() == 0
    assert pod.stored() == ["EARLIER"]


def test_late_compile_is_saved_once_the_cache_is_quiet(pod: Pod) -> None:
    started = pod.run()
    started.says("save: SUCCESS")
    for count in (1, 2):
        started.send(signal.SIGUSR1)
        started.says("save: SUCCESS", 1 + count)
    assert pod.stored() == ["KERNEL0", "KERNEL1", "LATE0", "LATE1"]
    started.send(signal.SIGTERM)
    assert started.wait() == 0


def test_what_is_compiled_just_before_the_end_is_saved_at_the_end(pod: Pod) -> None:
    started = pod.run(B10_QUIET_SECONDS=LONG)
    started.says("save: SUCCESS")
    started.send(signal.SIGUSR1)
    pod.waits_for("signal")
    started.send(signal.SIGTERM)
    assert started.wait() == 0
    assert pod.stored() == ["KERNEL0", "KERNEL1", "LATE0"]


@pytest.mark.parametrize(("ends", "code"), [("1", 7), ("kill", 128 + signal.SIGKILL)])
def test_what_a_server_has_compiled_that_ends_at_once_is_saved(pod: Pod, ends: str, code: int) -> None:
    started = pod.run(FAKE_ENDS=ends, FAKE_EXIT="7")
    assert started.wait() == code
    assert pod.stored() == ["KERNEL0", "KERNEL1"]


def test_program_that_cannot_be_asked_is_saved_when_its_cache_is_quiet(pod: Pod) -> None:
    pod.serve_and_end()
    pod.empty_cache()
    program = [sys.executable, str(pod.program.with_name("train")), "model"]
    shutil.copy(pod.program, program[1])
    started = pod.run(program, FAKE_COMPILES="3")
    started.says("save: SUCCESS")
    started.says("triton: restored 2, used 2, compiled anew 1")
    assert pod.stored() == ["KERNEL0", "KERNEL1", "KERNEL2"]
    started.send(signal.SIGTERM)
    assert started.wait() == 0


def test_server_that_never_answers_is_saved_when_its_cache_is_quiet_and_that_is_said_once(pod: Pod) -> None:
    silent = [*pod.server[:3], "model", "--port=1"]
    started = pod.run(silent, B10_TRANSFER_TIMEOUT_S="0.2", FAKE_COMPILES="3")
    started.says("save: SUCCESS")
    started.send(signal.SIGUSR1)
    started.says("save: SUCCESS", 2)
    started.send(signal.SIGTERM)
    assert started.wait() == 0
    assert len(lines_with("no server answered within", started.log)) == 1


def test_url_that_is_configured_is_the_one_that_is_asked(pod: Pod) -> None:
    program = [sys.executable, str(pod.program.with_name("other")), "--port", str(pod.port)]
    shutil.copy(pod.program, program[1])
    url = f"http://127.0.0.1:{pod.port}/v1/models"
    started = pod.run(program, B10_TRANSFER_VLLM_URL=url, B10_QUIET_SECONDS=LONG)
    started.says("the server is ready")
    started.says("save: SUCCESS")
    started.send(signal.SIGTERM)
    assert started.wait() == 0


def test_restore_that_was_not_used_is_a_warning_with_the_likely_reason(pod: Pod) -> None:
    pod.serve_and_end()
    pod.empty_cache()
    off = pod.serve_and_end(FAKE_COMPILES="0")
    warning = lines_with("WARNING", off.log)
    assert len(warning) == 1
    assert "2 units were restored and none was used, nor was anything compiled" in warning[0]
    assert "--enforce-eager" in warning[0]


def test_restore_of_which_only_other_units_are_compiled_is_a_warning(pod: Pod) -> None:
    pod.compile("OTHER")
    assert pod.command("save").returncode == 0
    pod.empty_cache()
    missed = pod.serve_and_end()
    assert "triton: restored 1, used 0, compiled anew 2" in missed.log
    assert "1 unit was restored and not used, while 2 were compiled anew" in missed.log


def test_program_that_has_ended_without_using_its_restore_is_told_of(pod: Pod) -> None:
    pod.serve_and_end()
    started = pod.run(["true"])
    assert started.wait() == 0
    assert "none was used" not in started.log  # nothing was restored
    pod.empty_cache()
    started = pod.run(["true"])
    assert started.wait() == 0
    assert "triton: restored 2, used 0" in started.log
    assert "none was used" in started.log


@pytest.mark.parametrize("server", [["false"], ["sh", "-c", "kill $$"]])
def test_program_that_has_failed_is_not_blamed_for_what_it_did_not_use(pod: Pod, server: list[str]) -> None:
    pod.serve_and_end()
    pod.empty_cache()
    assert "none was used" not in pod.run(server).log


def test_what_is_in_place_already_is_left_alone_and_saved_if_the_store_lacks_it(pod: Pod) -> None:
    """By name, not by number: here are as many units as the store holds, and one is another."""
    pod.compile("A", "B")
    assert pod.command("save").returncode == 0
    shutil.rmtree(pod.cache / "B")
    pod.compile("C")
    shutil.rmtree(pod.cache / "A")
    pod.compile("A")
    started = pod.run(["true"])
    assert started.wait() == 0
    assert pod.stored() == ["A", "B", "C"]


def test_as_many_units_as_another_cache_has_in_the_store_are_not_taken_for_saved(pod: Pod) -> None:
    pod.compile("A", "B")
    assert pod.command("save").returncode == 0
    inductor = pod.home / "inductor"
    for key in ("fa", "fb"):
        entry = inductor / "fxgraph" / key / f"f{key}key" / "entry"
        entry.parent.mkdir(parents=True)
        entry.write_text(key)
    variables = {"TORCHINDUCTOR_CACHE_DIR": str(inductor), "B10_CACHES": "inductor"}
    started = pod.run(["true"], **variables)
    assert started.wait() == 0
    assert "save: SUCCESS" in started.log


def test_per_pod_variables_are_warned_of_by_name(pod: Pod) -> None:
    started = pod.run(["true"], VLLM_LOOPBACK_IP="10.0.0.1")
    assert started.wait() == 0
    assert "VLLM_LOOPBACK_IP: vLLM's cache keys hold these values" in started.log


def test_torch_is_not_loaded(pod: Pod) -> None:
    started = pod.run()
    started.says("save: SUCCESS")
    maps = (f"/proc/{started.pid}/maps", f"/proc/{pod.waits_for('started')['pid']}/maps")
    with open(maps[0]) as file:
        assert "torch" not in file.read()
    assert os.path.exists(maps[1])
    started.send(signal.SIGTERM)
    assert started.wait() == 0
