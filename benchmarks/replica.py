"""One replica's start: restore compile artifacts in one of several ways, then call a compiled model for the first time.

Prints a line of JSON: seconds, torch's hits and misses, and how far the output is from that of the replica before it.
With --phases, also how the seconds divide into activities.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # so that it runs as a script

from benchmarks.stopwatch import Stopwatch

if TYPE_CHECKING:
    from torch import Tensor

RESTORES = ("nothing", "b10_transfer", "mega-cache")
_ACTIVITIES = {
    "_compile.compile_inner": "tracing",
    "entire_frame_compile": "tracing",
    "OutputGraph.call_user_compiler": "look-ups",
    "backend_compile": "look-ups",
    "PyCodeCache.load_by_key_path": "kernels loaded",
    "compile_file": "C++ compiled",
}
"""What torch's own events stand for; one within another that is not named here is part of that."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model")
    parser.add_argument("--restore", choices=RESTORES, default="nothing")
    parser.add_argument("--mega", type=Path, help="PyTorch's mega-cache: where it is, or is to be saved")
    parser.add_argument("--output", type=Path, required=True, help="the model's output; compared with if it is there")
    parser.add_argument("--phases", action="store_true")
    options = parser.parse_args()
    watch = Stopwatch(time.perf_counter)
    if options.phases:
        watch.watch_imports()
    with watch.during("rest"):
        told = start(options, watch)
    if options.phases:
        told["phases"] = dict(watch.seconds)
    print(json.dumps(told))


def start(options: argparse.Namespace, watch: Stopwatch) -> dict[str, Any]:
    """Restore, build, call; save the mega-cache if nothing was restored and a place for it was named."""
    told: dict[str, Any] = {}
    restore = _restore_call(options)  # may import torch: not part of the call
    began = time.perf_counter()
    with watch.during("restore"):
        told["status"] = restore()
    told["load_seconds"] = time.perf_counter() - began
    import torch
    from torch._dynamo.utils import ChromiumEventLogger, counters

    from benchmarks.models import CASES

    if options.phases:
        _watch_events(ChromiumEventLogger, watch)
    case = CASES[options.model]
    torch.manual_seed(0)
    model = torch.compile(case.build().eval())
    example = case.example()
    began = time.perf_counter()
    with torch.no_grad(), watch.during("first run"):
        output = model(example)
    told["first_call_seconds"] = time.perf_counter() - began
    told["hits"] = counters["inductor"]["fxgraph_cache_hit"], counters["aot_autograd"]["autograd_cache_hit"]
    told["misses"] = counters["inductor"]["fxgraph_cache_miss"], counters["aot_autograd"]["autograd_cache_miss"]
    told["difference"] = _difference(output, options.output)
    if options.mega and options.restore == "nothing":
        began = time.perf_counter()
        artifacts = torch.compiler.save_cache_artifacts()
        if artifacts is None:
            raise RuntimeError("there is no mega-cache to save")
        options.mega.write_bytes(artifacts[0])
        told["mega_save_seconds"] = time.perf_counter() - began
    return told


def _restore_call(options: argparse.Namespace) -> Callable[[], str]:
    """What restores, with all imported that it needs; it returns a status."""
    if options.restore == "b10_transfer":
        from b10_transfer import load_compile_cache

        return lambda: load_compile_cache().name
    if options.restore == "mega-cache":
        from torch import compiler

        return lambda: "SUCCESS" if compiler.load_cache_artifacts(options.mega.read_bytes()) else "ERROR"
    return lambda: "SUCCESS"


def _watch_events(logger: Any, watch: Stopwatch) -> None:
    """Follow the events that torch itself logs while it compiles, or finds what was compiled."""
    begin, end = logger.log_event_start, logger.log_event_end

    def begin_too(self: Any, event_name: str, *arguments: Any, **named: Any) -> Any:
        watch.begin(_ACTIVITIES.get(event_name))
        return begin(self, event_name, *arguments, **named)

    def end_too(self: Any, *arguments: Any, **named: Any) -> Any:
        watch.end()
        return end(self, *arguments, **named)

    logger.log_event_start, logger.log_event_end = begin_too, end_too


def _difference(output: Tensor, path: Path) -> float:
    """How far from what another replica computed, at most; the first one leaves its own."""
    import torch

    if not path.exists():
        torch.save(output, path)
        return 0.0
    return float((torch.load(path) - output).abs().max())


if __name__ == "__main__":
    main()
