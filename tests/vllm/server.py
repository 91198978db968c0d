"""A replica, and the real vLLM server in it.

A :class:`Pod` has a home, a temporary folder and a cache root of its own, and shares the store with others. Emptying it
is what a new replica is: nothing is left but the store. A :class:`Server` is one ``vllm serve`` in a pod.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from types import TracebackType

BIN = Path(sys.executable).parent
READY_S = 240
"""A cold start takes some 60 s on two cores."""
STOP_S = 60
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

    def serve(self, model: Path, *options: str, prefix: Sequence[str] = ()) -> Server:
        """Start ``<prefix> vllm serve <model> <options>``; it need not be ready when this returns."""
        return Server(self, model, options, prefix)


class Server:
    """One ``vllm serve``. Leaving it as a context stops it, and kills what does not stop."""

    def __init__(self, pod: Pod, model: Path, options: Sequence[str] = (), prefix: Sequence[str] = ()) -> None:
        self.port = _free_port()
        # Beside the pod, so that it survives the emptying.
        self.log_path = pod.root.with_name(f"{pod.root.name}-{self.port}.log")
        self._model = model
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
        while time.monotonic() - self.started < READY_S:
            if self.process.poll() is not None:
                raise AssertionError(f"the server ended with {self.process.returncode}:\n{self.log[-8000:]}")
            if self._answers():
                self.ready_s = time.monotonic() - self.started
                return self
            time.sleep(0.2)
        raise AssertionError(f"the server is not ready after {READY_S} s:\n{self.log[-8000:]}")

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

    def stop(self) -> int:
        """End it with SIGTERM, if it has not ended, and return its exit code."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        return self.process.wait(STOP_S)

    def _answers(self) -> bool:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/v1/models", timeout=5):
                return True
        except (urllib.error.URLError, OSError):
            return False


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _kill_group(leader: int) -> None:
    try:
        os.killpg(leader, signal.SIGKILL)
    except ProcessLookupError:
        return
