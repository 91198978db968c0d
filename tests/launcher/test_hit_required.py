"""``run --require-hit`` and ``run --on-compile``: for pipelines and canaries."""

from __future__ import annotations

import signal
import subprocess

import pytest

from tests.launcher.pod import COMMAND, Pod, Started, lines_with


def run(pod: Pod, *options: str, **variables: str) -> Started:
    return pod.start([COMMAND, "run", *options, "--", *pod.server], **variables)


def test_server_is_not_started_if_nothing_is_restored(pod: Pod) -> None:
    started = run(pod, "--require-hit")
    assert started.wait() == 3
    assert pod.noted("started") == []
    assert "--require-hit" in started.log
    pod.is_deserted()


def test_server_is_not_started_if_the_store_cannot_be_read(pod: Pod) -> None:
    started = run(pod, "--require-hit", B10_STORE=str(pod.path / "missing" / "store"))
    assert started.wait() == 3
    assert pod.noted("started") == []


def test_server_is_started_after_a_hit_however_long_the_load_takes(pod: Pod) -> None:
    pod.serve_and_end()
    pod.empty_cache()
    started = run(pod, "--require-hit", B10_START_WITHIN_SECONDS="0.001")
    pod.waits_for("serves", 2)
    assert len(pod.noted("hit")) == 2
    started.send(signal.SIGTERM)
    assert started.wait() == 0


def test_units_of_pods_with_another_cpu_are_no_hit(pod: Pod) -> None:
    cpuinfo = pod.path / "cpuinfo"
    cpuinfo.write_text("processor\t: 0\nflags\t\t: fpu sse2\n")
    other_cpu = ["unshare", "--mount", "sh", "-c", f'mount --bind {cpuinfo} /proc/cpuinfo && exec "$@"', "sh"]
    if subprocess.run([*other_cpu, "true"], check=False, capture_output=True).returncode:
        pytest.skip("only root can give a process another CPU")
    pod.serve_and_end()
    pod.empty_cache()
    started = pod.start([COMMAND, "run", "--require-hit", "--", *pod.server], other_cpu)
    assert started.wait() == 3
    assert "only units of pods with another CPU or C library were restored, and --require-hit is set" in started.log
    assert len(pod.noted("serves")) == 1
    again = pod.start([COMMAND, "run", "--", *pod.server], other_cpu)
    pod.waits_for("serves", 2)
    assert len(pod.noted("hit")) == 2
    again.send(signal.SIGTERM)
    assert again.wait() == 0


def test_restart_in_place_is_a_hit(pod: Pod) -> None:
    pod.serve_and_end()
    started = run(pod, "--require-hit")
    pod.waits_for("serves", 2)
    started.send(signal.SIGTERM)
    assert started.wait() == 0


def test_other_replicas_do_not_wait_for_one_that_is_not_started(pod: Pod) -> None:
    assert run(pod, "--require-hit", B10_WAIT_FOR_COMPILE_SECONDS="30").wait() == 3
    assert not list(pod.store.rglob("leases/*"))


@pytest.mark.parametrize("action", ["warn", "exit"])
def test_server_that_compiles_nothing_is_left_alone(pod: Pod, action: str) -> None:
    pod.serve_and_end()
    pod.empty_cache()
    started = run(pod, f"--on-compile={action}")
    started.says(", 0 compiled, ")
    started.send(signal.SIGTERM)
    assert started.wait() == 0
    assert not lines_with("WARNING", started.log)


@pytest.mark.parametrize("action", ["warn", "exit"])
def test_compilations_of_a_cold_start_are_expected(pod: Pod, action: str) -> None:
    started = run(pod, f"--on-compile={action}")
    started.says("save: SUCCESS")
    started.send(signal.SIGTERM)
    assert started.wait() == 0


def test_server_that_compiles_although_everything_was_restored_is_stopped(pod: Pod) -> None:
    pod.serve_and_end()
    pod.empty_cache()
    started = run(pod, "--on-compile=exit", FAKE_COMPILES="3")
    assert started.wait() == 4
    assert pod.signals()[-1:] == [signal.SIGTERM]
    assert len(lines_with("the server compiled units although everything", started.log)) == 1
    assert "triton 1" in started.log
    # It was worth a save all the same: the next pod has it.
    assert pod.stored() == ["KERNEL0", "KERNEL1", "KERNEL2"]
    pod.is_deserted()


def test_late_compile_stops_it_too(pod: Pod) -> None:
    pod.serve_and_end()
    pod.empty_cache()
    started = run(pod, "--on-compile=exit")
    started.says(", 0 compiled, ")
    started.send(signal.SIGUSR1)
    assert started.wait() == 4


def test_program_that_has_compiled_and_ended_fails_unless_it_has_failed_itself(pod: Pod) -> None:
    pod.serve_and_end()
    for code, expected in (("0", 4), ("7", 7)):
        pod.empty_cache()
        started = run(
            pod,
            "--on-compile=exit",
            FAKE_COMPILES="3",
            FAKE_ENDS="1",
            FAKE_EXIT=code,
            B10_READ_ONLY="1",
            B10_TRANSFER_VLLM_URL="http://127.0.0.1:1/",  # where it never serves, so its caches are scanned at its end
        )
        assert started.wait() == expected


def test_warning_leaves_the_server_running_and_comes_once(pod: Pod) -> None:
    pod.serve_and_end()
    pod.empty_cache()
    started = run(pod, "--on-compile=warn", FAKE_COMPILES="3", FAKE_EXIT="7")
    started.says("although everything in the store was restored")
    started.says("save: SUCCESS")
    started.send(signal.SIGUSR1)
    started.says("save: SUCCESS", 2)
    started.send(signal.SIGTERM)
    assert started.wait() == 7
    assert len(lines_with("although everything", started.log)) == 1
