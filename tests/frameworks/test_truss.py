"""The examples on Truss's own inference server, without Docker: a replica loads, predicts, and ends at SIGINT.

The first replica compiles and saves. The second one starts in an empty folder and compiles nothing.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from tests.launcher.pod import free_port

pytest.importorskip("truss", reason="it runs in the environment of `make test-frameworks` with Truss")

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"
QUICKLY = {"TORCHINDUCTOR_VEC_ISA_OK": "0"}
"""Without vector instructions a kernel compiles in half the time."""
LIMIT_S = 300
"""For a start that compiles, on a busy machine."""


def lay_out(example: str, folder: Path) -> Path:
    """Make the folder that Truss's image has as /app."""
    truss = import_module("truss.truss_handle.build").load(str(EXAMPLES / example))
    truss.docker_build_setup(build_dir=folder / "build")
    app = folder / "app"
    shutil.copytree(folder / "build" / "server", app)
    shutil.copytree(folder / "build" / "model", app / "model")
    shutil.copy(folder / "build" / "config.yaml", app)
    return app


class Replica:
    """A running server."""

    def __init__(self, process: subprocess.Popen[bytes], port: int, log: Path) -> None:
        self.process, self._url, self._log = process, f"http://127.0.0.1:{port}/v1/models/model", log

    @property
    def log(self) -> str:
        return self._log.read_text(errors="replace")

    def wait_until_ready(self) -> None:
        ends = time.monotonic() + LIMIT_S
        while not self._is_ready():
            assert self.process.poll() is None, self.log
            assert time.monotonic() < ends, self.log
            time.sleep(0.1)

    def _is_ready(self) -> bool:
        try:
            with urllib.request.urlopen(self._url, timeout=LIMIT_S) as answer:
                return bool(answer.status == 200)
        except (urllib.error.URLError, ConnectionError):
            return False

    def predict(self, request: Mapping[str, Any]) -> Any:
        body = json.dumps(request).encode()
        sent = urllib.request.Request(f"{self._url}:predict", body, {"Content-Type": "application/json"})
        with urllib.request.urlopen(sent, timeout=LIMIT_S) as answer:
            return json.load(answer)

    def interrupt(self) -> None:
        """End it as Truss does, and check that it was not killed. uvicorn may raise the signal again at its end."""
        self.process.send_signal(signal.SIGINT)
        assert self.process.wait(LIMIT_S) in (0, -signal.SIGINT)
        assert "Finished server process" in self.log


@contextmanager
def replica(app: Path, pod: Path, store: Path) -> Iterator[Replica]:
    """A replica with an empty home."""
    pod.mkdir()
    port = free_port()
    places = {"HOME": str(pod), "TMPDIR": str(pod), "LOCAL_WORK_DIR": str(pod), "B10_STORE": str(store)}
    environ = {name: value for name, value in os.environ.items() if not name.startswith(("B10_", "TORCH", "TRITON"))}
    environ |= places | QUICKLY | {"APP_HOME": str(app), "INFERENCE_SERVER_PORT": str(port), "B10_NAMESPACE": "truss"}
    log = pod / "log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "main.py"], cwd=app, env=environ, stdout=output, stderr=output, start_new_session=True
        )
        try:
            yield Replica(process, port, log)
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of packages that Truss uses
def test_second_replica_of_the_small_example_starts_warm(tmp_path: Path) -> None:
    app, store = lay_out("truss_small", tmp_path), tmp_path / "store"
    answers = []
    for name, loaded, saved in (("first", "DOES_NOT_EXIST", "SUCCESS"), ("second", "SUCCESS", "SKIPPED")):
        with replica(app, tmp_path / name, store) as server:
            server.wait_until_ready()
            answers.append(server.predict({"text": "a quick fox"})["embedding"])
            server.interrupt()
            assert f"load: {loaded}" in server.log
            assert f"save: {saved}" in server.log
    assert answers[0] == answers[1]
    assert len(list(store.rglob("*.tar.zst"))) == 1


CONSTANTS = {
    "SIZES": "((16, 16),)",
    "STEPS": "2",
    "PROMPT_TOKENS": "32",
    "MODE": "None",
    "DEVICE, DTYPE": '"cpu", torch.float32',
}
"""In place of those for an H100."""


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.timeout(1800)
def test_second_replica_of_the_flux_example_starts_warm(tmp_path: Path) -> None:
    """The example as it is, but for the constants at its beginning: tiny weights on the CPU."""
    app, store, weights = lay_out("truss_flux", tmp_path), tmp_path / "store", tmp_path / "weights"
    tiny_flux = "tests.frameworks.programs.tiny_flux"
    subprocess.run([sys.executable, "-m", tiny_flux, str(weights)], cwd=ROOT, check=True)
    model = app / "model" / "model.py"
    text = model.read_text()
    for name, value in {**CONSTANTS, "WEIGHTS": repr(str(weights))}.items():
        text, replaced = re.subn(f"(?m)^{name} = .*$", f"{name} = {value}", text)
        assert replaced == 1, name
    model.write_text(text)
    images = []
    for name, loaded, saved in (("first", "DOES_NOT_EXIST", "SUCCESS"), ("second", "SUCCESS", "SKIPPED")):
        with replica(app, tmp_path / name, store) as server:
            server.wait_until_ready()
            images.append(server.predict({"prompt": "a red fox", "width": 16, "height": 16})["data"])
            server.interrupt()
            assert f"load: {loaded}" in server.log
            assert f"save: {saved}" in server.log
    assert images[0] == images[1]
