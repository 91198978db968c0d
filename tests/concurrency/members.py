"""Processes of one job on several nodes, and processes that publish packs meanwhile.

A *node* is a process that has everything imported and forks the members of a job, one job after the other.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

MEMBERS = 8


class Process:
    """A node, or a saver, that runs until it is closed."""

    def __init__(self, role: str, variables: dict[str, str]) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.concurrency.members", role],
            env=os.environ | variables,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=Path(__file__).parents[2],
        )

    def begin(self, group: str, folder: Path, kills: int, seed: int) -> None:
        """Start the members of a job, some of which are killed."""
        assert self.process.stdin is not None
        print(json.dumps([group, str(folder), kills, seed]), file=self.process.stdin, flush=True)

    def results(self) -> list[dict[str, Any]]:
        """Wait for the members. Returns the reports of those that were not killed."""
        assert self.process.stdout is not None
        results: list[dict[str, Any]] = json.loads(self.process.stdout.readline())
        return results

    def close(self) -> None:
        self.process.kill()
        self.process.communicate()


def _node() -> None:
    from b10_transfer import load

    load(namespace="nobody", deadline_s=30)  # so that everything is imported
    while threading.active_count() > 1:
        time.sleep(0.001)
    for line in sys.stdin:
        group, folder, kills, seed = json.loads(line)
        print(json.dumps(_run_job(group, Path(folder), kills, random.Random(seed))), flush=True)
        shutil.rmtree(folder, ignore_errors=True)


def _run_job(group: str, folder: Path, kills: int, chance: random.Random) -> list[dict[str, Any]]:
    members = [_fork(group, folder / str(number)) for number in range(MEMBERS)]
    for pid, _pipe in chance.sample(members, kills):
        time.sleep(chance.uniform(0, 0.1))
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    answers = []
    for pid, pipe in members:
        with open(pipe, "rb") as file:
            answers.append(file.read())
        os.waitpid(pid, 0)
    return [json.loads(answer) for answer in answers if answer]


def _fork(group: str, root: Path) -> tuple[int, int]:
    reading, writing = os.pipe()
    pid = os.fork()
    if pid:
        os.close(writing)
        return pid, reading
    try:
        os.close(reading)
        os.environ["TRITON_CACHE_DIR"] = str(root)
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = f"{root}-inductor"
        from b10_transfer import load

        report = load(group=group)
        files = sorted(path for path in root.rglob("*") if path.is_file())
        digest = hashlib.sha256()
        for path in files:
            digest.update(f"{path.relative_to(root)} {path.read_bytes()!r}\n".encode())
        facts = {
            "status": report.status.name,
            "reason": report.reason,
            "group": report.group,
            "files": len(files),
            "content": digest.hexdigest(),
        }
        os.write(writing, json.dumps(facts).encode())
    finally:
        os._exit(0)


def _saver() -> None:
    """Compile and save without end: new kernels, and other versions of old ones."""
    from b10_transfer import save

    root = Path(os.environ["TRITON_CACHE_DIR"])
    for number in range(10**9):
        # After an hour a version of a unit may replace another. Until then a new unit is what a save publishes.
        folder = root / f"KERNEL{os.getpid()}X{number}"
        folder.mkdir(parents=True)
        (folder / "launcher.so").write_text(f"{os.getpid()} {number}")
        save()
        time.sleep(0.1)


if __name__ == "__main__":
    _node() if sys.argv[1] == "node" else _saver()
