"""The work of torch.compile in this process: look-ups, and files that it writes.

torch's other counts mislead: a hit in the FX-graph cache adds the counts of the graph's compilation again.
"""

from __future__ import annotations

import os
from pathlib import Path

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


class Activity:
    """The work from now on. With an unset ``TRITON_CACHE_DIR``, Inductor's directory holds Triton's kernels."""

    def __init__(self, inductor: Path) -> None:
        self._inductor = inductor
        self._files, self._lookups = self._walk(), _lookups()

    def report(self) -> dict[str, int]:
        """Counts since the start."""
        known = self._files
        written = [path for path, changed_ns in self._walk().items() if known.get(path) != changed_ns]
        triton = [path for path in written if "triton" in path.relative_to(self._inductor).parts]
        # Folders of kernels have a group file; those of helpers in C have none.
        kernels = [path for path in triton if any(path.parent.glob("__grp__*"))]
        counts = {name: count - self._lookups[name] for name, count in _lookups().items()}
        return counts | {
            "triton_compiled": max(0, len(kernels) - counts["triton_unbundled"]),
            "tuned": sum(path.suffix == ".best_config" for path in written),
            "cpp_libraries_built": sum(path.suffix == ".so" for path in set(written) - set(triton)),
        }

    def _walk(self) -> dict[Path, int]:
        """Every artifact and its change time; without locks, unfinished files and precompiled headers."""
        found: dict[Path, int] = {}
        for folder, folders, names in os.walk(self._inductor):
            folders[:] = {name for name in folders if "tmp." not in name} - {"locks", "precompiled_headers"}
            for path in (Path(folder, name) for name in names if not name.endswith((".tmp", ".lock"))):
                if "tmp." not in path.name and path.exists():
                    found[path] = path.stat().st_ctime_ns
        return found


def _lookups() -> dict[str, int]:
    from torch._dynamo.utils import counters

    return {name: int(counters[group][key]) for name, (group, key) in LOOKUPS.items()}
