"""A plugin for tests: vLLM on a CPU keeps the compile mode that it uses on GPUs.

Stock vLLM turns mode 3 (``VLLM_COMPILE``: its own backend, graphs cut at attention, one artifact for all of them) into
mode 2 on CPUs. With ``B10_TEST_COMPILE_MODE=3`` it stays, so that the code path of GPUs runs, and its caches are
written, without one. Whoever quotes a figure that was measured so says "patched to the GPU's compile mode".

Written for vLLM 0.32.0.
"""

from __future__ import annotations

import os
from functools import wraps
from typing import Any


def register() -> None:
    """What vLLM calls in each of its processes."""
    if os.environ.get("B10_TEST_COMPILE_MODE") != "3":
        return
    from vllm.config import CompilationMode
    from vllm.platforms.cpu import CpuPlatform

    as_for_cpus = CpuPlatform.check_and_update_config

    @wraps(as_for_cpus)
    def as_for_gpus(vllm_config: Any) -> None:
        compilation = vllm_config.compilation_config
        asked_for = compilation.mode
        as_for_cpus(vllm_config)
        if asked_for == CompilationMode.VLLM_COMPILE and compilation.mode != CompilationMode.NONE:
            compilation.mode = asked_for
            if compilation.compile_sizes is None:
                compilation.compile_sizes = []

    CpuPlatform.check_and_update_config = staticmethod(as_for_gpus)
    CpuPlatform.get_pass_manager_cls = staticmethod(lambda: f"{__name__}.pass_manager")
    _probe_the_cpu_before_threads_do()


def _probe_the_cpu_before_threads_do() -> None:
    """Keep a race of torch's (2.13), which GPU kernels do not know, out of the tests.

    vLLM loads the graphs of an artifact in threads. On a CPU with AVX-512 each asks torch which instructions there are,
    and torch answers wrong while another thread is asking (``VecAVX512.__bool__`` in ``cpu_vec_isa.py`` changes its own
    flags for a while): a kernel of the artifact then misses now and then, and is compiled.
    """
    from torch._inductor.cpu_vec_isa import valid_vec_isa_list
    from vllm.compilation.caching import StandaloneCompiledArtifacts

    load_all = StandaloneCompiledArtifacts.load_all

    @wraps(load_all)
    def after_the_probe(artifacts: Any) -> None:
        valid_vec_isa_list()
        load_all(artifacts)

    StandaloneCompiledArtifacts.load_all = after_the_probe


def pass_manager() -> Any:
    """vLLM's manager of graph passes, without the one that names operators of CUDA builds."""
    from vllm.compilation.passes.pass_manager import PostGradPassManager
    from vllm.compilation.passes.utility.fix_functionalization import FixFunctionalizationPass

    class Unneeded(FixFunctionalizationPass):  # type: ignore[misc]  # vLLM is not there to be checked
        def __call__(self, graph: Any) -> None:
            """Do nothing."""

    class Manager(PostGradPassManager):  # type: ignore[misc]
        def configure(self, config: Any) -> None:
            super().configure(config)
            self.fix_functionalization = Unneeded(config)

    return Manager()
