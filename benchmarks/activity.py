"""The work of torch.compile in this process: look-ups, compilations, tuning.

torch's counts alone mislead: a hit in the FX-graph cache adds the counts under ``inductor`` from the graph's
compilation again. So this reads only counts of look-ups outside a graph's compilation, the seconds of tuning, and the
cache files.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
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
    "graphs": ("stats", "unique_graphs"),
    "triton_unbundled": ("inductor", "triton_bundler_read_and_emit_kernel"),
}
"""Places in ``torch._dynamo.utils.counters`` (torch 2.11 to 2.13). ``triton_unbundled`` counts kernel files that came
with an entry of the FX-graph cache, instead of a compilation."""
TUNING = (
    "_template_autotuning",
    "CachingAutotuner.benchmark_all_configs",
    "CachingAutotuner.coordinate_descent_tuning",
)
"""Ends of names in ``torch._dynamo.utils.compilation_time_metrics``, which has a list of seconds for each."""
_GROUP = "__grp__"


class Activity:
    """The work from now on.

    Args:
        inductor: Inductor's cache directory. With an unset ``TRITON_CACHE_DIR`` it holds Triton's kernels.
        triton: Triton's cache directory outside Inductor.
    """

    def __init__(self, inductor: Path, triton: Path) -> None:
        self._inductor, self._triton = inductor, triton
        self._files = dict(self._walk())
        self._lookups, self._tuning_s = _lookups(), _tuning_s()

    def report(self) -> dict[str, Any]:
        """Counts since the start. Names with ``in_place`` count files that existed before."""
        written = [path for path, changed_ns in self._walk() if self._files.get(path) != changed_ns]
        counts = {name: count - self._lookups[name] for name, count in _lookups().items()}
        helpers = sum(path.suffix == ".so" for path in written if self._is_of_triton(path))
        return counts | {
            "triton_in_place": len(self._kernel_files(self._files)),
            "triton_compiled": max(0, len(self._kernel_files(written)) - counts["triton_unbundled"]),
            "tuned_in_place": sum(path.suffix == ".best_config" for path in self._files),
            "tuned": sum(path.suffix == ".best_config" for path in written),
            "cpp_libraries_built": sum(path.suffix == ".so" for path in written) - helpers,
            "helpers_built": helpers,
            "files_written": len(written),
            "tuning_s": _tuning_s() - self._tuning_s,
        }

    def _walk(self) -> Iterator[tuple[Path, int]]:
        """Every artifact and its change time; without locks, unfinished files and precompiled headers."""
        for root in (self._inductor, self._triton):
            for folder, folders, names in os.walk(root):
                folders[:] = {name for name in folders if "tmp." not in name} - {"locks", "precompiled_headers"}
                for name in names:
                    if not name.endswith((".tmp", ".lock")) and "tmp." not in name:
                        path = Path(folder, name)
                        try:
                            yield path, path.stat().st_ctime_ns
                        except FileNotFoundError:
                            continue

    def _is_of_triton(self, path: Path) -> bool:
        return self._triton in path.parents or self._inductor / "triton" in path.parents

    def _kernel_files(self, files: Iterable[Path]) -> list[Path]:
        """The files of compiled kernels. Their folders have a group file; those of helpers in C have none."""
        found = [path for path in files if self._is_of_triton(path)]
        has_group = {path.parent: any(path.parent.glob(f"{_GROUP}*")) for path in found}
        return [path for path in found if has_group[path.parent]]


def _lookups() -> dict[str, int]:
    from torch._dynamo.utils import counters

    return {name: int(counters[group][key]) for name, (group, key) in LOOKUPS.items()}


def _tuning_s() -> float:
    """Seconds of tuning since the start of the process; 0 if torch does not count them."""
    from torch._dynamo import utils

    metrics: Mapping[str, list[float]] = getattr(utils, "compilation_time_metrics", {})
    return sum(sum(seconds) for name, seconds in metrics.items() if name.endswith(TUNING))
