"""A program under autosave that compiles a real model, one graph for each size of its input.

Usage: ``model.py HOW SIZE...``. HOW says which processes compile: ``script`` (this one), ``ranks`` (each rank of
torchrun its own sizes), ``workers`` (two forked children their own sizes, as those of gunicorn) or ``server`` (this
one, which then waits for a signal). Each process prints the number of graphs that it compiled anew.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import sys

import torch
from torch import nn

from b10_transfer import load_compile_cache


def compile_graphs(sizes: list[int]) -> None:
    model = torch.compile(nn.Sequential(nn.GELU(), nn.LayerNorm(16), nn.SiLU()).eval(), dynamic=False)
    with torch.no_grad():
        for size in sizes:
            model(torch.linspace(-1, 1, 32 * size).reshape(2, size, 16))
    counters = torch._dynamo.utils.counters
    missed = max(counters["inductor"]["fxgraph_cache_miss"], counters["aot_autograd"]["autograd_cache_miss"])
    print(json.dumps({"compiled": missed}), flush=True)


def main() -> None:
    logging.basicConfig(level=logging.INFO)
    how, sizes = sys.argv[1], [int(size) for size in sys.argv[2:]]
    load_compile_cache(autosave=True)
    if how == "workers":
        workers = []
        for number in range(2):
            if (child := os.fork()) == 0:
                compile_graphs([size + 100 * number for size in sizes])
                sys.exit()
            workers.append(child)
        sys.exit(any(os.waitpid(worker, 0)[1] for worker in workers))
    rank = int(os.environ.get("LOCAL_RANK", "0")) if how == "ranks" else 0
    compile_graphs([size + 100 * rank for size in sizes])
    if how == "server":
        signal.pause()


if __name__ == "__main__":
    main()
