"""What each compiler writes, in its true shape, for tests of all caches at once."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from typing import Literal

SHA256 = "0a1b" * 16
INDUCTOR_KEY = "cdq7vqhv5vfe4bcrkgejqo5o4m2sxhbvdyxmehbbr4qrmnbjqwup"
GRAPH = "fgi4kywmxnyl2sgkfr6cnhm3z25hdyfqoh3mfpjxytdmzwu7p6rj"
KERNEL = "XJFWKQ3VTWVPYS5VZ4ABTYTRMO2QF4D3RU6VLZ4QYV6MRPFVXQ3A"
HELPER = "YJFWKQ3VTWVPYS5VZ4ABTYTRMO2QF4D3RU6VLZ4QYV6MRPFVXQ3A"
GROUP = b'{"child_paths": {"kernel.cubin": "/elsewhere/kernel.cubin", "kernel.json": "/elsewhere/kernel.json"}}'
MANIFEST = b"rule link\n  command = cat -u link\nbuild mod.so: link\n"
NINJA_LOG = b"# ninja log v7\n1\t2\t3\tmod.so\td1075d4a66fd130b\n"
OP = "0.6.18/90a/cached_ops/mod"
_NINJA = {".ninja_log": NINJA_LOG, ".ninja_deps": b"# ninjadeps\n\4\0\0\0", "main.o": b"object", "mod.so": b"library"}


def below(folder: str, files: Mapping[str, bytes]) -> dict[str, bytes]:
    """The same files in a folder."""
    return {f"{folder}/{name}": data for name, data in files.items()}


def folders_of(paths: Iterable[str]) -> list[str]:
    """Every folder above some files, and their root."""
    return sorted({"/".join(path.split("/")[:depth]) for path in paths for depth in range(path.count("/") + 1)})


def elf_header(machine: int, *, is_big: bool = False) -> bytes:
    """The first bytes of a library for a machine, by its number in ELF files."""
    order: Literal["little", "big"] = "big" if is_big else "little"
    identity = b"\x7fELF" + bytes([2, 2 if is_big else 1, 1]) + bytes(9)
    return identity + (3).to_bytes(2, order) + machine.to_bytes(2, order) + bytes(44)


TRITON = {
    **below(KERNEL, {"kernel.cubin": b"binary", "kernel.json": b"{}", "__grp__kernel.json": GROUP}),
    f"{HELPER}/launcher.so": b"library",
}
INDUCTOR = {
    f"dq/{INDUCTOR_KEY}.py": b"source",
    f"dq/{INDUCTOR_KEY}.main.cpp": b"source",
    f"dq/{INDUCTOR_KEY}.main.so": b"library",
    f"gi/{GRAPH}.best_config": b"{}",
    f"fxgraph/gi/{GRAPH}/{INDUCTOR_KEY}": b"graph",
    f"aotautograd/{INDUCTOR_KEY}/{GRAPH}": b"entry",
    f"dynamo/{SHA256}/entry": b"trace",
    "dynamo/code_state_job.pkl": b"profile",
    f"cache/{SHA256}": b'{"system": {}, "cache": {}}',
    "memoizer_cache.json": b"{}",
    **below("triton/0", TRITON),
}
FLYDSL = {f"moe_gemm/{SHA256}.pkl": b"kernel", f"moe_gemm_{SHA256[:32]}/{SHA256[:16]}.pkl": b"kernel of 0.3"}
QUACK = {f"{SHA256}/{SHA256}.o": b"object"}
DEEP_GEMM = below(f"cache/kernel.gemm.{SHA256[:32]}", {"kernel.cu": b"source", "kernel.cubin": b"binary"})
TILELANG = {
    **below(f"0.1.13_cu128/linux-x86_64/kernels/{SHA256}", {"kernel_lib.so": b"library", "params.pkl": b"parameters"}),
    f"0.1.13_cu128/cuda-binaries/{SHA256}.cubin": b"binary",
}
KNOBS = b'{"version": 2, "entries": [{"device": "NVIDIA GB200", "knobs": {"cluster": [2, 1]}}]}'
TVM_LIBRARY = b"library that TVM built"
TVM_BUILD = {
    "kernel.so": TVM_LIBRARY,
    "kernel.json": b'{"sha256": "%s"}' % hashlib.sha256(TVM_LIBRARY).hexdigest().encode(),
}
FLASHINFER = {
    "moe_ep_knob_cache.json": KNOBS,
    **below(OP, _NINJA),
    **below(f"0.6.18/90a/cached_ops/kda_tirx_{SHA256}", TVM_BUILD),
    "0.6.18/90a/generated/mod/kernel.cu": b"source",
    "0.6.18/90a/autotune/sparse_mla_sm120_decode.json": b"{}",
    f"autotune/v2/{SHA256}/entries/{SHA256}.json": b"{}",
}
PLAN = SHA256[:16]
STARTUP_PLAN = (
    f'{{"schema": 1, "fingerprint": "{PLAN}", '
    '"kv_cache_memory_bytes": 57403864576, "free_memory_baseline": 65000000000}'
).encode()
TUNED = b"Validator,PT_VERSION,2.13.0\nGemmTunableOp_float_NT,nt_25088_4096_64,Gemm_Hipblaslt_1219,1.262\n"
_VLLM_INDEX = b"{(1, 0, 'inductor'): ('k', '/elsewhere/abcd123456/rank_0_0/backbone/artifact_x')}"

ARTIFACTS: dict[str, dict[str, bytes]] = {
    "vllm": {
        "abcd123456/rank_0_0/backbone/artifact_x": b"graph",
        "abcd123456/rank_0_0/backbone/vllm_compile_cache.py": _VLLM_INDEX,
        f"torch_aot_compile/{SHA256}/rank_0_0/model": b"graphs",
        **below(f"torch_aot_compile/{SHA256}/inductor_cache", INDUCTOR),
    },
    "vllm_modelinfos": {"vllm-models-llama-LlamaForCausalLM.json": b'{"hash": "0a", "modelinfo": {}}'},
    "vllm_deep_gemm": DEEP_GEMM,
    "flashinfer_autotune": {"0.6.18/90a/1f2e/autotune_configs.json": b"{}"},
    "sglang_jit": below("sm_90a/mod/build-0123/deps-4567", {"mod.so": b"library", "sgl_deps.json": b"{}"}),
    "sglang_cute": {f"{SHA256}/fused_norm/{SHA256}.o": b"object"},
    "sglang_rust": {f"artifacts/sglang-server/{SHA256}/_server.cpython-311-x86_64-linux-gnu.so": b"library"},
    "sglang_inductor": INDUCTOR,
    "sglang_triton": TRITON,
    "sglang_flashinfer": FLASHINFER,
    "sglang_deep_gemm": DEEP_GEMM,
    "sglang_tilelang": TILELANG,
    "inductor": {
        **INDUCTOR,
        **below("flydsl_compile_cache", FLYDSL),
        **below("quack", QUACK),
        f"cutedsl_compile_cache/{SHA256}.o": b"object",
    },
    "inductor_headers": {"cabc123.h": b"source", "cabc123.h.gch": b"compiled"},
    "triton": TRITON,
    "flashinfer": FLASHINFER,
    "flashinfer_knobs": {"moe_ep_knob_cache.json": KNOBS, "knobs.json": KNOBS},
    "deep_gemm": DEEP_GEMM,
    "tilelang": TILELANG,
    "cute_dsl": {f"cutlass_{SHA256}.mlir": b"module"},
    "tvm_ffi": {
        **below("mod_0123456789abcdef", _NINJA),
        "libtorch_c_dlpack_addon_torch213-cpu-00.so": b"library",
    },
    "torch_extensions": below("py311_cpu/mod", {**_NINJA, "main.cpp": b"source"}),
    "tunableop": {"tunableop_results0.csv": TUNED, "gemm_tunableop_1_full.csv": TUNED},
    "helion": {
        f"{SHA256}.best_config": b"{}",
        f"cute/0/cute_dsl_{KERNEL}.mlir": b"module",
        f"cute/0/cute_dsl_{KERNEL}.json": b"{}",
        **below("triton/0", TRITON),
    },
    "quack": QUACK,
    "quack_autotune": {f"{KERNEL}/gemm.autotune.json": b"{}"},
    "torch_quack": QUACK,
    "torch_quack_autotune": {f"{KERNEL}/gemm.autotune.json": b"{}"},
    "flash_attention": {f"{SHA256}/{SHA256}.o": b"object", f"{SHA256}/fwd/{SHA256}.o": b"object"},
    "flydsl": FLYDSL,
    "b12x": {f"{SHA256[:2]}/{SHA256}.o": b"object", f"{SHA256[:2]}/{SHA256}.json": b"{}"},
    "sglang_autotune": {
        f"v2/{SHA256}/manifest.json": b"{}",
        f"v2/{SHA256}/entries/{SHA256}.json": b"{}",
        f"managed/{SHA256[:16]}/rank_tp0_pp0_dp0/v2/{SHA256}/entries/{SHA256}.json": b"{}",
        f"managed/{SHA256[:16]}/rank_tp1_pp0_dp0/v2/{SHA256}/entries/{SHA256}.json": b"{}",
        f"0.6.18/90a/{SHA256[:16]}/rank_tp0_pp0_dp0.json": b"{}",
        f"flux3_prims_ts/NVIDIA_GB200/{SHA256[:16]}/rank0.json": b"{}",
        f"flux3_prims_ts/NVIDIA_GB200/{SHA256[:16]}/rank1.json": b"{}",
    },
    "flashinfer_entries": {f"v2/{SHA256}/manifest.json": b"{}", f"v2/{SHA256}/entries/{SHA256}.json": b"{}"},
    "flashinfer_v2": {f"v2/{SHA256}/manifest.json": b"{}", f"v2/{SHA256}/entries/{SHA256}.json": b"{}"},
    "flashinfer_tuning": {"sparse_mla_sm120_cpb.json": b"{}", "pcie_ipc_all_reduce_ws8.json": b"{}"},
    "miopen": {
        "gfx942130.HIP.3_5_0_0123abcd.ufdb.txt": b"1-2=a:1\n",
        "gfx942130.HIP.3_5_0_0123abcd.fusion.ufdb.txt": b"1-2=a:1\n",
        "gfx1201_32.HIP.3_5_1_dabb6.udb.txt": b"1=a\n",
        "batchnorm_gfx942130.HIP.3_5_0_0123abcd.udb.txt": b"1=a\n",
        "softmax_gfx90a68.HIP.3_3_0_a85ca8a54-dirty.udb.txt": b"1=a\n",
    },
    "miopen_kernels": {"3.5.0.0123abcd/gfx942130.ukdb": b"SQLite format 3\0", "gfx1201_32.ukdb": b"SQLite format 3\0"},
    "jax": {f"jit_step-{SHA256}-cache": b"program"},
    "aiter": {
        "module_moe_asm.so": b"library",
        "mha_varlen_fwd_bf16_nlogits_nbias_mask.so": b"library",
        f"build/pa_ragged_{SHA256[:32]}/lib.so": b"library",
        f"build/gfx942/pa_decode_{SHA256[:32]}.hsaco": b"kernel",
        f"build/gfx942/pa_decode_{SHA256[:32]}.json": b"{}",
    },
    "aiter_templates": {
        f"pa_{SHA256[:32]}/lib.so": b"library",
        f"gfx942/pa_decode_{SHA256[:32]}.hsaco": b"kernel",
        f"gfx942/pa_decode_{SHA256[:32]}.json": b"{}",
    },
    "vllm_startup_plan": {f"startup_plan_{PLAN}.json": STARTUP_PLAN},
    "sglang_graphs": {
        **below(f"{SHA256[:10]}/rank_0_0/backbone/inductor_cache", INDUCTOR),
        **below(f"{SHA256[:10]}/rank_0_0/backbone/triton_cache", TRITON),
    },
    "sglang_diffusion_inductor": INDUCTOR,
    "sglang_diffusion_triton": TRITON,
    "sglang_old_deep_gemm": DEEP_GEMM,
    "cupy": {f"{SHA256[:40]}.cubin": b"kernel", f"{SHA256[:40]}.ltoir": b"code", f"{SHA256[:32]}_2.cubin": b"kernel"},
    "cuda": {"ComputeCache/index": b"index", "ComputeCache/0/a/e0943aa8a566c2": b"binary"},
}
"""For each cache the files of finished units, by their paths below its root."""

LEFT_HERE: dict[str, dict[str, bytes]] = {
    "helion": {f"backward/helion_bwd_{SHA256[:32]}.py": b"source"},
    "jax": {
        f"jit_step-{SHA256}-atime": b"time",
        f"xla_gpu_per_fusion_autotune_cache_dir/{SHA256[:43]}.textproto": b"result",
        "xla_gpu_kernel_cache_file": b"kernels",
    },
    "miopen": {"gfx942130.HIP.3_5_0_0123abcd.ufdb.txt.time": b"time"},
    "sglang_rust": {f"targets/{SHA256[:24]}/release/lib_server.so": b"library"},
    "aiter": {
        "core.py": b"source",
        "optCompilerConfig.json": b"{}",
        "build/module_moe_asm/build/module_moe_asm.so": b"library",
        "build/module_moe_asm/blob/instance.cpp": b"source",
        f"build/pa_ragged_{SHA256[:32]}/Makefile": b"build:",
        f"build/pa_ragged_{SHA256[:32]}/include/ck/ck.hpp": b"source",
    },
    "sglang_graphs": {f"{SHA256[:10]}/rank_0_0/backbone/computation_graph.py": b"source"},
    "cupy": {f"{SHA256[:40]}.cubin.cu": b"source"},
    "aiter_templates": {
        f"pa_{SHA256[:32]}/Makefile": b"build:",
        f"pa_{SHA256[:32]}/pa_{SHA256[:32]}.cpp": b"source",
    },
    "sglang_flashinfer": {f"{OP}/build.ninja": MANIFEST},
    "flashinfer": {f"{OP}/build.ninja": MANIFEST},
    "tvm_ffi": {"mod_0123456789abcdef/build.ninja": MANIFEST},
    "torch_extensions": {"py311_cpu/mod/build.ninja": MANIFEST},
}
"""Files that a save reads and does not publish."""


def tree(cache: str) -> dict[str, bytes]:
    """The files of a cache as a compiler leaves them."""
    return {**ARTIFACTS[cache], **LEFT_HERE.get(cache, {})}
