"""``run`` logs a cause once, and a cold server that saves nothing is a WARNING."""

from __future__ import annotations

import os
import re
import shutil
import signal
import time
from collections import Counter
from pathlib import Path

import pytest

from tests.launcher.pod import Pod, lines_with, wait_until


def refused_by_mode(cache: Path) -> None:
    cache.mkdir(parents=True)
    cache.chmod(0o777)


def a_file_instead(cache: Path) -> None:
    cache.parent.mkdir(parents=True, exist_ok=True)
    cache.write_text("")


def unsavable_name(cache: Path) -> None:
    (cache / "KEY").mkdir(parents=True)
    (cache / "KEY" / "with\nbreak.cubin").write_bytes(b"x")


def of_another_user(cache: Path) -> None:
    cache.mkdir(parents=True)
    try:
        os.chown(cache, 50001, 50001)
    except PermissionError:
        pytest.skip("only root can make a folder of another user")
    cache.parent.chmod(0o1777)  # where that user could have made it himself


def given_by_root(cache: Path) -> None:
    """Root loads for that user, and saves nothing of his."""
    of_another_user(cache)
    cache.parent.chmod(0o755)


def relative(_cache: Path) -> None:
    """Its variable names no absolute path."""


@pytest.mark.parametrize("is_stored", [False, True], ids=["cold", "warm"])
@pytest.mark.parametrize(
    ("fault", "cause"),
    [
        (refused_by_mode, "every user can write to"),
        (of_another_user, "belongs to user 50001"),
        (given_by_root, "belongs to user 50001"),
        (a_file_instead, "is not a directory"),
        (relative, "it must be an absolute path"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_each_cause_is_logged_once(pod: Pod, fault: object, cause: str, is_stored: bool) -> None:
    assert callable(fault)
    if is_stored:
        pod.compile("KERNEL")
        assert pod.command("save").returncode == 0
        shutil.rmtree(pod.cache)
    fault(pod.cache)
    variables = {"TRITON_CACHE_DIR": "./relative"} if fault is relative else {}
    begun = pod.path / "begun"
    server = ["sh", "-c", f"touch {begun}; exec sleep 600"]
    started = pod.run(server, B10_TRANSFER_INTERVAL_S="0.05", B10_QUIET_SECONDS="0.05", **variables)
    wait_until(begun.exists, "the server")
    time.sleep(1)  # some looks
    started.send(signal.SIGTERM)
    started.wait()
    assert len(lines_with(cause, started.log)) == 1, started.log
    assert not lines_with("the use of the restored caches", started.log)
    assert len(lines_with("nothing was restored and nothing was saved", started.log)) == 1
    levels = {line.split()[3] for line in lines_with(cause, started.log)}
    assert levels <= {"WARNING:", "ERROR:"}


@pytest.mark.parametrize("fault", [refused_by_mode, a_file_instead, unsavable_name], ids=lambda fault: fault.__name__)
def test_each_warning_is_logged_once(pod: Pod, fault: object) -> None:
    assert callable(fault)
    fault(pod.cache)
    started = pod.run(["sleep", "600"], B10_TRANSFER_INTERVAL_S="0.05", B10_QUIET_SECONDS="0.05")
    time.sleep(3)  # some dozens of looks
    started.send(signal.SIGTERM)
    started.wait()
    lines = [re.sub(r"^\S+ \S+ ", "", line) for line in started.log.splitlines() if "WARNING" in line]
    assert [line for line, count in Counter(lines).items() if count > 1] == []


def test_cold_server_that_saved_nothing_is_one_warning(pod: Pod) -> None:
    started = pod.run(["true"])
    assert started.wait() == 0
    assert len(lines_with("nothing was restored and nothing was saved", started.log)) == 1


def test_cold_server_that_saved_something_is_no_warning(pod: Pod) -> None:
    log = pod.serve_and_end().log
    assert "nothing was saved" not in log


def test_server_that_compiles_nothing_is_warned_of(pod: Pod) -> None:
    started = pod.run(["true", "--enforce-eager"])
    assert started.wait() == 0
    assert len(lines_with("WARNING: --enforce-eager: vLLM compiles no graphs", started.log)) == 1


def test_arguments_of_a_server_stay_out_of_the_log(pod: Pod) -> None:
    """They may hold an API key."""
    started = pod.shell("$command & $server --api-key very-secret")
    started.says("found the server")
    assert "very-secret" not in started.log
    assert f":{pod.port}/v1/models" in started.log
    for fact in pod.noted("started"):
        pod.send(fact["pid"], signal.SIGTERM)


def test_explain_compares_the_running_server_with_those_that_saved(pod: Pod) -> None:
    saver = pod.run([*pod.server, "--max-model-len", "512"])
    saver.says("save: SUCCESS")
    saver.send(signal.SIGTERM)
    saver.wait()
    beside = pod.start([*pod.server, "--max-model-len", "256"])
    pod.waits_for("serves", 2)
    explained = pod.command("explain").stdout
    assert "saved with --max-model-len 512, this server has --max-model-len 256" in explained
    beside.send(signal.SIGTERM)
    beside.wait()
