"""Environment variables that keep a restored vLLM cache from being used when their values differ between pods.

vLLM names the folder of its compile cache by a hash of nearly every variable that it knows (``vllm/envs.py``,
``compile_factors``). Some of them describe the pod, not the compilation. A pod with another value looks in another
folder and compiles again, and vLLM logs nothing about it.
"""

from __future__ import annotations

from collections.abc import Mapping

PER_POD_VARIABLES: tuple[str, ...] = (
    # The pod's address.
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
    # The node's hardware.
    "VLLM_CPU_OMP_THREADS_BIND",
    "VLLM_GPU_NIC_PCIE_MAPPING",
    "VLLM_RAY_BUNDLE_INDICES",
    # Set by the size of a pod, or by the day.
    "VLLM_ENGINE_READY_TIMEOUT_S",
    "VLLM_XGRAMMAR_CACHE_MB",
    "VLLM_LORA_RESOLVER_CACHE_DIR",
    "VLLM_SYSTEM_START_DATE",
)
"""The variables that vLLM 0.32.0 hashes. VLLM_DP_RANK is not listed: a rank has the same value at every start."""


def per_pod_variables(environ: Mapping[str, str]) -> list[str]:
    """Return the :data:`PER_POD_VARIABLES` that are set. An empty value counts as unset.

    vLLM hashes each of them. Whether its value differs between pods cannot be seen from one pod.
    """
    return [name for name in PER_POD_VARIABLES if environ.get(name)]
