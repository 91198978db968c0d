"""The files in which traces and refusals lie, below Inductor's cache directory."""

from __future__ import annotations

import hashlib
import logging
import os
import pickle
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch._dynamo.package import SerializedCode, _DynamoCodeCacheEntry

from .dependencies import Dependencies
from .guards import Expected
from .hidden import Hidden
from .refusals import Refusal

logger = logging.getLogger(__name__)

FORMAT = 5
"""Files of another format are not used: those of formats 1 to 4 may hold results that no guard compares."""
REFUSAL_FORMAT = "refusal 1"
"""Of refusals, which lie among the traces. Earlier versions ignore them."""


@dataclass(frozen=True)
class Trace:
    """One frame as it was compiled once: its guards, its bytecode, and what both are bound to."""

    guards_state: bytes
    code: SerializedCode
    expected: Expected
    hidden: Hidden
    depends: Dependencies
    backends: tuple[str, ...]
    name: str
    """A digest of what went into it, the same in every process that traced the same."""


@dataclass(frozen=True)
class Frame:
    """The traces of one code object."""

    entry: _DynamoCodeCacheEntry
    home: str
    """The module of its globals; empty if they are those of the compiled function."""
    traces: list[Trace]


@dataclass(frozen=True)
class TraceFile:
    """What one flush writes for one function."""

    frames: list[Frame]
    """The frames, the function's own first."""
    backends: dict[str, Any]
    """Compiled graphs by the names under which bytecode calls them."""

    def write(self, folder: Path) -> None:
        """Raises OSError, PickleError."""
        names = sorted(trace.name for frame in self.frames for trace in frame.traces)
        body = pickle.dumps((self.frames, self.backends))
        content = pickle.dumps({"format": FORMAT, "body": body})
        _write(folder / hashlib.sha256("".join([str(FORMAT), *names]).encode()).hexdigest()[:32], content)


def write_refusal(refusal: Refusal, folder: Path) -> bool:
    """Whether it is new. Raises OSError."""
    parts = (refusal.reasons, dict(refusal.depends))
    return _write(folder / refusal.name, pickle.dumps({"format": REFUSAL_FORMAT, "body": pickle.dumps(parts)}))


def read(path: Path) -> TraceFile | Refusal | None:
    """None if the file is of another format. Raises whatever unpickling may raise."""
    content = pickle.loads(path.read_bytes())
    if content.get("format") == REFUSAL_FORMAT:
        return Refusal(*pickle.loads(content["body"]))
    if content.get("format") != FORMAT:
        logger.debug("instant start: %s has format %s, not %s; ignored", path, content.get("format"), FORMAT)
        return None
    return TraceFile(*pickle.loads(content["body"]))


def _write(path: Path, content: bytes) -> bool:
    """Whole or not at all, and never over another. Returns whether it was written."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.exists():
        return False
    handle, temporary = tempfile.mkstemp(prefix=".b10-", suffix=".tmp", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise
    return True
