"""Triton kernels of the kinds that fill a real cache, in up to 3,300 variants.

Run as a program, it compiles them for a GPU (an H100, sm_90, unless another is named) into ``TRITON_CACHE_DIR``. That
needs Triton, but no GPU. ``benchmarks/corpus.py`` is the way to use it.
"""

from __future__ import annotations

import argparse
import itertools
import multiprocessing
import random
import re
import warnings
from typing import Any, NamedTuple

import triton
import triton.language as tl
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

TARGET = "sm_90"


class Variant(NamedTuple):
    """One kernel to compile."""

    function: Any
    element: str
    """Type of the elements that its pointers point to."""
    constants: dict[str, Any]
    options: dict[str, int]
    is_aligned: bool = False
    """Whether pointers and sizes are multiples of 16, for which Triton compiles a kernel of its own."""

    def compile(self, target: GPUTarget) -> None:
        """Compile it into ``TRITON_CACHE_DIR``."""
        signature = {}
        for name in self.function.arg_names:
            if name in self.constants:
                signature[name] = "constexpr"
            else:
                signature[name] = f"*{self.element}" if name.endswith("_pointer") else "i32"
        arguments = [number for number, kind in enumerate(signature.values()) if kind != "constexpr"]
        alignment = {(number,): [["tt.divisibility", 16]] for number in arguments} if self.is_aligned else None
        source = ASTSource(self.function, signature, self.constants, alignment)
        triton.compile(source, target=target, options=self.options)


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


def _softmax(
    x_pointer: tl.tensor,
    y_pointer: tl.tensor,
    stride: tl.tensor,
    width: tl.tensor,
    BLOCK: tl.constexpr,  # noqa: N803
    CAUSAL: tl.constexpr,  # noqa: N803
) -> None:
    row = tl.program_id(0)
    columns = tl.arange(0, BLOCK)
    inside = columns < width
    if CAUSAL:
        inside = inside & (columns <= row)
    values = tl.load(x_pointer + row * stride + columns, mask=inside, other=float("-inf")).to(tl.float32)
    raised = tl.exp(values - tl.max(values, axis=0))
    scaled = raised / tl.sum(raised, axis=0)
    tl.store(y_pointer + row * stride + columns, scaled.to(y_pointer.dtype.element_ty), mask=inside)


MATMUL = triton.jit(_matmul)
LAYER_NORM = triton.jit(_layer_norm)
SOFTMAX = triton.jit(_softmax)


def variants(count: int) -> list[Variant]:
    """``count`` different variants: always the same for one ``count``, and two thirds of them matrix products.

    The rest are normalisations and, in large corpora, softmaxes. Raises ValueError if there are not so many.
    """
    choose = random.Random(0)
    of_rows = count // 3
    products, rows = _products(), _normalisations()
    # The plain ones, which are like each other, make up small corpora; large ones need all there are.
    if count - of_rows > len(products) or of_rows > len(rows):
        products = _products(
            stages=(2, 3, 4), warps=(2, 4, 8), elements=("fp16", "bf16", "fp32"), aligned=(False, True)
        )
        rows = [*_normalisations(warps=(1, 2, 4, 8, 16), aligned=(False, True)), *_softmaxes()]
    if count - of_rows > len(products) or of_rows > len(rows):
        raise ValueError(f"there are not {count} variants")
    return choose.sample(products, count - of_rows) + choose.sample(rows, of_rows)


def _products(
    stages: tuple[int, ...] = (2, 3, 4),
    warps: tuple[int, ...] = (4,),
    elements: tuple[str, ...] = ("fp16", "bf16"),
    aligned: tuple[bool, ...] = (False,),
) -> list[Variant]:
    activations = ("none", "relu", "silu", "gelu")
    return [
        Variant(
            MATMUL,
            element,
            {"BLOCK_M": m, "BLOCK_N": n, "BLOCK_K": k, "ACTIVATION": activation},
            {"num_warps": of_warps, "num_stages": of_stages},
            is_aligned,
        )
        for m, n, k, activation, element, of_stages, of_warps, is_aligned in itertools.product(
            (16, 32, 64), (32, 64), (32, 64), activations, elements, stages, warps, aligned
        )
    ]


def _normalisations(warps: tuple[int, ...] = (4, 8), aligned: tuple[bool, ...] = (False,)) -> list[Variant]:
    return [
        Variant(
            LAYER_NORM,
            element,
            {"BLOCK": block, "RMS": rms, "RESIDUAL": residual},
            {"num_warps": of_warps, "num_stages": 1},
            is_aligned,
        )
        for block, rms, residual, element, of_warps, is_aligned in itertools.product(
            (256, 512, 1024, 2048, 4096), (False, True), (False, True), ("fp16", "bf16", "fp32"), warps, aligned
        )
    ]


def _softmaxes() -> list[Variant]:
    return [
        Variant(SOFTMAX, element, {"BLOCK": block, "CAUSAL": causal}, {"num_warps": warps, "num_stages": 1}, is_aligned)
        for block, causal, element, warps, is_aligned in itertools.product(
            (128, 256, 512, 1024, 2048, 4096, 8192),
            (False, True),
            ("fp16", "bf16", "fp32"),
            (1, 2, 4, 8, 16, 32),
            (False, True),
        )
    ]


def gpu_target(name: str) -> GPUTarget:
    """Triton's name for a GPU: ``sm_90`` is NVIDIA's of compute capability 9.0, ``gfx942`` one of AMD's.

    Raises ValueError for any other form.
    """
    if found := re.fullmatch(r"sm_(\d+)", name):
        return GPUTarget("cuda", int(found.group(1)), 32)
    if found := re.fullmatch(r"gfx([0-9a-f]+)", name):
        return GPUTarget("hip", name, 64 if found.group(1).startswith("9") else 32)
    raise ValueError(f"{name!r} is no GPU's name like sm_90 or gfx942")


def _compile(number_count_target: tuple[int, int, str]) -> None:
    """Compile one of the variants. By number, because functions that Triton wraps cannot be sent to a process."""
    number, count, target = number_count_target
    warnings.simplefilter("ignore")  # which floating-point contraction is the default does not matter here
    variants(count)[number].compile(gpu_target(target))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("count", type=int, help="kernels to compile")
    parser.add_argument("--target", default=TARGET, help="for this GPU: sm_80, sm_90, sm_100, gfx942 ... (%(default)s)")
    parser.add_argument("--jobs", type=int, default=1, help="compilers at once (%(default)s)")
    options = parser.parse_args()
    work = [(number, options.count, options.target) for number in range(len(variants(options.count)))]
    # Started afresh and not forked: a compiler's state is not copied from this process.
    with multiprocessing.get_context("spawn").Pool(options.jobs) as pool:
        for _ in pool.imap_unordered(_compile, work, chunksize=8):
            pass


if __name__ == "__main__":
    main()
