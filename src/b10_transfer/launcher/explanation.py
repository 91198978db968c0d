"""The likely reason why a server did not use what was restored for it."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence

from ..adapters import CacheRoot, all_adapters, named
from ..config.extra import EXTRA_CACHES
from ..config.per_pod import per_pod_variables
from ..environment.command_line import saved_with
from ..environment.frameworks import torch_build
from ..environment.graph_caching import reason_off
from ..errors import CacheError, ConfigurationError
from ..local.usage import CacheReport, CacheUse
from ..status import LoadReport

_PLACES = ("HOME", "TMPDIR", "XDG_CACHE_HOME")
"""Variables that decide where caches are, beside those of the caches themselves."""


def why_unused(report: CacheReport, server: Mapping[str, str]) -> str:
    """One sentence for a person. ``server`` is the server's environment, empty if it is not known."""
    # If units were compiled in these directories, the server does keep its caches here.
    compiled = any(cache.compiled for cache in report.caches)
    reason, advice = reason_off(_torch_version(), server or os.environ)
    if reason:
        return f"{report.warning}. {reason}. {advice}"
    if not compiled and (differing := places_that_differ(server)):
        return (
            f"nothing that was restored was used: the server keeps its caches elsewhere, since {'; '.join(differing)}. "
            "Start both with the same environment"
        )
    if compiled and (names := per_pod_variables(server or os.environ)):
        return f"{report.warning}; vLLM's key also holds these variables: {', '.join(names)}"
    return report.warning


def why_compiled(caches: Sequence[CacheUse]) -> str:
    """The message about what a server compiled although everything in the store was restored."""
    counts = ", ".join(f"{cache.cache} {cache.compiled}" for cache in caches)
    message = (
        f"the server compiled units although everything in the store was restored: {counts}. Its shapes, flags, code "
        "or model path differ from those of the pods that saved"
    )
    names = per_pod_variables(os.environ)
    return f"{message}; vLLM's key also holds these variables: {', '.join(names)}" if names else message


def with_differences(message: str, load: LoadReport | None) -> str:
    """A message, and the keys and options in which this server differs from those that saved."""
    if load is None:
        return message
    differences = [*load.key_differences, saved_with(load.commands)]
    return "; ".join([message, *(text for text in differences if text and text not in message)])


def why_nothing_was_saved(
    roots: Sequence[CacheRoot], failed: Mapping[str, CacheError], server: Mapping[str, str]
) -> str:
    """Why a server that started cold leaves nothing in the store.

    Args:
        roots: The caches that were looked at.
        failed: Why some of them could not be read, by name. A load or a save has logged it.
        server: The server's environment; empty if it is not known.
    """
    seen = f"nothing was restored and nothing was saved: {_shortly(roots)} got no finished artifacts"
    if len(failed) == 1:
        return f"{seen}, and the cache {', '.join(failed)} is left out, as logged above"
    if failed:
        return f"{seen}, and {len(failed)} caches are left out, as logged above"
    if differing := places_that_differ(server):
        return (
            f"{seen}. It keeps its caches elsewhere, since {'; '.join(differing)}. Start both with the same environment"
        )
    reason, advice = reason_off(_torch_version(), server or os.environ)
    if reason:
        return f"{seen}. {reason}. {advice}"
    return (
        f"{seen}. If the server compiles, its caches are elsewhere: b10-compile-cache info shows where they are looked "
        "for, and each cache's own variable moves it. If the server does not compile, compilation is off (vLLM: "
        "--enforce-eager)"
    )


def _torch_version() -> str:
    try:
        return torch_build().version
    except ConfigurationError:  # B10_PYTHON is wrong, as the load has logged
        return ""


def _shortly(roots: Sequence[CacheRoot]) -> str:
    """The caches' directories, or their number if they are many."""
    return named(roots) if 0 < len(roots) <= 3 else f"{len(roots)} cache directories"


def places_that_differ(server: Mapping[str, str]) -> list[str]:
    """Where this process and the server disagree on where caches are, variable by variable."""
    if not server:
        return []
    read = (variable.name for adapter in all_adapters() for variable in adapter.variables)
    names = [*_PLACES, *(name for name in read if name != EXTRA_CACHES)]  # no compiler reads that one
    return [
        f"{name} is {_value(os.environ, name)} here and {_value(server, name)} there"
        for name in dict.fromkeys(names)
        if os.environ.get(name) != server.get(name)
    ]


def _value(environ: Mapping[str, str], name: str) -> str:
    return environ.get(name) or "not set"
