"""A pod for these tests: a home, a store, a stand-in server named ``vllm``, and every process that is started in it."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

COMMAND = str(Path(sys.executable).with_name("b10-compile-cache"))
_SERVER = Path(__file__).with_name("fake_server.py")
_FOREIGN = ("B10", "BASETEN", "TORCH", "TRITON", "VLLM", "CUDA", "MAX_", "LOCAL_WORK_DIR", "CLEANUP_", "XDG_", "FAKE_")
_PATIENCE_S = 20.0
"""A test that fails waits so long; none that passes does."""
LONG = "600"
"""Seconds that do not pass during a test."""


def wait_until(condition: Callable[[], Any], what: object, seconds: float = _PATIENCE_S) -> Any:
    """Wait for a condition and return what it answers."""
    until = time.monotonic() + seconds
    while not (answer := condition()):
        assert time.monotonic() < until, f"in vain waited for {what}"
        time.sleep(0.02)
    return answer


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
        assert isinstance(port, int)
        return port


class Started:
    """A process of a pod."""

    def __init__(self, process: subprocess.Popen[bytes], output: Path, log: Path) -> None:
        self.process = process
        self._output = output
        self._log = log

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def log(self) -> str:
        """What it has written to stderr so far."""
        return self._log.read_text()

    @property
    def output(self) -> str:
        """What it has written to stdout so far."""
        return self._output.read_text()

    def send(self, number: int) -> None:
        self.process.send_signal(number)

    def wait(self) -> int:
        """Its exit code, as a shell tells it."""
        try:
            code = self.process.wait(_PATIENCE_S)
        except subprocess.TimeoutExpired as error:
            raise AssertionError(f"it does not end; it said: {self.log}") from error
        return code if code >= 0 else 128 - code

    def says(self, text: str, times: int = 1) -> None:
        """Wait until it has written ``text`` to stderr so many times."""
        try:
            wait_until(lambda: self.log.count(text) >= times, text)
        except AssertionError as error:
            raise AssertionError(f"{text!r} is not in {self.log}") from error


class Pod:
    """Where a test's processes run. ``variables`` is their environment; times are short."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.home, self.store, self.cache = path / "home", path / "store", path / "home" / "triton"
        self.port = free_port()
        self._started: list[Started] = []
        (path / "bin").mkdir(parents=True)
        self.home.mkdir()
        (path / "tmp").mkdir()
        self.program = path / "bin" / "vllm"
        self.program.symlink_to(_SERVER)
        self.server = [sys.executable, str(self.program), "serve", "model", "--port", str(self.port)]
        self.log = path / "server.log"
        foreign = {name: value for name, value in os.environ.items() if not name.startswith(_FOREIGN)}
        self.variables: dict[str, str] = foreign | {
            "HOME": str(self.home),
            "TMPDIR": str(path / "tmp"),
            "LOCAL_WORK_DIR": "/tmp",
            "B10_STORE": str(self.store),
            "TRITON_CACHE_DIR": str(self.cache),
            "FAKE_LOG": str(self.log),
            "B10_TRANSFER_INTERVAL_S": "0.1",
            "B10_QUIET_SECONDS": "0.3",
            # No deadline passes unless a test is about it: a slow machine is no failure.
            "B10_START_WITHIN_SECONDS": LONG,
            "B10_LAST_SAVE_SECONDS": LONG,
            # A killed saver's lease must not hold up the next save for long.
            "CLEANUP_LOCK_TIMEOUT_SECONDS": "1",
        }

    def start(self, arguments: Sequence[str], wrapper: Sequence[str] = (), **variables: str) -> Started:
        """Start a program in a session of its own."""
        output, log = (self.path / f"{len(self._started)}.{name}" for name in ("output", "log"))
        with output.open("w") as stdout, log.open("w") as stderr:
            process = subprocess.Popen(
                [*wrapper, *arguments],
                env=self.variables | variables,
                cwd=self.home,
                stdin=subprocess.DEVNULL,
                stdout=stdout,
                stderr=stderr,
                start_new_session=True,
            )
        self._started.append(Started(process, output, log))
        return self._started[-1]

    def run(self, server: Sequence[str] | None = None, wrapper: Sequence[str] = (), **variables: str) -> Started:
        """``b10-compile-cache run -- SERVER``."""
        return self.start([COMMAND, "run", "--", *(server or self.server)], wrapper, **variables)

    def shell(self, script: str, **variables: str) -> Started:
        """A shell script in which ``$command`` is our command and ``$server`` the stand-in server's."""
        server = " ".join(f"'{argument}'" for argument in self.server)
        script = script.replace("$server", server).replace("$command", f"'{COMMAND}'")
        return self.start(["sh", "-c", script], **variables)

    def command(self, name: str, **variables: str) -> subprocess.CompletedProcess[str]:
        """``b10-compile-cache NAME``, to its end."""
        return subprocess.run(
            [COMMAND, name], env=self.variables | variables, cwd=self.home, capture_output=True, text=True
        )

    def serve_and_end(self, **variables: str) -> Started:
        """One life of a server under ``run``: it serves, is asked to end, and what it has compiled is saved."""
        begun = len(self.noted("serves"))
        started = self.run(**variables)
        wait_until(lambda: len(self.noted("serves")) > begun, f"a server; {started.log}")
        started.says(" compiled, load ")
        started.send(signal.SIGTERM)
        started.wait()
        return started

    def noted(self, event: str) -> list[dict[str, Any]]:
        """What servers have noted of one kind."""
        lines = self.log.read_text().splitlines() if self.log.exists() else []
        return [fact for fact in map(json.loads, lines) if fact["event"] == event]

    def waits_for(self, event: str, count: int = 1) -> dict[str, Any]:
        """Wait until a server has noted something so many times; returns the last such note."""
        wait_until(
            lambda: len(self.noted(event)) >= count, f"{event!r}; noted: {self.log.exists() and self.log.read_text()}"
        )
        return self.noted(event)[-1]

    def signals(self) -> list[int]:
        """The signals that servers have received."""
        return [fact["number"] for fact in self.noted("signal")]

    def compile(self, *names: str) -> None:
        """Units in the cache, as a server's compiler writes them."""
        for name in names:
            folder = self.cache / name
            folder.mkdir(parents=True)
            (folder / "kernel.cubin").write_bytes(name.encode() * 100)
            paths = {"kernel.cubin": str(folder / "kernel.cubin")}
            (folder / "__grp__kernel.json").write_text(json.dumps({"child_paths": paths}))

    def cached(self) -> list[str]:
        """The units in the cache."""
        return sorted(path.parent.name for path in self.cache.glob("*/__grp__kernel.json"))

    def empty_cache(self) -> None:
        for path in sorted(self.cache.rglob("*"), reverse=True):
            path.rmdir() if path.is_dir() else path.unlink()

    def stored(self) -> list[str]:
        """The units in the store: what a load gives to a pod with an empty cache."""
        elsewhere = self.path / f"elsewhere-{time.monotonic_ns()}"
        self.command("load", TRITON_CACHE_DIR=str(elsewhere), B10_DEADLINE_SECONDS="60")
        return sorted(path.parent.name for path in elsewhere.glob("*/__grp__kernel.json"))

    def processes(self) -> dict[int, str]:
        """Everything that runs in this pod, be it orphaned or in a session of its own: its id and command line."""
        found = {}
        for folder in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):
                alive = (folder / "stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
                if alive and f"HOME={self.home}\0".encode() in (folder / "environ").read_bytes():
                    found[int(folder.name)] = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode()
        return found

    def send(self, pid: int, number: int) -> None:
        """Send a signal to any process of this pod."""
        os.kill(pid, number)

    def is_deserted(self) -> None:
        """Wait until nothing runs in this pod any more."""
        wait_until(lambda: not self.processes(), f"the end of {self.processes()}")

    def close(self) -> None:
        for started in self._started:
            started.process.kill()
            started.process.wait()
        # Again, if need be: one of them may have been about to start another.
        until = time.monotonic() + _PATIENCE_S
        while (running := self.processes()) and time.monotonic() < until:
            for pid in running:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(0.01)


def lines_with(text: str, log: str) -> list[str]:
    return [line for line in log.splitlines() if text in line]


def without(names: Iterable[str], variables: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in variables.items() if name not in set(names)}


def end(mount: Path) -> Path:
    """End the file system that is mounted at ``mount``, which answers what hangs in it; returns what lay below it."""
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            arguments = (folder / "cmdline").read_bytes().split(b"\0")
            if str(mount).encode() in arguments and any(name.endswith(b"passthrough.py") for name in arguments):
                os.kill(int(folder.name), signal.SIGKILL)
    return mount.with_name("below")
