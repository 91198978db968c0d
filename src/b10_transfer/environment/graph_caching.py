"""Settings that keep a program from using the caches that a load restores."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping

_OFF_BY_DEFAULT_BEFORE = (2, 5)


def reason_off(torch_version: str, environ: Mapping[str, str]) -> tuple[str, str]:
    """Find out whether a setting keeps torch, or vLLM, from caching what it compiles.

    Args:
        torch_version: ``torch.__version__``; empty without torch.
        environ: The variables of the program that compiles.

    Returns:
        The reason, and what to do; both empty if compiled graphs are cached.
    """
    if environ.get("TORCHINDUCTOR_FORCE_DISABLE_CACHES") == "1":
        return "TORCHINDUCTOR_FORCE_DISABLE_CACHES=1: torch uses no cache, so nothing restored is used", "Unset it"
    if environ.get("VLLM_DISABLE_COMPILE_CACHE") == "1":
        return "VLLM_DISABLE_COMPILE_CACHE=1: vLLM uses no compile cache, so each start compiles", "Unset it"
    value = environ.get("TORCHINDUCTOR_FX_GRAPH_CACHE")
    if value == "1" or _is_on_in_program():
        return "", ""
    if value == "0":
        return (
            "TORCHINDUCTOR_FX_GRAPH_CACHE=0: torch caches no compiled graphs, so each start compiles them",
            "Unset it",
        )
    found = re.match(r"(\d+)\.(\d+)", torch_version)
    if found and (int(found[1]), int(found[2])) < _OFF_BY_DEFAULT_BEFORE:
        seen = f"torch {torch_version} caches no compiled graphs by default, so each start compiles them"
        return seen, "Set TORCHINDUCTOR_FX_GRAPH_CACHE=1 in every pod"
    return "", ""


def _is_on_in_program() -> bool:
    """Whether this program has turned graph caching on in torch's configuration. Imports nothing."""
    config = sys.modules.get("torch._inductor.config")
    return bool(getattr(config, "fx_graph_cache", False))
