"""Uses an imported torch. The import takes 1 to 5 s, so only Intel devices and the tests of the key need it."""

from __future__ import annotations

import sys

_COUNTERS = {
    "inductor": ("fxgraph_cache_hit", "fxgraph_cache_miss", "fxgraph_cache_bypass"),
    "aot_autograd": ("autograd_cache_hit", "autograd_cache_miss", "autograd_cache_bypass"),
}
"""In ``torch._dynamo.utils.counters`` (torch 2.6 to 2.13)."""


def compile_counters() -> dict[str, int]:
    """Read torch's counts of cache hits and misses; empty if this process has not compiled. Imports nothing."""
    dynamo = sys.modules.get("torch._dynamo.utils")
    counters = getattr(dynamo, "counters", {})
    return {
        name: int(counters[group][name]) for group, names in _COUNTERS.items() for name in names if group in counters
    }


def xpu_device() -> str:
    """Names of the Intel devices that torch finds, sorted; empty if there is none."""
    import torch

    return ", ".join(sorted({torch.xpu.get_device_name(index) for index in range(torch.xpu.device_count())}))


def parts() -> dict[str, str]:
    """The parts of the environment key as an imported torch reports them. For tests."""
    import torch

    try:
        import triton

        triton_version = str(triton.__version__)
    except ImportError:
        triton_version = ""
    found = {"torch": str(torch.__version__), "triton": triton_version, "accelerator": "cpu"}
    if torch.cuda.is_available():
        devices = [torch.cuda.get_device_properties(index) for index in range(torch.cuda.device_count())]
        capabilities = (getattr(d, "gcnArchName", "").split(":")[0] or f"{d.major}.{d.minor}" for d in devices)
        found |= {
            "accelerator": "rocm" if torch.version.hip else "cuda",
            "device": ", ".join(sorted({device.name for device in devices})),
            "compute capability": ", ".join(sorted(set(capabilities))),
            "toolkit": str(torch.version.hip or torch.version.cuda),
        }
    return found
