"""Helpers of these tests: processes that load and save, started together."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

# Waits for a line on standard input, so that all processes begin at once; prints the report as JSON, and how many
# files are below the cache root at the moment the call returns.
_PROGRAM = """
import json, os, sys
import b10_transfer
sys.stdin.readline()
report = getattr(b10_transfer, sys.argv[1])(**json.loads(sys.argv[2]))
root = os.environ["TORCHINDUCTOR_CACHE_DIR"]
files = sum(len(files) for _, _, files in os.walk(root))
print(json.dumps({"status": report.status.name, "reason": report.reason, "units": report.units, "files": files}))
"""


class Pod:
    """One process that will load or save when it is released."""

    def __init__(self, operation: str, variables: dict[str, str], **arguments: object) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", _PROGRAM, operation, json.dumps(arguments)],
            env=os.environ | variables,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def release(self) -> None:
        """Let it go."""
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()

    def kill_after(self, seconds: float) -> None:
        """Let it go, and kill it without warning some time later, wherever it is."""
        self.release()
        time.sleep(seconds)
        self.process.kill()
        self.process.communicate()


def release(pods: Iterable[Pod]) -> list[dict[str, Any]]:
    """Let all of them go at once, and return what each printed."""
    pods = list(pods)
    for pod in pods:
        pod.release()
    outcomes = []
    for pod in pods:
        output, errors = pod.process.communicate(timeout=120)
        assert pod.process.returncode == 0, errors
        outcomes.append(json.loads(output))
    return outcomes


def kernel(name: str, content: str = "", files: int = 8) -> dict[str, bytes]:
    """The files of one kernel folder, as Inductor's Triton directory holds them; all of a unit say who wrote them."""
    folder = f"triton/0/{name}"
    return {f"{folder}/part{number}.so": f"{name} {content} {number} ".encode() * 50 for number in range(files)}


def packs(store: Path) -> list[Path]:
    return sorted(store.glob("v1/*/*/packs/*"))
