"""A replica, and the real vLLM server in it.

A :class:`Pod` has a home, a temporary folder and a cache root of its own, and shares the store with others. Emptying it
is what a new replica is: nothing is left but the store. A :class:`Server` is one ``vllm serve`` in a pod.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from types import TracebackType

BIN = Path(sys.executable).parent
READY_S = 600
"""A cold start takes some 60 s on two cores that have nothing else to do."""
STOP_S = 120
AGAIN_S = 5
"""A server that serves ends in a second or two."""
_OWN = ("B10_", "VLLM_", "TORCH", "TRITON", "XDG_", "HF_")
"""Variables of these kinds say where caches are or what is compiled: a pod has none but its own."""


class SetUp(Enum):
    """How the server compiles."""

    STOCK = "stock"
    """vLLM as it is on CPUs, without its ahead-of-time artifact, which its CPU build cannot read back."""
    GPU_MODE = "patched to the GPU's compile mode"
    """The path that GPUs take, ahead-of-time artifacts included: see plugin/."""

    @property
    def variables(self) -> dict[str, str]:
        if self is SetUp.STOCK:
            return {"VLLM_USE_AOT_COMPILE": "0"}
        return {"B10_TEST_COMPILE_MODE": "3"}


class Way(Enum):
    """How the server is started."""

    ALONE = "vllm serve"
    RUN = "b10-compile-cache run -- vllm serve"
    BACKGROUND = "b10-compile-cache & vllm serve"

    @property
    def prefix(self) -> tuple[str, ...]:
        """What stands before the server's own command line."""
        if self is Way.RUN:
            return ("b10-compile-cache", "run", "--")
        if self is Way.BACKGROUND:
            return background("b10-compile-cache")
        return ()


def background(command: str) -> tuple[str, ...]:
    """The documented start-up script, with ``command`` in the background.

    The last line is there to keep the shell, as in a script that is a file.
    """
    return ("sh", "-c", f'{command} &\n"$@"\nexit $?', "sh")


@dataclass(frozen=True)
class Report:
    """What a load or a save says about itself."""

    status: str
    reason: str
    units: int


@dataclass(frozen=True)
class Pod:
    """A replica's own directories below ``root``, and the store that it shares."""

    root: Path
    store: Path
    set_up: SetUp
    variables: dict[str, str] = field(default_factory=dict)
    """More variables, or other values."""

    @property
    def cache_root(self) -> Path:
        return self.root / "vllm"

    @property
    def environment(self) -> dict[str, str]:
        """What the pod's processes see."""
        outside = {name: value for name, value in os.environ.items() if not name.startswith(_OWN)}
        return {
            **outside,
            "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}",
            "HOME": str(self.root / "home"),
            "TMPDIR": str(self.root / "tmp"),
            "VLLM_CACHE_ROOT": str(self.cache_root),
            "VLLM_NO_USAGE_STATS": "1",
            "VLLM_CPU_KVCACHE_SPACE": "1",
            "HF_HUB_OFFLINE": "1",
            "B10_STORE": str(self.store),
            **self.set_up.variables,
            **self.variables,
        }

    def empty(self) -> Pod:
        """Make it a new replica, whatever it was before."""
        shutil.rmtree(self.root, ignore_errors=True)
        for name in ("home", "tmp"):
            (self.root / name).mkdir(parents=True)
        return self

    def files(self) -> dict[str, int]:
        """Its files but for locks, with the time (ns) of the last change, by their paths below ``root``."""
        return {
            path.relative_to(self.root).as_posix(): path.lstat().st_mtime_ns
            for path in self.root.rglob("*")
            if path.is_file() and path.suffix != ".lock"
        }

    def artifacts(self) -> dict[str, str]:
        """What compilers have left in it: digests of the files' contents, by the paths below ``root``."""
        found = (path for path in self.files() if "/torch_compile_cache/" in path or "/torchinductor_" in path)
        return {path: hashlib.sha256((self.root / path).read_bytes()).hexdigest() for path in found}

    def processes(self) -> dict[int, str]:
        """Whatever runs in it, orphaned or in a session of its own: the command lines by process ids.

        Known by its working directory: vLLM writes its processes' names over their environments.
        """
        found = {}
        for process in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):  # it has ended meanwhile
                alive = (process / "stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
                if alive and Path(os.readlink(process / "cwd")).is_relative_to(self.root):
                    found[int(process.name)] = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode()
        return found

    def wait_until_deserted(self) -> None:
        """Return once nothing runs in it. Raises AssertionError, with what does, if that takes too long."""
        until = time.monotonic() + STOP_S
        while found := self.processes():
            if time.monotonic() > until:
                raise AssertionError(f"still there: {found}")
            time.sleep(0.1)

    def run(self, *command: str) -> str:
        """Run a program that ends by itself; what it printed. Raises AssertionError, with its errors, if it fails."""
        result = subprocess.run(
            command, env=self.environment, cwd=self.root, capture_output=True, text=True, timeout=READY_S, check=False
        )
        if result.returncode:
            raise AssertionError(f"{command} ended with {result.returncode}:\n{result.stdout}\n{result.stderr}")
        return result.stdout

    def call(self, operation: str) -> Report:
        """``load`` or ``save`` in a Python of its own, as a start-up script would."""
        program = f"""
import json
from b10_transfer import {operation}
report = {operation}()
print(json.dumps([report.status.name, report.reason, report.units]))
"""
        return Report(*json.loads(self.run(sys.executable, "-c", program)))

    def serve(self, model: Path, *options: str, prefix: Sequence[str] = Way.ALONE.prefix) -> Server:
        """Start ``<prefix> vllm serve <model> <options>``; it need not be ready when this returns."""
        return Server(self, model, options, prefix)


class Server:
    """One ``vllm serve``, and what started it. Leaving it as a context stops it, and kills what does not stop."""

    def __init__(self, pod: Pod, model: Path, options: Sequence[str] = (), prefix: Sequence[str] = ()) -> None:
        self.port = _free_port()
        # Beside the pod, so that it survives the emptying.
        self.log_path = pod.root.with_name(f"{pod.root.name}-{self.port}.log")
        self._model = model
        self._pod = pod
        self._by_shell = prefix[:1] == ("sh",)
        command = [*prefix, "vllm", "serve", str(model), "--port", str(self.port), "--host", "127.0.0.1"]
        command += ["--load-format", "dummy", "--dtype", "bfloat16", "--max-num-seqs", "8"]
        command += ["--max-num-batched-tokens", "512"]
        command += ["--max-model-len", "512"] if "--max-model-len" not in options else []
        self.started = time.monotonic()
        self.ready_s: float | None = None
        """Seconds from the start until it answered."""
        with self.log_path.open("wb") as log:
            # A session of its own, so that all of it can be killed.
            self.process = subprocess.Popen(
                [*command, *options],
                env=pod.environment,
                cwd=pod.root,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def __enter__(self) -> Server:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.stop()
        finally:
            # The engine is a child of the server and outlives it if that was killed.
            _kill_group(self.process.pid)

    @property
    def log(self) -> str:
        """All that the server, and what started it, has printed."""
        return self.log_path.read_text(errors="replace")

    def wait_until_ready(self) -> Server:
        """Return once it serves. Raises AssertionError, with the log, if it ends instead or takes too long."""
        self.wait_until("an answer", self._answers)
        self.ready_s = time.monotonic() - self.started
        return self

    def wait_until_it_says(self, pattern: str) -> str:
        """Return the first line of the log that holds a regular expression. Raises AssertionError as above."""
        self.wait_until(repr(pattern), lambda: re.search(pattern, self.log) is not None)
        return next(line for line in self.log.splitlines() if re.search(pattern, line))

    def wait_until(self, what: str, condition: Callable[[], bool]) -> None:
        """Return once something holds. Raises AssertionError as above."""
        while not condition():
            ended = self.process.poll() is not None
            if ended and not condition():
                raise AssertionError(f"{self.process.returncode} came before {what}:\n{self.log[-8000:]}")
            if time.monotonic() - self.started > READY_S:
                raise AssertionError(f"in vain waited {READY_S} s for {what}:\n{self.log[-8000:]}")
            time.sleep(0.1)

    def complete(self, prompt: str = "A tokenizer knows", tokens: int = 24) -> str:
        """What the model adds to a prompt, always the likeliest token. Raises OSError if it does not answer."""
        question = {"model": str(self._model), "prompt": prompt, "max_tokens": tokens, "temperature": 0}
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port}/v1/completions",
            json.dumps(question).encode(),
            {"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=60) as answer:
            return str(json.load(answer)["choices"][0]["text"])

    @property
    def pid(self) -> int | None:
        """The process of ``vllm serve`` itself: the topmost one, if there is one already."""
        servers = {pid for pid, line in self._pod.processes().items() if _SERVER.match(line)}
        return min((pid for pid in servers if _parent(pid) not in servers), default=None)

    def stop(self) -> int:
        """End with SIGTERM what was started, if it has not ended; its exit code, as a shell tells it.

        A shell would die of it and leave the server, so there the server gets it. vLLM (0.32) may lose one that comes
        while its engine starts, and serve after all: then it gets another.
        """
        until = time.monotonic() + STOP_S
        while self.process.poll() is None:
            if time.monotonic() > until:
                raise AssertionError(f"it does not end:\n{self.log[-8000:]}")
            os.kill((self.pid if self._by_shell else None) or self.process.pid, signal.SIGTERM)
            self._wait_for_the_end(until)
        code = self.process.returncode
        return code if code >= 0 else 128 - code

    def _wait_for_the_end(self, until: float) -> None:
        """Return when it has ended, when it serves all the same, or when it is late."""
        while time.monotonic() < until:
            with suppress(subprocess.TimeoutExpired):
                self.process.wait(AGAIN_S)
                return
            if self._answers():
                return

    def _answers(self) -> bool:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/v1/models", timeout=5):
                return True
        except (urllib.error.URLError, OSError):
            return False


_SERVER = re.compile(r"\S*python\S* \S*/vllm serve ")


def _parent(pid: int) -> int | None:
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    except OSError:
        return None


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _kill_group(leader: int) -> None:
    try:
        os.killpg(leader, signal.SIGKILL)
    except ProcessLookupError:
        return
