"""vLLM's cache directory, which contains several of the caches."""

from __future__ import annotations

import os
from pathlib import Path

from ..config.reader import EnvReader, Variable, resolve

VLLM_CACHE_ROOT = Variable(
    "VLLM_CACHE_ROOT",
    "`~/.cache/vllm` (below `XDG_CACHE_HOME` if that is set)",
    "a path, `~` and links resolved",
    "vLLM's cache directory, in which it keeps several of the caches below.",
)


def vllm_cache_root(env: EnvReader) -> Path:
    """``VLLM_CACHE_ROOT`` as vLLM computes it, links resolved. Raises ConfigurationError.

    Source: ``vllm/envs.py`` (vLLM 0.32). A relative path is taken from the working directory, as vLLM does.
    """
    caches = env.text("XDG_CACHE_HOME") or os.path.join("~", ".cache")
    return env.path("VLLM_CACHE_ROOT") or resolve("XDG_CACHE_HOME", os.path.join(caches, "vllm"))
