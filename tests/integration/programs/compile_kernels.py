"""Load, compile two Triton kernels for a GPU that need not be there, save. Prints what happened as JSON."""

from __future__ import annotations

import json

import triton
import triton.language as tl
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from b10_transfer import load, save


@triton.jit  # type: ignore[untyped-decorator]
def add_one(x, y, n, BLOCK: tl.constexpr):  # type: ignore[no-untyped-def]  # noqa: N803
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    tl.store(y + i, tl.load(x + i, mask=i < n) + 1, mask=i < n)


def compile_kernels() -> list[bool]:
    """Compile both; whether each was in the cache."""
    hits: list[bool] = []
    triton.knobs.compilation.listener = lambda **facts: hits.append(facts["cache_hit"])
    for block in (64, 128):
        signature = {"x": "*fp32", "y": "*fp32", "n": "i32", "BLOCK": "constexpr"}
        source = ASTSource(add_one, signature=signature, constexprs={(3,): block})
        triton.compile(source, target=GPUTarget("cuda", 90, 32))
    return hits


def main() -> None:
    loaded = load()
    hits = compile_kernels()
    print(json.dumps({"loaded": loaded.status.name, "saved": save().status.name, "hits": hits}))


if __name__ == "__main__":
    main()
