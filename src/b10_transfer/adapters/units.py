"""Units, and the names of files that are never artifacts."""

from __future__ import annotations

import re
from collections.abc import Iterable
from enum import Enum
from typing import NamedTuple

_TRANSIENT = re.compile(
    r"""(?x)
    (?:^|/)
    (?: [^/]*\.lock | lock
      | [^/]*\.tmp | tmp\.[^/]* | \.nfs[0-9a-f]+
      | (?:\.[^/]*)?\.b10-[^/]*   # our own staging and locks
      | __pycache__
    )
    (?:/|$)
    """
)
"""Names, of files or folders, that are never artifacts: locks, half-written files, leftovers.

``.<pid>.<thread>.tmp`` and ``<name>.<pid>.tmp`` (Inductor, vLLM) end in ``.tmp``; ``tmp.pid_…`` is Triton's.
"""


class UnitKind(str, Enum):
    """How the files of a unit are arranged, which decides how they are put in place."""

    FOLDER = "folder"
    """Everything below one folder; the folder is renamed into place whole."""
    STEM = "stem"
    """Files in one folder that share the beginning of their name; each is linked into place by itself."""

    __hash__ = str.__hash__


class Unit(NamedTuple):
    """The smallest set of files that is published, restored or replaced completely.

    ``path`` is relative to the cache root, ``/``-separated. The unit's files are those below it (FOLDER), or those
    whose path is it, or begins with it and a dot (STEM).
    """

    path: str
    kind: UnitKind


def is_transient(path: str) -> bool:
    """Whether any component of a path names something that is never an artifact."""
    return _is_hinted(path) and _TRANSIENT.search(path) is not None


def any_transient(paths: Iterable[str]) -> bool:
    """Whether any of many paths names something that is never an artifact."""
    lines = "\n".join(paths)
    return _is_hinted(lines) and any(map(is_transient, lines.split("\n")))


def _is_hinted(text: str) -> bool:
    # Nearly every path is dismissed by this, in a fraction of the expression's time.
    return "lock" in text or "tmp" in text or ".nfs" in text or ".b10-" in text or "__pycache__" in text
