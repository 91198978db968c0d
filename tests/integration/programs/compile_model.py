"""Load, compile a small model, run it, save: one pod's life. Prints what happened as one line of JSON.

Usage: ``compile_model.py MODELS SIZE...``; each size is one call of each model with an input of that size. The names
of several models are separated by commas.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import torch
from torch import nn

from b10_transfer import load, save


class Block(nn.Module):
    """A pre-norm transformer block."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        q, k, v = self.qkv(self.norm1(x)).chunk(3, dim=-1)
        x = x + self.out(nn.functional.scaled_dot_product_attention(q, k, v))
        y: torch.Tensor = x + self.mlp(self.norm2(x))
        return y


def build(kind: str) -> tuple[nn.Module, int]:
    """A model and the number of its input's channels."""
    if kind == "transformer":
        return nn.Sequential(Block(32), Block(32)), 32
    if kind == "convolutional":
        return nn.Sequential(nn.Conv1d(8, 16, 3, padding=1), nn.BatchNorm1d(16), nn.ReLU(), nn.Conv1d(16, 4, 3)), 8
    if kind == "pointwise":
        return nn.Sequential(nn.GELU(), nn.LayerNorm(16), nn.SiLU()), 16
    raise SystemExit(f"no such model: {kind}")


def run(kind: str, sizes: list[int]) -> list[float]:
    """Call the compiled model once for each size; a number for each result, to compare."""
    torch.manual_seed(0)
    model, channels = build(kind)
    # Static shapes: every size is a graph of its own.
    compiled = torch.compile(model.eval(), dynamic=False)
    results = []
    for size in sizes:
        shape = (2, channels, size) if kind == "convolutional" else (2, size, channels)
        x = torch.linspace(-1, 1, 2 * size * channels).reshape(shape)
        with torch.no_grad():
            results.append(float(compiled(x).double().abs().sum()))
    return results


def libraries() -> set[Path]:
    return set(Path(os.environ["TORCHINDUCTOR_CACHE_DIR"]).rglob("*.so"))


def main() -> None:
    loaded = load()
    restored = libraries()
    sizes = [int(size) for size in sys.argv[2:]]
    results = [result for kind in sys.argv[1].split(",") for result in run(kind, sizes)]
    saved = save()
    counters = torch._dynamo.utils.counters
    names = ("fxgraph_cache_hit", "fxgraph_cache_miss")
    aot_names = ("autograd_cache_hit", "autograd_cache_miss")
    print(
        json.dumps(
            {
                "loaded": loaded.status.name,
                "saved": saved.status.name,
                "save_units": saved.units,
                "reasons": [loaded.reason, saved.reason],
                "results": results,
                "built_libraries": len(libraries() - restored),
                **{name: counters["inductor"][name] for name in names},
                **{name: counters["aot_autograd"][name] for name in aot_names},
            }
        )
    )


if __name__ == "__main__":
    main()
