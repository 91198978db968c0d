"""``b10-compile-cache &``: it finds the server that is started beside it, looks after it, and ends with it."""

from __future__ import annotations

import os
import shutil
import signal
import sys

import pytest

from tests.launcher.pod import COMMAND, LONG, Pod, wait_until

SIBLING = "$command & supervisor=$!; $server; code=$?; wait $supervisor; exit $code"
PARENT = "$command & exec $server"


def stop_server(pod: Pod, number: int = signal.SIGTERM) -> None:
    os.kill(pod.noted("started")[-1]["pid"], number)


def test_server_started_beside_is_restored_saved_and_outlived(pod: Pod) -> None:
    first = pod.shell(SIBLING, FAKE_EXIT="7")
    first.says("save: SUCCESS")
    assert f"found the server: process {pod.noted('started')[0]['pid']}" in first.log
    stop_server(pod, signal.SIGUSR1)
    first.says("save: SUCCESS", 2)
    stop_server(pod)
    assert first.wait() == 7
    assert pod.stored() == ["KERNEL0", "KERNEL1", "LATE0"]
    pod.empty_cache()
    # Some time passes before a server looks: vLLM needs 8 s.
    second = pod.shell(SIBLING, FAKE_GATE=str(pod.path / "gate"))
    second.says("load: SUCCESS")
    (pod.path / "gate").touch()
    second.says("triton: restored 3, used 2")
    stop_server(pod)
    assert second.wait() == 0
    assert len(pod.noted("hit")) == 2
    pod.is_deserted()


def test_server_that_has_replaced_the_shell_is_found(pod: Pod) -> None:
    started = pod.shell(PARENT, FAKE_EXIT="7")
    started.says(f"found the server: process {started.pid},")
    started.says("save: SUCCESS")
    stop_server(pod)
    assert started.wait() == 7
    pod.is_deserted()


def test_option_that_turns_compilation_off_is_named(pod: Pod) -> None:
    started = pod.shell(SIBLING.replace("$server", "$server --enforce-eager"))
    started.says("WARNING: --enforce-eager: vLLM compiles no graphs")
    stop_server(pod)
    started.wait()


def test_late_compile_just_before_the_end_is_saved_at_the_end(pod: Pod) -> None:
    started = pod.shell(SIBLING, B10_QUIET_SECONDS=LONG)
    started.says("save: SUCCESS")
    stop_server(pod, signal.SIGUSR1)
    pod.waits_for("signal")
    stop_server(pod, signal.SIGKILL)
    assert started.wait() == 128 + signal.SIGKILL
    assert pod.stored() == ["KERNEL0", "KERNEL1", "LATE0"]


def test_end_of_the_server_is_noticed_long_before_its_cache_is_looked_at_again(pod: Pod) -> None:
    """The next look is due in 200 s; the supervisor ends long before, or this test fails."""
    started = pod.shell(SIBLING, B10_QUIET_SECONDS=LONG)
    started.says("save: SUCCESS")
    stop_server(pod)
    assert started.wait() == 0


def test_workers_forked_by_the_server_are_not_taken_for_it(pod: Pod) -> None:
    started = pod.shell(SIBLING, FAKE_WORKER="1")
    worker, server = pod.waits_for("worker")["pid"], pod.noted("started")[0]["pid"]
    started.says(f"found the server: process {server},")
    started.says("save: SUCCESS")
    stop_server(pod)
    assert started.wait() == 0
    os.kill(worker, signal.SIGTERM)


def test_program_of_any_name_is_found_by_its_url(pod: Pod) -> None:
    program = pod.program.with_name("other")
    shutil.copy(pod.program, program)
    url = f"http://127.0.0.1:{pod.port}/v1/models"
    supervisor = pod.start([COMMAND], B10_TRANSFER_VLLM_URL=url, B10_QUIET_SECONDS=LONG)
    supervisor.says("load:")
    server = pod.start([sys.executable, str(program), "--port", str(pod.port)])
    supervisor.says("the server is ready")
    supervisor.says("save: SUCCESS")
    server.send(signal.SIGUSR1)
    pod.waits_for("signal")
    server.send(signal.SIGTERM)
    assert server.wait() == 0
    assert supervisor.wait() == 0
    assert pod.stored() == ["KERNEL0", "KERNEL1", "LATE0"]


@pytest.fixture
def alone(namespace_of_processes: list[str]) -> list[str]:
    """So that no known server of this machine is in sight."""
    return namespace_of_processes


def test_program_that_is_no_known_server_is_saved_when_its_cache_is_quiet(pod: Pod, alone: list[str]) -> None:
    program = pod.program.with_name("other")
    shutil.copy(pod.program, program)
    script = f"'{COMMAND}' & '{sys.executable}' '{program}'; exit $?"
    started = pod.start(["sh", "-c", script], alone, FAKE_EXIT="7")
    started.says("save: SUCCESS")
    started.says("compiled anew 2")
    assert "the server is ready" not in started.log
    for pid, line in pod.processes().items():
        if line.endswith("other "):
            os.kill(pid, signal.SIGTERM)
    assert started.wait() == 7
    assert pod.stored() == ["KERNEL0", "KERNEL1"]


def test_without_any_server_it_ends_with_whoever_started_it(pod: Pod, alone: list[str]) -> None:
    """As long as a server may still come, it stays: what starts it may be done before another program starts that."""
    pod.compile("PROGRAM")
    script = f"'{COMMAND}' & until grep -q load: '{pod.path}/0.log'; do sleep 0.05; done; echo gone >&2"
    init = [*alone, "sh", "-c", 'sh -c "$0"; while sleep 0.1; do :; done']
    started = pod.start([script], init, B10_TRANSFER_TIMEOUT_S="0.5")
    started.says("gone")
    wait_until(lambda: not any(COMMAND in line and " -c " not in line for line in pod.processes().values()), "its end")
    assert pod.stored() == ["PROGRAM"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signal_ends_it_with_a_last_save_and_leaves_the_server_alone(pod: Pod, number: int) -> None:
    server = pod.start(pod.server)
    supervisor = pod.start(
        [COMMAND], B10_QUIET_SECONDS=LONG, B10_TRANSFER_VLLM_URL=f"http://127.0.0.1:{pod.port}/v1/models"
    )
    supervisor.says("the server is ready")
    supervisor.says("save: SUCCESS")
    server.send(signal.SIGUSR1)
    pod.waits_for("signal")
    supervisor.send(number)
    assert supervisor.wait() == 0
    assert pod.stored() == ["KERNEL0", "KERNEL1", "LATE0"]
    assert server.process.poll() is None


def test_ctrl_c_in_a_script_ends_the_server_and_leaves_the_last_save_to_be_done(pod: Pod) -> None:
    """A shell without job control has its background jobs ignore SIGINT: so does this."""
    started = pod.shell(SIBLING, B10_QUIET_SECONDS=LONG, FAKE_EXIT="7", FAKE_END_S="0.5")
    started.says("save: SUCCESS")
    stop_server(pod, signal.SIGUSR1)
    pod.waits_for("signal")
    for pid, line in pod.processes().items():
        if COMMAND in line and " -c " not in line:
            os.kill(pid, signal.SIGINT)
    stop_server(pod, signal.SIGINT)
    pod.is_deserted()
    assert "a signal ended" not in started.log
    assert pod.stored() == ["KERNEL0", "KERNEL1", "LATE0"]


def test_what_the_server_has_begun_to_write_is_merged_into(pod: Pod) -> None:
    pod.serve_and_end(FAKE_COMPILES="3")
    pod.empty_cache()
    script = f"$server & until [ $(grep -c serves '{pod.log}') = 2 ]; do sleep 0.05; done; $command; wait"
    started = pod.shell(script, FAKE_COMPILES="1")
    # KERNEL0 was compiled before this load began, but by the server that it is about.
    started.says("triton: restored 2, used 0, compiled anew 1")
    assert pod.cached() == ["KERNEL0", "KERNEL1", "KERNEL2"]
    stop_server(pod)
    assert started.wait() == 0


def test_home_in_which_vllm_has_written_its_model_infos_is_loaded_all_the_same(pod: Pod) -> None:
    rank = pod.home / ".cache/vllm/torch_compile_cache/torch_aot_compile/abc/rank_0_0"
    rank.mkdir(parents=True)
    (rank / "model").write_bytes(b"all graphs")
    assert pod.command("save").returncode == 0
    shutil.rmtree(pod.home / ".cache/vllm")
    infos = pod.home / ".cache/vllm/modelinfos/some.json"
    infos.parent.mkdir(parents=True)
    infos.write_text("{}")
    started = pod.shell(SIBLING)
    started.says("load: SUCCESS")
    assert (rank / "model").read_bytes() == b"all graphs"
    assert infos.exists()
    pod.waits_for("serves")
    started.says(" compiled, load ")
    stop_server(pod)
    assert started.wait() == 0


@pytest.mark.parametrize("name", ["HOME", "TMPDIR", "TRITON_CACHE_DIR"])
def test_server_that_keeps_its_caches_elsewhere_is_told_of_with_the_variable(pod: Pod, name: str) -> None:
    pod.serve_and_end()
    pod.empty_cache()
    (pod.path / "elsewhere").mkdir()
    script = f"$command & {name}='{pod.path}/elsewhere' $server & wait"
    started = pod.shell(script, FAKE_COMPILES="0")
    started.says("nothing that was restored was used: the server keeps its caches elsewhere")
    assert f"{name} is {pod.variables[name]} here and {pod.path}/elsewhere there" in started.log
    for fact in pod.noted("started")[1:]:
        os.kill(fact["pid"], signal.SIGTERM)
    started.wait()
