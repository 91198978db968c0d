"""Triton kernels of the kinds that fill a real cache, in up to 3,300 variants.

As a program this compiles them into a Triton cache, for a GPU of your choice. It needs Triton, but no GPU:

    TRITON_CACHE_DIR=OUT python benchmarks/kernels.py 300 --target sm_90

Each kernel is a folder with 8 files and 160 kB. Equal numbers, targets and versions of Triton give equal kernels.
"""

from __future__ import annotations

import argparse
import multiprocessing
import random
import re
import warnings
from itertools import product
from typing import Any, NamedTuple

import triton
import triton.language as tl
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource


@triton.jit
def matmul(
    a_pointer, b_pointer, c_pointer, m, n, k, stride_a, stride_b, stride_c,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr, ACTIVATION: tl.constexpr,
):  # fmt: skip
    rows = tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)
    columns = tl.program_id(1) * BLOCK_N + tl.arange(0, BLOCK_N)
    inner = tl.arange(0, BLOCK_K)
    total = tl.zeros((BLOCK_M, BLOCK_N), dtype=tl.float32)
    for start in range(0, k, BLOCK_K):
        left_mask = (rows[:, None] < m) & ((start + inner)[None, :] < k)
        left = tl.load(a_pointer + rows[:, None] * stride_a + (start + inner)[None, :], mask=left_mask, other=0.0)
        right_mask = ((start + inner)[:, None] < k) & (columns[None, :] < n)
        right = tl.load(b_pointer + (start + inner)[:, None] * stride_b + columns[None, :], mask=right_mask, other=0.0)
        total = tl.dot(left, right, total)
    if ACTIVATION == "relu":
        total = tl.maximum(total, 0.0)
    elif ACTIVATION == "silu":
        total = total * tl.sigmoid(total)
    elif ACTIVATION == "gelu":
        total = 0.5 * total * (1.0 + tl.erf(total * 0.7071067811865476))
    mask = (rows[:, None] < m) & (columns[None, :] < n)
    tl.store(c_pointer + rows[:, None] * stride_c + columns[None, :], total.to(c_pointer.dtype.element_ty), mask=mask)


@triton.jit
def layer_norm(
    x_pointer, y_pointer, weight_pointer, bias_pointer, stride, width,
    BLOCK: tl.constexpr, RMS: tl.constexpr, RESIDUAL: tl.constexpr,
):  # fmt: skip
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


@triton.jit
def softmax(x_pointer, y_pointer, stride, width, BLOCK: tl.constexpr, CAUSAL: tl.constexpr):
    row = tl.program_id(0)
    columns = tl.arange(0, BLOCK)
    inside = columns < width
    if CAUSAL:
        inside = inside & (columns <= row)
    values = tl.load(x_pointer + row * stride + columns, mask=inside, other=float("-inf")).to(tl.float32)
    raised = tl.exp(values - tl.max(values, axis=0))
    scaled = raised / tl.sum(raised, axis=0)
    tl.store(y_pointer + row * stride + columns, scaled.to(y_pointer.dtype.element_ty), mask=inside)


class Variant(NamedTuple):
    """One kernel to compile."""

    function: Any
    element: str
    """Type of the elements that its pointers point to."""
    constants: dict[str, Any]
    options: dict[str, int]
    is_aligned: bool
    """Pointers and sizes are multiples of 16: Triton compiles a separate kernel for these."""

    def compile(self, target: GPUTarget) -> None:
        """Compile it into ``TRITON_CACHE_DIR``."""
        signature = {}
        for name in self.function.arg_names:
            kind = f"*{self.element}" if name.endswith("_pointer") else "i32"
            signature[name] = "constexpr" if name in self.constants else kind
        arguments = [number for number, kind in enumerate(signature.values()) if kind != "constexpr"]
        alignment = {(number,): [["tt.divisibility", 16]] for number in arguments} if self.is_aligned else None
        source = ASTSource(self.function, signature, self.constants, alignment)
        triton.compile(source, target=target, options=self.options)


def variants(count: int) -> list[Variant]:
    """``count`` different variants, two thirds of them matrix products. Equal counts give equal variants.

    Raises:
        ValueError: there are fewer variants.
    """
    of_rows = count // 3
    # Small corpora use similar variants; large ones need all that exist.
    for is_large in (False, True):
        products, rows = _products(is_large), _row_kernels(is_large)
        if count - of_rows <= len(products) and of_rows <= len(rows):
            choose = random.Random(0)
            return choose.sample(products, count - of_rows) + choose.sample(rows, of_rows)
    raise ValueError(f"there are fewer than {count} variants")


def _products(is_large: bool) -> list[Variant]:
    elements = ("fp16", "bf16", "fp32") if is_large else ("fp16", "bf16")
    warps, aligned = ((2, 4, 8), (False, True)) if is_large else ((4,), (False,))
    activations = ("none", "relu", "silu", "gelu")
    combinations = product((16, 32, 64), (32, 64), (32, 64), activations, elements, (2, 3, 4), warps, aligned)
    return [
        Variant(
            matmul,
            element,
            {"BLOCK_M": m, "BLOCK_N": n, "BLOCK_K": k, "ACTIVATION": activation},
            {"num_warps": of_warps, "num_stages": stages},
            is_aligned,
        )
        for m, n, k, activation, element, stages, of_warps, is_aligned in combinations
    ]


def _row_kernels(is_large: bool) -> list[Variant]:
    elements, flags = ("fp16", "bf16", "fp32"), (False, True)
    warps, aligned = ((1, 2, 4, 8, 16), flags) if is_large else ((4, 8), (False,))
    norms = [
        Variant(
            layer_norm, element, {"BLOCK": block, "RMS": rms, "RESIDUAL": residual}, _one_stage(of_warps), is_aligned
        )
        for block, rms, residual, element, of_warps, is_aligned in product(
            (256, 512, 1024, 2048, 4096), flags, flags, elements, warps, aligned
        )
    ]
    blocks = (128, 256, 512, 1024, 2048, 4096, 8192) if is_large else ()
    return norms + [
        Variant(softmax, element, {"BLOCK": block, "CAUSAL": causal}, _one_stage(of_warps), is_aligned)
        for block, causal, element, of_warps, is_aligned in product(
            blocks, flags, elements, (1, 2, 4, 8, 16, 32), flags
        )
    ]


def _one_stage(warps: int) -> dict[str, int]:
    return {"num_warps": warps, "num_stages": 1}


def gpu_target(name: str) -> GPUTarget:
    """Triton's target for a GPU such as ``sm_90`` (NVIDIA) or ``gfx942`` (AMD). Raises ValueError for other names."""
    if found := re.fullmatch(r"sm_(\d+)", name):
        return GPUTarget("cuda", int(found.group(1)), 32)
    if found := re.fullmatch(r"gfx([0-9a-f]+)", name):
        return GPUTarget("hip", name, 64 if found.group(1).startswith("9") else 32)
    raise ValueError(f"{name!r} is not the name of a GPU such as sm_90 or gfx942")


def _compile(task: tuple[int, int, str]) -> None:
    """Compile one variant, selected by number because Triton's functions cannot be pickled."""
    number, count, target = task
    warnings.simplefilter("ignore")  # about the default of floating-point contraction
    variants(count)[number].compile(gpu_target(target))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("count", type=int, help="kernels to compile")
    parser.add_argument("--target", default="sm_90", help="sm_80, sm_90, sm_100, gfx942 ... (%(default)s)")
    options = parser.parse_args()
    tasks = [(number, options.count, options.target) for number in range(len(variants(options.count)))]
    # Spawned, not forked: a compiler's state must not be copied.
    with multiprocessing.get_context("spawn").Pool() as pool:
        for _ in pool.imap_unordered(_compile, tasks, chunksize=8):
            pass


if __name__ == "__main__":
    main()
