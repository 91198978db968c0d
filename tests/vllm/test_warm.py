"""``b10-compile-cache warm --verify`` with the real server: on a fresh store, and if a flag has changed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from tests.vllm.conftest import NewPod
from tests.vllm.server import STOP_S, Pod, Server, SetUp

_WARM = ("b10-compile-cache", "warm", "--verify")
_EXERCISE = (
    'python -c "import os, urllib.request as r; '
    "r.urlopen(os.environ['B10_SERVER_URL'] + '/v1/models', timeout=60).close()\""
)


def warm(pod: Pod, model: Path, *options: str, length: str = "512") -> tuple[int, Server]:
    """The exit code, and the server with its log."""
    with pod.serve(model, "--max-model-len", length, prefix=(*_WARM, *options, "--")) as server:
        server.wait_until("its end", lambda: server.process.poll() is not None)
        return server.process.wait(STOP_S), server


def test_verified_store_has_everything_and_a_changed_flag_is_found_out(new_pod: NewPod, model: Path) -> None:
    pod = new_pod(SetUp.GPU_MODE, "warm", "warm")
    code, server = warm(pod, model, "--exercise", _EXERCISE)
    assert code == 0, server.log
    assert "verified: a new replica compiles nothing" in server.log
    changed = replace(pod, variables={"B10_READ_ONLY": "1"}).empty()
    code, server = warm(changed, model, length="256")
    assert code == 4, server.log
    assert "the store lacks" in server.log
    assert "not in the store: " in server.log
    pod.wait_until_deserted()
