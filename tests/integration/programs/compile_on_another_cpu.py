"""Load, compile kernels for a GPU and a graph for this CPU in one cache, save. Prints what happened as JSON.

The CPU is that of the file that ``CPUINFO`` names. With ``GRAPH=0`` only the kernels are compiled.
"""

from __future__ import annotations

import json
import os

from b10_transfer import load, save
from b10_transfer.environment import cpu
from tests.integration.programs.compile_kernels import compile_kernels


def compile_graph() -> None:
    import torch
    from torch._inductor import config

    config.cpp_cache_precompile_headers = False  # that takes longer than all the rest
    torch.compile(lambda x: (x.sin() + 1).cos())(torch.ones(64))


def main() -> None:
    cpu.features.__defaults__ = (os.environ["CPUINFO"],)
    report = load()
    hits = compile_kernels()
    if os.environ["GRAPH"] == "1":
        compile_graph()
    saved = save()
    print(
        json.dumps(
            {
                "loaded": report.status.name,
                "siblings": report.siblings,
                "restored": report.restored,
                "hits": hits,
                "environment": report.environment_id,
                "saved": saved.units,
            }
        )
    )


if __name__ == "__main__":
    main()
