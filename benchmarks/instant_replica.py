"""One start of a 24-layer transformer, for benchmarks/instant.py: ``KIND OUTPUT EXEC_TIME``; prints JSON."""

from __future__ import annotations

import json
import logging
import sys
import time
from pathlib import Path

kind, output, began = sys.argv[1], Path(sys.argv[2]), float(sys.argv[3])
started = time.perf_counter()
import torch  # noqa: E402 - timed
from torch import Tensor, nn  # noqa: E402

imported = time.perf_counter()
WIDTH, HEADS, LAYERS, LENGTH = 256, 8, 24, 64


class Block(nn.Module):
    """One pre-norm transformer layer."""

    def __init__(self) -> None:
        super().__init__()
        self.norm_1, self.norm_2 = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.qkv, self.out = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)
        self.up, self.down = nn.Linear(WIDTH, 4 * WIDTH), nn.Linear(4 * WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        batch, length, _ = x.shape
        q, k, v = self.qkv(self.norm_1(x)).view(batch, length, 3, HEADS, -1).permute(2, 0, 3, 1, 4)
        mixed = nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.out(mixed.transpose(1, 2).reshape(batch, length, WIDTH))
        y: Tensor = x + self.down(nn.functional.gelu(self.up(self.norm_2(x))))
        return y


class Transformer(nn.Module):
    """Vectors in, vectors out."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(Block() for _ in range(LAYERS))

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = block(x)
        return x


def main() -> None:
    logging.basicConfig(level=logging.INFO, stream=sys.stderr)
    ready = time.perf_counter()
    if kind != "eager":
        from b10_transfer import load, save

        load(instant=kind in ("save", "instant"))
    loaded = time.perf_counter()
    torch.manual_seed(0)
    model = Transformer().eval()
    x = torch.randn(1, LENGTH, WIDTH)
    built = time.perf_counter()
    compiled = model if kind == "eager" else torch.compile(model)
    put = time.perf_counter()
    with torch.no_grad():
        y = compiled(x)
    done = time.perf_counter()
    told = {
        "import_s": imported - started,
        "load_s": loaded - ready,
        "compile_s": put - built,
        "first_call_s": done - put,
        "to_first_result_s": time.time() - began,
        "traced": 0,
    }
    if kind == "save":
        torch.save(y, output)
        save()
    elif kind != "eager":
        told["traced"] = torch._dynamo.utils.counters["stats"]["unique_graphs"]
    told["apart"] = float((torch.load(output) - y).abs().max())
    print(json.dumps(told))


if __name__ == "__main__":
    main()
