"""Triton kernels of the kinds that fill a real cache, in as many variants as wanted.

Run as a program, it compiles them for an H100 (sm_90) into ``TRITON_CACHE_DIR``. That needs Triton, but no GPU.
"""

from __future__ import annotations

import argparse
import itertools
import random
import warnings
from typing import Any, NamedTuple

import triton
import triton.language as tl
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

TARGET = GPUTarget("cuda", 90, 32)


class Variant(NamedTuple):
    """One kernel to compile."""

    function: Any
    element: str
    """Type of the elements that its pointers point to."""
    constants: dict[str, Any]
    options: dict[str, int]

    def compile(self) -> None:
        """Compile it into ``TRITON_CACHE_DIR``."""
        signature = {}
        for name in self.function.arg_names:
            if name in self.constants:
                signature[name] = "constexpr"
            else:
                signature[name] = f"*{self.element}" if name.endswith("_pointer") else "i32"
        triton.compile(ASTSource(self.function, signature, self.constants), target=TARGET, options=self.options)


def _matmul(
    a_pointer: tl.tensor,
    b_pointer: tl.tensor,
    c_pointer: tl.tensor,
    m: tl.tensor,
    n: tl.tensor,
    k: tl.tensor,
    stride_a: tl.tensor,
    stride_b: tl.tensor,
    stride_c: tl.tensor,
    BLOCK_M: tl.constexpr,  # noqa: N803
    BLOCK_N: tl.constexpr,  # noqa: N803
    BLOCK_K: tl.constexpr,  # noqa: N803
    ACTIVATION: tl.constexpr,  # noqa: N803
) -> None:
    rows = tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)
    columns = tl.program_id(1) * BLOCK_N + tl.arange(0, BLOCK_N)
    inner = tl.arange(0, BLOCK_K)
    total = tl.zeros((BLOCK_M, BLOCK_N), dtype=tl.float32)
    for start in range(0, k, BLOCK_K):
        left = tl.load(
            a_pointer + rows[:, None] * stride_a + (start + inner)[None, :],
            mask=(rows[:, None] < m) & ((start + inner)[None, :] < k),
            other=0.0,
        )
        right = tl.load(
            b_pointer + (start + inner)[:, None] * stride_b + columns[None, :],
            mask=((start + inner)[:, None] < k) & (columns[None, :] < n),
            other=0.0,
        )
        total = tl.dot(left, right, total)
    if ACTIVATION == "relu":
        total = tl.maximum(total, 0.0)
    elif ACTIVATION == "silu":
        total = total * tl.sigmoid(total)
    elif ACTIVATION == "gelu":
        total = 0.5 * total * (1.0 + tl.erf(total * 0.7071067811865476))
    tl.store(
        c_pointer + rows[:, None] * stride_c + columns[None, :],
        total.to(c_pointer.dtype.element_ty),
        mask=(rows[:, None] < m) & (columns[None, :] < n),
    )


def _layer_norm(
    x_pointer: tl.tensor,
    y_pointer: tl.tensor,
    weight_pointer: tl.tensor,
    bias_pointer: tl.tensor,
    stride: tl.tensor,
    width: tl.tensor,
    BLOCK: tl.constexpr,  # noqa: N803
    RMS: tl.constexpr,  # noqa: N803
    RESIDUAL: tl.constexpr,  # noqa: N803
) -> None:
    row = tl.program_id(0)
    columns = tl.arange(0, BLOCK)
    inside = columns < width
    values = tl.load(x_pointer + row * stride + columns, mask=inside, other=0.0).to(tl.float32)
    if RESIDUAL:
        values += tl.load(y_pointer + row * stride + columns, mask=inside, other=0.0).to(tl.float32)
    if not RMS:
        values = tl.where(inside, values - tl.sum(values, axis=0) / width, 0.0)
    scaled = values * tl.rsqrt(tl.sum(values * values, axis=0) / width + 1e-5)
    scaled = scaled * tl.load(weight_pointer + columns, mask=inside).to(tl.float32)
    if not RMS:
        scaled += tl.load(bias_pointer + columns, mask=inside).to(tl.float32)
    tl.store(y_pointer + row * stride + columns, scaled.to(y_pointer.dtype.element_ty), mask=inside)


MATMUL = triton.jit(_matmul)
LAYER_NORM = triton.jit(_layer_norm)


def variants(count: int) -> list[Variant]:
    """``count`` different variants, two matrix products for each normalisation: always the same for one ``count``."""
    choose = random.Random(0)
    products = [
        Variant(
            MATMUL,
            element,
            {"BLOCK_M": m, "BLOCK_N": n, "BLOCK_K": k, "ACTIVATION": activation},
            {"num_warps": 4, "num_stages": stages},
        )
        for m, n, k, activation, element, stages in itertools.product(
            (16, 32, 64), (32, 64), (32, 64), ("none", "relu", "silu", "gelu"), ("fp16", "bf16"), (2, 3, 4)
        )
    ]
    normalisations = [
        Variant(
            LAYER_NORM,
            element,
            {"BLOCK": block, "RMS": rms, "RESIDUAL": residual},
            {"num_warps": warps, "num_stages": 1},
        )
        for block, rms, residual, element, warps in itertools.product(
            (256, 512, 1024, 2048, 4096), (False, True), (False, True), ("fp16", "bf16", "fp32"), (4, 8)
        )
    ]
    of_norms = count // 3
    if count - of_norms > len(products) or of_norms > len(normalisations):
        raise ValueError(f"there are not {count} variants")
    return choose.sample(products, count - of_norms) + choose.sample(normalisations, of_norms)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("count", type=int, help="kernels to compile")
    warnings.simplefilter("ignore")  # which floating-point contraction is the default does not matter here
    for variant in variants(parser.parse_args().count):
        variant.compile()


if __name__ == "__main__":
    main()
