"""What torch.compile did in this process: looked up, compiled, tuned. From torch's own counts and from the cache files.

torch's counts alone would mislead: a hit in the FX-graph cache adds again all that was counted under ``inductor`` when
the graph was compiled, its tuning among them. What is read here is never part of that: look-ups are counted outside of
a graph's compilation, the seconds of tuning where it happens, and files are looked at on disk.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

LOOKUPS = {
    "fx_hits": ("inductor", "fxgraph_cache_hit"),
    "fx_misses": ("inductor", "fxgraph_cache_miss"),
    "fx_bypasses": ("inductor", "fxgraph_cache_bypass"),
    "aot_hits": ("aot_autograd", "autograd_cache_hit"),
    "aot_misses": ("aot_autograd", "autograd_cache_miss"),
    "aot_bypasses": ("aot_autograd", "autograd_cache_bypass"),
    "dynamo_hits": ("dynamo_cache", "dynamo_cache_hit"),
    "dynamo_misses": ("dynamo_cache", "dynamo_cache_miss"),
    "graphs": ("stats", "unique_graphs"),
    "triton_unbundled": ("inductor", "triton_bundler_read_and_emit_kernel"),
}
"""Names here, and where ``torch._dynamo.utils.counters`` keeps them (torch 2.11 to 2.13). The last one: kernel files
that an entry of the FX-graph cache brought along, and that were written out instead of being compiled."""
TUNING = {
    "templates": "_template_autotuning",
    "kernels": "CachingAutotuner.benchmark_all_configs",
    "coordinate_descent": "CachingAutotuner.coordinate_descent_tuning",
    "compilation": "CachingAutotuner.slow_precompile_config",
}
"""Ends of names in ``torch._dynamo.utils.compilation_time_metrics``: a list of seconds for each."""
_GROUP = "__grp__"

Files = Mapping[Path, int]
"""When each file was last changed or put in place, in nanoseconds since the epoch, which nothing sets back."""


class Activity:
    """What happens from now on. ``inductor`` is Inductor's cache directory, ``triton`` Triton's outside Inductor.

    ``TRITON_CACHE_DIR`` must not be set: Inductor then keeps Triton's kernels below its own directory.
    """

    def __init__(self, inductor: Path, triton: Path) -> None:
        self._inductor, self._triton = inductor, triton
        self._files = self._look()
        self._lookups, self._tuning = lookups(), tuning()

    def report(self) -> dict[str, Any]:
        """Counts since this was made. ``triton_compiled``, ``tuned``: files written; ``…_in_place``: those found."""
        files = self._look()
        written = [path for path, changed_ns in files.items() if self._files.get(path) != changed_ns]
        counts = {name: count - self._lookups[name] for name, count in lookups().items()}
        kernels, kernels_before = self._kernel_files(written), self._kernel_files(self._files)
        unbundled = counts.pop("triton_unbundled")
        return counts | {
            "triton_in_place": len(kernels_before),
            "triton_unbundled": unbundled,
            "triton_compiled": max(0, len(kernels) - unbundled),
            "triton_binaries_written": sum(path.suffix in (".cubin", ".hsaco", ".spv") for path in kernels),
            "tuned_in_place": sum(path.suffix == ".best_config" for path in self._files),
            "tuned": sum(path.suffix == ".best_config" for path in written),
            "cpp_libraries_built": sum(path.suffix == ".so" for path in written) - self._helpers(written),
            "helpers_built": self._helpers(written),
            "files_written": len(written),
            "tuning": _difference(tuning(), self._tuning),
        }

    def _look(self) -> Files:
        return {path: changed_ns for root in (self._inductor, self._triton) for path, changed_ns in _walk(root)}

    def _is_tritons(self, path: Path) -> bool:
        return self._triton in path.parents or self._inductor / "triton" in path.parents

    def _kernel_files(self, files: Any) -> list[Path]:
        """Those in folders of compiled kernels, which have a group file; helpers written in C have none."""
        ours = [path for path in files if self._is_tritons(path)]
        folders = {path.parent: any(path.parent.glob(f"{_GROUP}*")) for path in ours}
        return [path for path in ours if folders[path.parent]]

    def _helpers(self, files: list[Path]) -> int:
        return sum(self._is_tritons(path) and path.suffix == ".so" for path in files)


def _walk(root: Path) -> Iterator[tuple[Path, int]]:
    """Every artifact below a folder. Not locks, nor what is still being written, nor Inductor's precompiled headers."""
    for folder, folders, names in os.walk(root):
        folders[:] = [name for name in folders if name not in ("locks", "precompiled_headers") and "tmp." not in name]
        for name in names:
            if not name.endswith((".tmp", ".lock")) and "tmp." not in name:
                path = Path(folder, name)
                try:
                    yield path, path.stat().st_ctime_ns
                except FileNotFoundError:
                    continue


def lookups() -> dict[str, int]:
    """Since the process started."""
    from torch._dynamo.utils import counters

    return {name: int(counters[group][key]) for name, (group, key) in LOOKUPS.items()}


def tuning() -> dict[str, tuple[int, float]]:
    """How often and for how many seconds, since the process started. Empty where torch does not tell."""
    from torch._dynamo import utils

    metrics: Mapping[str, list[float]] = getattr(utils, "compilation_time_metrics", {})
    found = {}
    for name, end in TUNING.items():
        seconds = [second for key, values in metrics.items() if key.endswith(end) for second in values]
        found[name] = (len(seconds), sum(seconds))
    return found


def _difference(
    now: Mapping[str, tuple[int, float]], before: Mapping[str, tuple[int, float]]
) -> dict[str, tuple[int, float]]:
    return {name: (count - before[name][0], round(s - before[name][1], 3)) for name, (count, s) in now.items()}
