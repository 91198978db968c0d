"""Load, compile two Triton kernels for a GPU that need not be there, save. Prints what happened as JSON."""

from __future__ import annotations

import json
import os
from pathlib import Path

import triton
import triton.language as tl
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from b10_transfer import load, save


@triton.jit  # type: ignore[untyped-decorator]
def add_one(x, y, n, BLOCK: tl.constexpr):  # type: ignore[no-untyped-def]  # noqa: N803
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    tl.store(y + i, tl.load(x + i, mask=i < n) + 1, mask=i < n)


def compiled_files() -> set[tuple[Path, int]]:
    """Each file with its inode: Triton replaces the files of a kernel that it compiles again."""
    return {(path, path.stat().st_ino) for path in Path(os.environ["TRITON_CACHE_DIR"]).rglob("*.*")}


def compile_kernels() -> list[bool]:
    """Compile both; whether each was in the cache."""
    hits: list[bool] = []
    for block in (64, 128):
        signature = {"x": "*fp32", "y": "*fp32", "n": "i32", "BLOCK": "constexpr"}
        source = ASTSource(add_one, signature, {"BLOCK": block})
        before = compiled_files()
        triton.compile(source, target=GPUTarget("cuda", 90, 32))
        # Triton writes nothing if it hits. Its own listener for hits exists only since 3.3.
        hits.append(compiled_files() == before)
    return hits


def main() -> None:
    loaded = load()
    hits = compile_kernels()
    print(json.dumps({"loaded": loaded.status.name, "saved": save().status.name, "hits": hits}))


if __name__ == "__main__":
    main()
