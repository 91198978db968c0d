"""One start of a service in this process: restore, build, compile, call. ``FOLDER`` holds request.json.

    python -m benchmarks.replica FOLDER     # writes FOLDER/outcome.json after each model
    python -m benchmarks.replica --facts    # prints the versions and the GPU as JSON

The outcome is written after each model, so a killed start still has results.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict
from importlib import import_module, metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.starts import Outcome, Request

if TYPE_CHECKING:
    from torch import Tensor

DEADLINE_S = 240.0
"""Of a load or a save. These benchmarks measure the duration of an operation, not its deadline."""
TOLERANCES = {"float32": 1e-4, "bfloat16": 2e-2}
"""Allowed difference of outputs, relative to the largest value."""
_STEPS_BEFORE = 2


class Replica:
    """A service that starts."""

    def __init__(self, folder: Path, request: Request) -> None:
        import torch

        self._folder, self._request = folder, request
        self._device, self._dtype = torch.device(request.device), getattr(torch, request.dtype)
        self.outcome = Outcome()

    def run(self) -> None:
        """Restore, then build, compile and call each model."""
        import torch

        self._passed("import torch")
        self.outcome.load = self._restore()
        with torch.no_grad():
            self._wake_device()
            for name in self._request.models:
                self._first_call(name)
                self.write()
            if self._request.mega_cache and self._request.restore == "nothing":
                self.outcome.mega_cache = self._save_mega_cache()
        if self._device.type == "cuda":
            self.outcome.peak_gpu_bytes = torch.cuda.max_memory_allocated(self._device)
        self.outcome.done = True

    def write(self) -> None:
        """Write the outcome atomically."""
        scratch = self._folder / "outcome.json.new"
        scratch.write_text(json.dumps(asdict(self.outcome), indent=1))
        scratch.replace(self._folder / "outcome.json")

    def _restore(self) -> dict[str, Any]:
        how = self._request.restore
        if how in ("b10_transfer", "instant"):
            load, began = import_module("b10_transfer").load, time.perf_counter()
            report = load(deadline_s=DEADLINE_S, instant=how == "instant")
            return _shown(report) | {"wall_s": time.perf_counter() - began}
        if how == "mega-cache":
            from torch import compiler

            blob, began = Path(self._request.mega_cache).read_bytes(), time.perf_counter()
            status = "SUCCESS" if compiler.load_cache_artifacts(blob) else "ERROR"
            return {"status": status, "seconds": time.perf_counter() - began, "files": 1, "bytes": len(blob)}
        return {"status": "SUCCESS", "seconds": 0.0}

    def _wake_device(self) -> None:
        """Load the device's libraries before anything is timed."""
        import torch
        from torch.nn import functional

        if self._device.type == "cuda":
            x = torch.ones(1, 16, 128, 128, device=self._device, dtype=self._dtype)
            functional.conv2d(x, torch.ones(16, 16, 3, 3, device=self._device, dtype=self._dtype))
            functional.scaled_dot_product_attention(x, x, x @ x)
        self._synchronize()

    def _synchronize(self) -> None:
        import torch

        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)

    def _first_call(self, name: str) -> None:
        import torch

        from benchmarks.activity import Activity

        began = time.perf_counter()
        model, example, other = _built(name, self._device, self._dtype)
        self._synchronize()
        built = time.perf_counter()
        mode = self._request.mode
        options: dict[str, Any] = {} if mode == "default" else {"mode": mode, "dynamic": False}
        compiled = model if mode == "eager" else torch.compile(model, **options)
        ready = time.perf_counter()
        activity = None  # it imports Dynamo, which an eager start does not
        if mode != "eager":
            activity = Activity(Path(os.environ["TORCHINDUCTOR_CACHE_DIR"]))
        called = time.perf_counter()
        output = _call(compiled, example)
        self._synchronize()
        answered = time.perf_counter()
        self._passed(name)
        part = {"build_s": built - began, "compile_s": ready - built, "first_call_s": answered - called}
        output = output.to("cpu")
        torch.save(output, self._folder / f"{name}.pt")
        done = activity.report() if activity else {}
        self.outcome.parts[name] = {**part, "activity": done, "output": self._compared(name, output)}
        if self._request.saves:
            self.outcome.saves.append(_shown(import_module("b10_transfer").save(deadline_s=DEADLINE_S)))
        self.outcome.parts[name]["step_s"] = [self._timed(compiled, example)[0] for _ in range(_warm(self._request))]
        del self.outcome.parts[name]["step_s"][:_STEPS_BEFORE]
        if self._request.uncovered and other:
            seconds, output = self._timed(compiled, other)
            difference = float((output - _call(model, other)).abs().max())
            self.outcome.parts[name] |= {"uncovered_call_s": seconds, "uncovered_difference": difference}

    def _timed(self, model: Any, example: Any) -> tuple[float, Tensor]:
        began = time.perf_counter()
        output = _call(model, example)
        self._synchronize()
        return time.perf_counter() - began, output

    def _compared(self, name: str, output: Tensor) -> dict[str, Any]:
        """The difference from the output of the reference start."""
        import torch

        found: dict[str, Any] = {"finite": bool(output.isfinite().all())}
        path = Path(self._request.reference, f"{name}.pt")
        if self._request.reference and path.exists():
            expected = torch.load(path)
            difference = float((output.double() - expected.double()).abs().max())
            allowed = TOLERANCES[self._request.dtype] * float(expected.abs().max())
            found |= {"difference": difference, "allowed": allowed, "bitwise": torch.equal(output, expected)}
        return found

    def _save_mega_cache(self) -> dict[str, Any]:
        import torch

        began = time.perf_counter()
        saved = torch.compiler.save_cache_artifacts()
        seconds = time.perf_counter() - began
        if saved is None:
            return {"reason": "torch.compiler.save_cache_artifacts() returned nothing"}
        Path(self._request.mega_cache).write_bytes(saved[0])
        return {"seconds": seconds, "bytes": len(saved[0])}

    def _passed(self, event: str) -> None:
        self.outcome.seconds[event] = time.monotonic() - self._request.began


def _warm(request: Request) -> int:
    return request.steps + _STEPS_BEFORE if request.steps else 0


def _built(name: str, device: Any, dtype: Any) -> tuple[Any, Any, Any]:
    """A model, its example input, and an input of another length (None for FLUX)."""
    import torch

    torch.manual_seed(0)
    if name.startswith("flux "):
        from benchmarks.flux import build

        return (*build(name, device, dtype), None)
    from benchmarks.models import CASES, LENGTH

    case = CASES[name]
    return case.build().eval(), (case.example(LENGTH),), (case.example(LENGTH // 2),)


def _call(model: Any, example: Mapping[str, Any] | tuple[Any, ...]) -> Tensor:
    result = model(*example) if isinstance(example, tuple) else model(**example)
    output: Tensor = result[0] if isinstance(result, tuple) else result
    return output


def _shown(report: Any) -> dict[str, Any]:
    """The fields of a load's or a save's report that the benchmarks use."""
    names = ("reason", "files", "bytes", "packed_bytes", "seconds")
    return {"status": report.status.name} | {name: getattr(report, name) for name in names}


def facts() -> dict[str, Any]:
    """The versions and the GPU (empty without one)."""
    import torch

    found: dict[str, Any] = {"versions": {"torch": torch.__version__, "CUDA": torch.version.cuda or "none"}, "gpu": {}}
    for name in ("triton", "pytorch-triton-rocm", "diffusers", "b10-transfer"):
        with suppress(metadata.PackageNotFoundError):
            found["versions"][name] = metadata.version(name)
    if torch.cuda.is_available():
        free, total = torch.cuda.mem_get_info()
        properties = torch.cuda.get_device_properties(0)
        found["gpu_free_bytes"] = free
        found["gpu"] = {
            "GPU": properties.name,
            "GPU memory": f"{total / 1e9:.0f} GB",
            "driver": _driver(),
            "compute capability": f"{properties.major}.{properties.minor}",
        }
    return found


def _driver() -> str:
    try:
        import pynvml

        pynvml.nvmlInit()
        return str(pynvml.nvmlSystemGetDriverVersion())
    except Exception as error:  # noqa: BLE001 - for information only, and without NVIDIA's library there is none
        return f"unknown ({error})"


def main(argument: str) -> None:
    if argument == "--facts":
        print(json.dumps(facts()))
        return
    logging.basicConfig(level=logging.INFO)
    document = json.loads((Path(argument) / "request.json").read_text())
    request = Request(**{**document, "models": tuple(document["models"])})
    replica = Replica(Path(argument), request)
    replica.run()
    replica.write()


if __name__ == "__main__":
    main(*sys.argv[1:])
