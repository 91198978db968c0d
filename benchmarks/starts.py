"""Starts of a service in new processes: parameters and results. :mod:`benchmarks.replica` is such a process."""

from __future__ import annotations

import json
import os
import signal
import site
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
_FOREIGN = ("B10", "BASETEN", "MAX_CACHE", "MAX_CONCURRENT", "MIN_LOCAL", "MIN_B10FS", "CLEANUP_")
_CACHES = ("TORCHINDUCTOR_CACHE_DIR", "TRITON_CACHE_DIR", "TRITON_HOME", "XDG_CACHE_HOME", "TORCH_CACHING_PRECOMPILE")


class StartError(Exception):
    """A start failed. The first line is the reason."""


@dataclass(frozen=True)
class Request:
    """The parameters of a start."""

    models: tuple[str, ...]
    """Names in :mod:`benchmarks.models`; ``flux SIZE PART`` for those of :mod:`benchmarks.flux`."""
    restore: str = "nothing"
    """``nothing``, ``b10_transfer``, ``instant`` or ``mega-cache``."""
    mode: str = "default"
    """Of torch.compile; ``eager`` compiles nothing."""
    saves: bool = False
    """Save with b10_transfer after each model."""
    mega_cache: str = ""
    """Path of the mega-cache. A start that restores nothing writes it."""
    reference: str = ""
    """Folder of the outputs of another start, to compare with."""
    device: str = "cpu"
    dtype: str = "float32"
    steps: int = 0
    """Timed calls after the first one."""
    uncovered: bool = False
    """Also call the model with another length."""
    began: float = 0.0
    """``time.monotonic()`` before the process started."""


@dataclass
class Outcome:
    """The results of a start."""

    load: dict[str, Any] = field(default_factory=dict)
    saves: list[dict[str, Any]] = field(default_factory=list)
    mega_cache: dict[str, Any] = field(default_factory=dict)
    parts: dict[str, dict[str, Any]] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    """Seconds from the start of the process to the import of torch, and to the first output of each model."""
    peak_gpu_bytes: int = 0
    done: bool = False
    process_s: float = 0.0
    """Seconds from the start of the process to its end."""
    trouble: str = ""
    """The reason why the process ended early."""


def start(folder: Path, request: Request, environ: Mapping[str, str], limit_s: float | None = None) -> Outcome:
    """Run a start in a new process, and kill it after ``limit_s`` seconds.

    Raises:
        StartError: no model has answered.
    """
    folder.mkdir(exist_ok=True)
    given = replace(request, began=time.monotonic())
    (folder / "request.json").write_text(json.dumps(asdict(given)))
    trouble = ""
    try:
        run([str(folder)], folder, environ, limit_s)
    except StartError as error:
        trouble = str(error)
    process_s, path = time.monotonic() - given.began, folder / "outcome.json"
    if not path.exists():
        raise StartError(trouble or "the process wrote no outcome")
    return Outcome(**(json.loads(path.read_text()) | {"trouble": trouble, "process_s": process_s}))


def run(arguments: list[str], folder: Path, environ: Mapping[str, str], limit_s: float | None = None) -> str:
    """Run :mod:`benchmarks.replica`, and kill all its processes after ``limit_s`` seconds. Returns its output.

    Raises:
        StartError: it failed or was killed.
    """
    paths = os.pathsep.join(filter(None, (environ.get("PYTHONPATH"), str(ROOT))))
    command, environ = [sys.executable, "-m", "benchmarks.replica", *arguments], {**environ, "PYTHONPATH": paths}
    with (folder / "stdout.txt").open("w") as out, (folder / "stderr.txt").open("w") as log:
        process = subprocess.Popen(command, env=environ, cwd=folder, stdout=out, stderr=log, start_new_session=True)
        try:
            status = process.wait(limit_s and max(1.0, limit_s))
        except subprocess.TimeoutExpired:
            raise StartError(f"killed after {limit_s:.0f} s, the time that was left") from None
        finally:
            if process.poll() is None:
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait()
    if status:
        tail = (folder / "stderr.txt").read_text(errors="replace")[-3000:].strip()
        raise StartError(f"status {status}: {(tail.splitlines() or ['nothing in its log'])[-1].strip()}\n{tail}")
    return (folder / "stdout.txt").read_text()


def environment(home: Path, store: Path) -> dict[str, str]:
    """The caller's variables, with an empty home and empty caches."""
    kept = {name: text for name, text in os.environ.items() if not name.startswith(_FOREIGN) and name not in _CACHES}
    paths = [str(Path(path).resolve()) for path in kept.get("PYTHONPATH", "").split(os.pathsep) if path]
    return kept | {
        "PYTHONPATH": os.pathsep.join(paths),
        "PYTHONUSERBASE": site.getuserbase(),  # otherwise below the home
        "HOME": str(home / "home"),
        "TMPDIR": str(home / "tmp"),
        "LOCAL_WORK_DIR": str(home),
        # TRITON_CACHE_DIR stays unset, as in most services: Inductor keeps Triton's kernels in its own directory.
        "TORCHINDUCTOR_CACHE_DIR": str(home / "inductor"),
        "CUDA_CACHE_PATH": str(home / "cuda"),
        "B10_STORE": str(store),
        "B10_NAMESPACE": "flux",
    }
