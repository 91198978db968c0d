"""The content of the marks that set packs aside: who set a pack aside, and why.

The name of a mark decides what a load does. Its content is for people. Anybody who can write to the store can write
it, so it is bounded, and shown as plain text only.
"""

from __future__ import annotations

import json
import os
import time
from dataclasses import dataclass

from ..errors import StoreError, printable
from ..stores.base import ObjectInfo, ReadStore, read_small

MOST_READ = 100
"""So many marks of an environment are read, the latest. Each costs a request."""
_MOST_BYTES = 4096
_MOST_CHARACTERS = 300
_LAST_YEAR_S = 253_402_300_799
"""The end of the year 9999, which is the last that can be shown."""


@dataclass(frozen=True)
class Mark:
    """Who set a pack aside, when and why, as far as the mark says so."""

    time_s: float
    """When the mark appeared, in seconds since 1970 on the store's clock."""
    who: str = ""
    """User and host; empty if unknown."""
    why: str = ""
    """The reason; empty if none was given."""

    def __str__(self) -> str:
        """For example ``2026-11-30 07:49 UTC by root@pod: wrong results``."""
        when = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(min(max(self.time_s, 0), _LAST_YEAR_S)))
        by = f" by {self.who}" if self.who else ""
        return f"{when}{by}: {self.why}" if self.why else f"{when}{by}"


def read_mark(store: ReadStore, info: ObjectInfo) -> Mark:
    """Read one mark. One that is unreadable, too large or malformed has no content."""
    mark = Mark(info.modified_s)
    if info.size_bytes > _MOST_BYTES:
        return mark
    try:
        content = json.loads(read_small(store, info.name, _MOST_BYTES) or b"")
    except (StoreError, ValueError, RecursionError):
        return mark
    if not isinstance(content, dict):
        return mark
    return Mark(info.modified_s, _text(content.get("who")), _text(content.get("why")))


def content_of(pack_id: str, why: str, *, who: str = "") -> bytes:
    """The content of a new mark, in the most bytes that readers read."""
    for most in (len(why), _MOST_CHARACTERS):
        content = {"pack": pack_id, "why": why[:most]} | ({"who": who[:_MOST_CHARACTERS]} if who else {})
        data = json.dumps(content).encode()
        if len(data) <= _MOST_BYTES:
            break
    return data


def operator() -> str:
    """The user and the host of this process."""
    import pwd  # a load does not need these
    import socket

    try:
        user = pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:  # a container's user need not have a name
        user = f"uid {os.geteuid()}"
    return f"{user}@{socket.gethostname()}"


def _text(value: object) -> str:
    return printable(value[:_MOST_CHARACTERS]) if isinstance(value, str) else ""
