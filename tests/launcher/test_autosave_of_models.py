"""Autosave with real torch: whatever any process of a program compiled is in the store when the program has ended."""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.launcher.pod import LONG, Pod, Started, wait_until

pytestmark = pytest.mark.torch

_MODEL = str(Path(__file__).with_name("model.py"))
_TORCHRUN = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=4"]
_VARIABLES = {
    # Without vector instructions a kernel compiles in half the time.
    "TORCHINDUCTOR_VEC_ISA_OK": "0",
    # A forked process has none of the threads of its parent's pool of compilers.
    "TORCHINDUCTOR_COMPILE_THREADS": "1",
    # Only the save at the end, which must find everything.
    "B10_QUIET_SECONDS": LONG,
}


@pytest.fixture
def next_pod(pod: Pod, tmp_path: Path) -> Iterator[Pod]:
    """Another pod with the same store."""
    other = Pod(tmp_path / "next")
    other.variables["B10_STORE"] = str(pod.store)
    yield other
    other.close()


def started(pod: Pod, *arguments: str) -> Started:
    return pod.start([sys.executable, *arguments], **_VARIABLES)


def ended(program: Started) -> int:
    """Wait for a program that compiles, and return its exit code."""
    return program.process.wait(300)


def compiled(program: Started) -> list[int]:
    """How many graphs each process of a program compiled anew."""
    return [json.loads(line)["compiled"] for line in program.output.splitlines() if line.startswith("{")]


@pytest.mark.parametrize(
    ("command", "processes"),
    [((_MODEL, "script"), 1), ((*_TORCHRUN, _MODEL, "ranks"), 4), ((_MODEL, "workers"), 2)],
    ids=["script", "torchrun", "forked-server"],
)
def test_next_pod_compiles_nothing_of_what_a_program_compiled(
    pod: Pod, next_pod: Pod, command: tuple[str, ...], processes: int
) -> None:
    program = started(pod, *command, "4")
    assert ended(program) == 0, program.log
    assert compiled(program) == [1] * processes, program.log
    pod.is_deserted()
    assert "not saved" not in program.log
    # In the same way: torchrun limits the threads of its ranks, which is part of torch's key.
    proof = started(next_pod, *command, "4")
    assert ended(proof) == 0, proof.log
    assert compiled(proof) == [0] * processes, proof.log


def test_next_pod_compiles_nothing_of_what_a_terminated_server_compiled(pod: Pod, next_pod: Pod) -> None:
    server = started(pod, _MODEL, "server", "4", "5")
    wait_until(lambda: compiled(server) or server.process.poll() is not None, "a compiled model", 300)
    server.send(signal.SIGTERM)
    assert ended(server) == -signal.SIGTERM
    assert compiled(server) == [2], server.log
    pod.is_deserted()
    proof = started(next_pod, _MODEL, "script", "4", "5")
    assert ended(proof) == 0, proof.log
    assert compiled(proof) == [0], proof.log
