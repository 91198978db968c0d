"""vLLM's start-up plans: how much memory of a GPU is left for the KV cache.

Layout (vLLM 0.32, ``vllm/v1/worker/startup_plan.py``): ``VLLM_CACHE_ROOT/startup_plan/startup_plan_<fingerprint>.json``
for each rank, if ``VLLM_ENABLE_STARTUP_PLAN=1``; written under another name and renamed. The fingerprint covers vLLM's
version and configuration, torch, CUDA, the rank, and the device with its memory. vLLM takes the number only if at least
as much memory is free as when it was measured, and else measures again.

So a plan is right on every pod that has its fingerprint. With the same plan, all replicas have KV caches of one size.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from pathlib import Path

from ..config.reader import EnvReader
from .base import Adapter, Unit, json_object
from .layout import Layout, stem_shape
from .vllm_root import VLLM_CACHE_ROOT, vllm_cache_root

_FINGERPRINT = r"[0-9a-f]{16}"
_NUMBERS = ("schema", "kv_cache_memory_bytes", "free_memory_baseline")
_NO_PLAN = "not a start-up plan of vLLM's"


class VllmStartupPlanAdapter(Adapter):
    """``VLLM_CACHE_ROOT/startup_plan``."""

    name = "vllm_startup_plan"
    title = "vLLM's start-up plans; auxiliary: saved only together with artifacts"
    units = "a rank's file"
    variables = (VLLM_CACHE_ROOT,)
    accompanies = True
    layout = Layout(
        stem_shape(rf"startup_plan_{_FINGERPRINT}\.json"), left_here=(rf"startup_plan_{_FINGERPRINT}\.json\.tmp\.\d+",)
    )

    def locate(self, env: EnvReader) -> Path:
        return vllm_cache_root(env) / "startup_plan"

    def depends_on_host(self, unit: Unit, files: Collection[str]) -> bool:
        return False

    def is_rewritten(self, path: str) -> bool:
        return True  # it is checked: another number of bytes lets vLLM fail

    def to_portable(self, root: Path, path: str, data: bytes, files: Collection[str]) -> bytes:
        return _checked(path, data)

    def to_local(self, root: Path, path: str, data: bytes) -> bytes:
        return _checked(path, data)


def _checked(path: str, data: bytes) -> bytes:
    plan = json_object(data, _NO_PLAN)
    named = re.search(_FINGERPRINT, path)
    if (
        plan.keys() != {"fingerprint", *_NUMBERS}
        or named is None
        or plan["fingerprint"] != named[0]
        or not all(type(plan[name]) is int and plan[name] >= 0 for name in _NUMBERS)
    ):
        raise ValueError(_NO_PLAN)
    return data
