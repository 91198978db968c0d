"""Environment variables that keep a restored vLLM cache from being used when their values differ between pods.

vLLM hashes nearly every variable it knows into the name of its compile cache's folder (``vllm/envs.py``,
``compile_factors``), among them some that say where a pod is rather than what it compiles. A pod with another value
looks in another folder and compiles all over again, and vLLM says nothing.
"""

from __future__ import annotations

from collections.abc import Mapping

PER_POD_VARIABLES: tuple[str, ...] = (
    # Where this pod is.
    "VLLM_LOOPBACK_IP",
    "VLLM_NIXL_SIDE_CHANNEL_PORT",
    "VLLM_P2P_SIDE_CHANNEL_HOST",
    "VLLM_P2P_SIDE_CHANNEL_PORT",
    "VLLM_EC_SIDE_CHANNEL_HOST",
    "VLLM_EC_SIDE_CHANNEL_PORT",
    "VLLM_MOONCAKE_BOOTSTRAP_PORT",
    "MOONCAKE_REQUESTER_LOCAL_HOSTNAME",
    "MOONCAKE_PREFERRED_SEGMENT",
    "VLLM_RAY_DP_PLACEMENT_NODE_IPS",
    "VLLM_PROCESS_NAME_PREFIX",
    # What this node has.
    "VLLM_CPU_OMP_THREADS_BIND",
    "VLLM_GPU_NIC_PCIE_MAPPING",
    "VLLM_RAY_BUNDLE_INDICES",
    # What is set by the size of a pod, or by the day.
    "VLLM_ENGINE_READY_TIMEOUT_S",
    "VLLM_XGRAMMAR_CACHE_MB",
    "VLLM_LORA_RESOLVER_CACHE_DIR",
    "VLLM_SYSTEM_START_DATE",
)
"""Those that vLLM 0.32.0 hashes. VLLM_DP_RANK is hashed too, but a rank keeps its value from one start to the next."""


def per_pod_variables(environ: Mapping[str, str]) -> list[str]:
    """Those of :data:`PER_POD_VARIABLES` that are set. An empty value counts as unset.

    That one is set says that vLLM hashes it, not that its value differs between pods: only who set it knows.
    """
    return [name for name in PER_POD_VARIABLES if environ.get(name)]
