"""The caches that ``B10_EXTRA_CACHES`` adds."""

from __future__ import annotations

import re
from collections.abc import Mapping

from ..errors import ConfigurationError

EXTRA_CACHES = "B10_EXTRA_CACHES"
PREFIX = "extra_"
"""How the names of extra caches begin in packs and in B10_CACHES."""
_ENTRY = re.compile(r"\s*([a-z][a-z0-9_]{0,19})=(/[^,=]*[^,=/\s])/?\s*", re.ASCII)


def extra_caches(text: str | None) -> Mapping[str, str]:
    """The absolute paths of extra caches, by the names that they have in packs and in B10_CACHES.

    Args:
        text: The value of the variable.

    Raises:
        ConfigurationError: It is not a list of ``name=/path``.
    """
    found: dict[str, str] = {}
    for entry in (text or "").split(",") if text else ():
        match = _ENTRY.fullmatch(entry)
        if match is None or f"{PREFIX}{match[1]}" in found:
            rule = "it must be name=/path, or several of these separated by commas; a name has at most 20 lower-case "
            raise ConfigurationError(EXTRA_CACHES, text or "", f"{rule}letters, digits and '_', and is there once")
        found[f"{PREFIX}{match[1]}"] = match[2]
    return found
