"""One start of a service with FLUX.1, in a process of its own: restore, compile, answer, and tell what it took.

    python -m benchmarks.gpu_replica FOLDER     # reads FOLDER/request.json, writes FOLDER/outcome.json as it goes
    python -m benchmarks.gpu_replica --facts    # prints what there is on this machine

:mod:`benchmarks.gpu_cold_start` runs this. The process's end is what frees the device's memory.
"""

from __future__ import annotations

import inspect
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from b10_transfer import OperationStatus, load, save
from benchmarks.compile_activity import Activity
from benchmarks.flux import SIZES, Part, build
from benchmarks.gpu_starts import Request

MODE = "max-autotune-no-cudagraphs"
DEADLINE_S = 240.0
"""For a load or a save: what is measured here is how long they take, not that they give up."""
TOLERANCES = {"float32": 1e-4, "bfloat16": 2e-2}
"""How far outputs may be apart and still be equal, in parts of the largest value, where they are not bitwise equal."""
_STEPS_BEFORE = 2


@dataclass
class Outcome:
    """What came of it; kept in a file from the first part on, so that less remains unknown if the process is ended."""

    load: dict[str, Any] = field(default_factory=dict)
    saves: list[dict[str, Any]] = field(default_factory=list)
    mega_cache: dict[str, Any] = field(default_factory=dict)
    parts: dict[str, dict[str, Any]] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    """Since the process was started: when torch was imported, and when each part had answered for the first time."""
    peak_gpu_bytes: int = 0
    done: bool = False

    def write(self, folder: Path) -> None:
        scratch = folder / "outcome.json.new"
        scratch.write_text(json.dumps(asdict(self), indent=1))
        scratch.replace(folder / "outcome.json")


class Replica:
    """A service that starts."""

    def __init__(self, folder: Path, request: Request) -> None:
        self._folder, self._request = folder, request
        self._device, self._dtype = torch.device(request.device), getattr(torch, request.dtype)
        self._built: dict[str, Part] = {}
        self.outcome = Outcome()

    def run(self) -> None:
        self._passed("imported torch")
        self.outcome.load = self._restore()
        with torch.no_grad():
            self._wake()
            for name in self._request.parts:
                if self._built and time.monotonic() > self._request.begin_until:
                    self.outcome.left_out[name] = "no time was left in the budget"
                    continue
                self._first_call(name)
                if self._request.saves:
                    self.outcome.saves.append(_told(save(deadline_s=DEADLINE_S)))
                self.outcome.write(self._folder)
            if self._request.saves:
                self.outcome.mega_cache = self._save_mega_cache()
            for name, part in self._built.items():
                self.outcome.parts[name]["step_s"] = self._steps(part)
        if self._device.type == "cuda":
            self.outcome.peak_gpu_bytes = torch.cuda.max_memory_allocated(self._device)
        self.outcome.done = True
        self.outcome.write(self._folder)

    def _restore(self) -> dict[str, Any]:
        how = self._request.restore
        if how == "ours":
            return _told(load(deadline_s=DEADLINE_S))
        if how == "instant":
            # By keywords that this program's own copy may not know yet: see has_instant_start.
            instant: Callable[..., Any] = load
            return _told(instant(deadline_s=DEADLINE_S, instant=True))
        if how == "mega-cache":
            blob = Path(self._request.mega_cache).read_bytes()
            began = time.perf_counter()
            found = torch.compiler.load_cache_artifacts(blob)
            seconds = time.perf_counter() - began
            status = OperationStatus.SUCCESS if found is not None else OperationStatus.ERROR
            return {"status": status.name, "seconds": seconds, "files": 1, "bytes": len(blob), "reason": "one blob"}
        return {}

    def _wake(self) -> None:
        """Have the device's libraries loaded before anything is timed; not compiled, and the same for every start."""
        if self._device.type == "cuda":
            x = torch.ones(1, 16, 128, 128, device=self._device, dtype=self._dtype)
            functional.conv2d(x, torch.ones(16, 16, 3, 3, device=self._device, dtype=self._dtype))
            functional.scaled_dot_product_attention(x, x, x @ x)
        self._settle()

    def _settle(self) -> None:
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)

    def _first_call(self, name: str) -> None:
        began = time.perf_counter()
        part = build(name, SIZES[self._request.size], self._request.kind, self._device, self._dtype)
        self._settle()
        built = time.perf_counter()
        part.module.compile(mode=MODE, dynamic=False)
        activity = Activity(Path(os.environ["TORCHINDUCTOR_CACHE_DIR"]), Path.home() / ".triton" / "cache")
        called = time.perf_counter()
        output = part.call()
        self._settle()
        first_call_s = time.perf_counter() - called
        self._passed(name)
        self._built[name] = part
        output = output.to("cpu")
        torch.save(output, self._folder / f"{name}.pt")
        self.outcome.parts[name] = {
            "first_call_s": first_call_s,
            "build_s": built - began,
            "parameters": part.parameters,
            "activity": activity.report(),
            "output": self._compared(name, output),
        }

    def _compared(self, name: str, output: Tensor) -> dict[str, Any]:
        told: dict[str, Any] = {"finite": bool(output.isfinite().all()), "largest": float(output.abs().max())}
        path = Path(self._request.reference, f"{name}.pt")
        if self._request.reference and path.exists():
            expected = torch.load(path)
            difference = float((output.double() - expected.double()).abs().max())
            allowed = TOLERANCES[self._request.dtype] * float(expected.abs().max())
            told |= {"bitwise": torch.equal(output, expected), "difference": difference, "allowed": allowed}
            told["equal"] = bool(told["bitwise"] or difference <= allowed)
        return told

    def _save_mega_cache(self) -> dict[str, Any]:
        began = time.perf_counter()
        saved = torch.compiler.save_cache_artifacts()
        seconds = time.perf_counter() - began
        if saved is None:
            return {"status": "ERROR", "reason": "torch.compiler.save_cache_artifacts() returned nothing"}
        Path(self._request.mega_cache).write_bytes(saved[0])
        return {"status": "SUCCESS", "seconds": seconds, "bytes": len(saved[0])}

    def _steps(self, part: Part) -> list[float]:
        """Seconds of each of the steps, once more than the first call is behind."""
        taken = []
        for step in range(_STEPS_BEFORE + self._request.steps):
            began = time.perf_counter()
            part.call()
            self._settle()
            if step >= _STEPS_BEFORE:
                taken.append(time.perf_counter() - began)
        return taken

    def _passed(self, what: str) -> None:
        self.outcome.seconds[what] = time.monotonic() - self._request.began


def _told(report: Any) -> dict[str, Any]:
    """What a load or a save reports, as far as a table shows it."""
    names = ("reason", "units", "files", "bytes", "packed_bytes", "seconds")
    return {"status": report.status.name} | {name: getattr(report, name) for name in names}


def has_instant_start() -> bool:
    return "instant" in inspect.signature(load).parameters


def facts() -> dict[str, Any]:
    """What the rows depend on. ``gpu`` is empty where torch sees none."""
    from torch._inductor import config

    found: dict[str, Any] = {
        "versions": {
            "torch": torch.__version__,
            "triton": _version("triton", "pytorch-triton", "pytorch-triton-rocm"),
            "diffusers": _version("diffusers") or "not installed",
            "b10-transfer": __import__("b10_transfer").__version__,
            "CUDA": torch.version.cuda or "none",
        },
        "instant": has_instant_start(),
        "diffusers": _imports_diffusers(),
        "gpu": {},
        "settings": {
            "compile workers": str(config.compile_threads),
            "tuning in a subprocess": str(config.autotune_in_subproc),
            "static launcher": str(getattr(config, "use_static_cuda_launcher", "unknown")),
        }
        | {
            name: value
            for name, value in os.environ.items()
            if name.startswith(("TORCHINDUCTOR_", "TRITON_")) and "/" not in value
        },
    }
    if torch.cuda.is_available():
        free, total = torch.cuda.mem_get_info()
        properties = torch.cuda.get_device_properties(0)
        found["gpu"] = {
            "GPU": properties.name,
            "GPU memory": f"{total / 1e9:.0f} GB",
            "driver": _driver(),
            "compute capability": f"{properties.major}.{properties.minor}",
        }
        found["gpu_free_bytes"] = free
    return found


def _version(*names: str) -> str:
    for name in names:
        try:
            return metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return ""


def _imports_diffusers() -> bool:
    """Whether its model classes can be had: an installed one may be too new or too old for the rest."""
    try:
        from diffusers import FluxTransformer2DModel
    except Exception:  # noqa: BLE001 - whatever an import may raise, there is another way
        return False
    return FluxTransformer2DModel is not None


def _driver() -> str:
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    if shutil.which(command[0]):
        shown = subprocess.run(command, capture_output=True, text=True)
        if shown.returncode == 0 and shown.stdout.strip():
            return shown.stdout.split()[0]
    try:
        import pynvml

        pynvml.nvmlInit()
        return str(pynvml.nvmlSystemGetDriverVersion())
    except Exception as error:  # noqa: BLE001 - told, not needed
        return f"unknown ({error})"


def main(arguments: list[str]) -> None:
    if arguments == ["--facts"]:
        print(json.dumps(facts()))
        return
    folder = Path(arguments[0])
    request = json.loads((folder / "request.json").read_text())
    Replica(folder, Request(**(request | {"parts": tuple(request["parts"])}))).run()


if __name__ == "__main__":
    main(sys.argv[1:])
