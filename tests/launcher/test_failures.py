"""Whatever fails of ours, the server starts, its exit code is passed on, and the log says why."""

from __future__ import annotations

import shutil
import signal
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from b10_transfer.config import VARIABLES
from b10_transfer.config.launcher import LAUNCHER_VARIABLES
from tests.faults.conftest import Mount
from tests.launcher.pod import LONG, Pod, end, lines_with, wait_until

EXIT_7 = ["sh", "-c", "exit 7"]


def serves_all_the_same(pod: Pod, **variables: str) -> str:
    """A server under ``run`` serves, and ends with its own code; returns what was logged."""
    started = pod.run(FAKE_EXIT="7", **variables)
    pod.waits_for("serves")
    started.says("the server is ready")
    started.send(signal.SIGTERM)
    assert started.wait() == 7
    assert "Traceback" not in started.log
    pod.is_deserted()
    return started.log


def test_store_that_is_not_mounted(pod: Pod) -> None:
    log = serves_all_the_same(pod, B10_STORE="/nonexistent/volume/store")
    assert "is the volume mounted?" in log
    assert "save failed" in log


def test_store_that_is_a_file(pod: Pod) -> None:
    pod.store.write_text("no directory")
    assert "failed" in serves_all_the_same(pod)


def test_store_that_is_read_only(pod: Pod, mount: Mount) -> None:
    mount.fail(**dict.fromkeys(("mkdir", "create", "write", "link", "rename", "unlink"), "EROFS"))
    log = serves_all_the_same(pod, B10_STORE=str(mount.path))
    assert "Read-only file system" in log
    assert "failed" not in log


def test_store_that_is_full(pod: Pod, small_volume: Path) -> None:
    (small_volume / "filler").write_bytes(bytes(64 * 1024))
    assert "No space left on device" in serves_all_the_same(pod, B10_STORE=str(small_volume / "store"))


def test_cache_on_a_full_volume(pod: Pod, small_volume: Path) -> None:
    """There is no room for what would be restored; the server gets by without."""
    pod.cache.mkdir()
    pod.compile("BIG")
    (pod.cache / "BIG" / "kernel.cubin").write_bytes(bytes(200 * 1024))
    assert pod.command("save").returncode == 0
    log = serves_all_the_same(pod, TRITON_CACHE_DIR=str(small_volume / "triton"), FAKE_COMPILES="0")
    assert "load failed" in log


def test_store_that_hangs_delays_the_server_no_longer_than_is_configured(pod: Pod, mount: Mount) -> None:
    """The load would wait ten minutes, the server half a second."""
    pod.variables |= {"B10_STORE": str(mount.path / "store"), "B10_LAST_SAVE_SECONDS": "0.5"}
    mount.fail(getattr="HANG", readdir="HANG", open="HANG")
    started = pod.run(B10_START_WITHIN_SECONDS="0.5", B10_DEADLINE_SECONDS=LONG, FAKE_EXIT="7")
    pod.waits_for("serves")
    assert "the load takes longer than 0.5 s: starting the server meanwhile" in started.log
    started.send(signal.SIGTERM)
    assert started.wait() == 7
    assert "given up" in started.log
    end(mount.path)
    pod.is_deserted()


def test_store_that_hangs_is_said_when_its_deadline_has_passed(pod: Pod, mount: Mount) -> None:
    mount.fail(getattr="HANG", readdir="HANG", open="HANG")
    variables = {"B10_STORE": str(mount.path / "store"), "B10_DEADLINE_SECONDS": "0.5", "B10_LAST_SAVE_SECONDS": "0.5"}
    started = pod.run(EXIT_7, **variables)
    assert started.wait() == 7
    assert "load failed" in started.log
    assert "deadline of 0.5 s" in started.log
    end(mount.path)


def test_hung_store_in_the_background_leaves_the_server_alone(pod: Pod, mount: Mount) -> None:
    mount.fail(getattr="HANG", readdir="HANG", open="HANG")
    variables = {"B10_STORE": str(mount.path / "store"), "B10_DEADLINE_SECONDS": "0.5", "B10_LAST_SAVE_SECONDS": "0.5"}
    started = pod.shell("$command & $server; code=$?; wait; exit $code", FAKE_EXIT="7", **variables)
    pod.waits_for("serves")
    started.says("found the server")
    assert "load failed" in started.log
    for fact in pod.noted("started"):
        pod.send(fact["pid"], signal.SIGTERM)
    assert started.wait() == 7
    end(mount.path)
    pod.is_deserted()


@pytest.mark.parametrize("name", [variable.name for variable in LAUNCHER_VARIABLES if variable.rule != "a path"])
def test_wrong_setting_of_the_command_is_said_and_the_default_used(pod: Pod, name: str) -> None:
    started = pod.run(EXIT_7, **{name: "nonsense"})
    assert started.wait() == 7
    said = lines_with("ERROR", started.log)
    assert len(said) == 1
    assert name in said[0]
    assert "nonsense" in said[0]
    assert "is used instead" in said[0]


REFUSED = {"B10_STORE": "s3:///", "B10_NAMESPACE": "-/-", "B10_CACHES": "no such cache"}


@pytest.mark.parametrize("name", [variable.name for variable in VARIABLES if variable.name != "B10FS_CACHE_DIR"])
def test_wrong_setting_of_load_and_save_is_said_and_the_server_starts(pod: Pod, name: str) -> None:
    started = pod.run(EXIT_7, **{name: REFUSED.get(name, "nonsense:///\n")})
    assert started.wait() == 7
    assert "Traceback" not in started.log
    if name in {"B10_DEADLINE_SECONDS", *REFUSED}:
        assert name in started.log


def fails(function: str) -> str:
    """A program that has a function of ours fail."""
    module, _, name = function.rpartition(":")
    broken = "def broken(*_, **__): raise RuntimeError('unforeseen')"
    return (
        f"from b10_transfer.{module} import *\nimport b10_transfer.{module} as module\n{broken}\nmodule.{name} = broken"
    )


BREAKS = {
    **{
        f"no {name}": f"import sys; sys.modules[{name!r}] = None"
        for name in (
            "click",
            "b10_transfer.cli.main",
            "b10_transfer.cli.console",
            "b10_transfer.launcher.commands",
            "b10_transfer.operations.public",
        )
    },
    "no Python": "import b10_transfer.launcher as l; l.__path__[:] = [{folder!r}]",
    "failing logging": fails("cli.console:set_up_logging"),
    "failing settings": fails("config.launcher:LauncherConfig.from_environment"),
    "failing signals": fails("launcher.processes:Signals.wait_for"),
}


def broken(pod: Pod, tmp_path: Path, program: str) -> dict[str, str]:
    """What makes every Python begin with a program."""
    folder = tmp_path / "broken"
    folder.mkdir()
    (folder / "commands.py").write_text("this is no Python")
    (folder / "sitecustomize.py").write_text(program.format(folder=str(folder)))
    return {"PYTHONPATH": str(folder)}


@pytest.mark.parametrize("kind", BREAKS)
def test_broken_installation_costs_the_server_nothing(pod: Pod, tmp_path: Path, kind: str) -> None:
    variables = broken(pod, tmp_path, BREAKS[kind])
    started = pod.run(EXIT_7, **variables)
    assert started.wait() == 7
    assert "starting the server without" in started.log
    assert pod.run(["no-such-program"], **variables).wait() == 127


def test_server_that_a_broken_installation_starts_gets_signals(pod: Pod, tmp_path: Path) -> None:
    """That they are blocked here while the caches are looked after, nobody must inherit."""
    started = pod.run(**broken(pod, tmp_path, BREAKS["failing signals"]), FAKE_EXIT="7")
    pod.waits_for("serves")
    started.send(signal.SIGTERM)
    assert started.wait() == 7
    pod.is_deserted()


@pytest.mark.parametrize("function", ["launcher.processes:_is_the_servers_too", "launcher.supervisor:Supervisor.end"])
def test_failure_while_the_server_runs_starts_no_second_one(pod: Pod, tmp_path: Path, function: str) -> None:
    started = pod.run(**broken(pod, tmp_path, fails(function)), FAKE_EXIT="7")
    pod.waits_for("serves")
    started.send(signal.SIGTERM)
    started.says("unforeseen")
    with suppress(ProcessLookupError):  # it may have had the first signal
        pod.send(pod.noted("started")[0]["pid"], signal.SIGTERM)
    assert started.wait() == 7
    assert len(pod.noted("started")) == 1


def test_failure_that_nobody_foresaw_costs_the_server_nothing(pod: Pod, tmp_path: Path) -> None:
    folder = tmp_path / "broken"
    folder.mkdir()
    program = "from b10_transfer.launcher import supervisor\ndef load(self): raise RuntimeError('unforeseen')\n"
    (folder / "sitecustomize.py").write_text(program + "supervisor.Supervisor.load = load\n")
    started = pod.run(EXIT_7, PYTHONPATH=str(folder))
    assert started.wait() == 7
    assert "unforeseen" in started.log


def test_no_threads_to_be_had_cost_the_server_nothing(pod: Pod, tmp_path: Path) -> None:
    folder = tmp_path / "broken"
    folder.mkdir()
    program = "import threading\ndef start(self): raise RuntimeError('no threads')\nthreading.Thread.start = start\n"
    (folder / "sitecustomize.py").write_text(program)
    started = pod.run(EXIT_7, PYTHONPATH=str(folder), B10_LOADED_FILE=str(tmp_path / "loaded"))
    assert started.wait() == 7
    assert "no threads" in started.log
    assert (tmp_path / "loaded").exists()


def test_save_that_fails_is_tried_again_later_not_at_once(pod: Pod, tmp_path: Path) -> None:
    started = pod.run(B10_STORE=str(tmp_path / "missing" / "store"))
    started.says("save failed")
    for _ in range(3):
        started.send(signal.SIGUSR1)
    wait_until(lambda: len(pod.cached()) == 3 + 2 or len(pod.signals()) >= 1, "late compiles")
    started.send(signal.SIGTERM)
    assert started.wait() == 0
    assert len(lines_with("save failed", started.log)) == 2  # when it served, and at last


@pytest.mark.parametrize("stream", ["/dev/full", "closed pipe"])
def test_log_that_cannot_be_written_costs_the_server_nothing(pod: Pod, stream: str) -> None:
    script = f"$command run -- {' '.join(EXIT_7[:2])} 'exit 7' 2>/dev/full"
    if stream == "closed pipe":
        script = f"{{ $command run -- {' '.join(EXIT_7[:2])} 'exit 7'; echo $? >'{pod.path}/code'; }} 2>&1 | true"
        pod.shell(script).wait()
        assert wait_until(lambda: (pod.path / "code").exists() and (pod.path / "code").read_text(), "it") == "7\n"
        return
    assert pod.shell(script + "; exit $?").wait() == 7


def test_copy_of_the_stand_in_server_runs_by_itself(pod: Pod) -> None:
    """So that no test passes because the server does nothing."""
    shutil.copy(pod.program, pod.path / "copy")
    server = pod.start([sys.executable, str(pod.path / "copy")], FAKE_ENDS="1", FAKE_EXIT="7")
    assert server.wait() == 7
    assert pod.cached() == ["KERNEL0", "KERNEL1"]
