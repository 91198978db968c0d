"""What ninja leaves beside the libraries it builds, for the caches that are built with it.

PyTorch's extensions, FlashInfer and tvm-ffi run ninja in every process, also where the library is there; ninja then
decides whether it is current. It says yes only if

- its state, ``.ninja_log`` and ``.ninja_deps``, and the objects (``.o``) between source and library are there too,
- each command is the one in the log: it holds the paths of sources, includes and often the folder itself,
- no input (system and package headers included) is newer than the log says, to the nanosecond.

So state and objects travel as they are, modification times included, and hit where the same packages lie at the same
paths and with the same times: on pods of one image with the same cache directory. Elsewhere ninja builds anew, and a
restored folder is of no use but does no harm. The state's commands are hashes, so its paths cannot be rewritten.

A folder's name says less than ninja looks at: one that was built anew because an image's packages are newer has the
stored one's name. It may be replaced, and is then saved again (``Adapter.may_be_replaced``).

``build.ninja`` is written anew by the caller and does not travel. Figures: docs/decisions/006-ninja-state.md.
"""

from __future__ import annotations

import os
from collections.abc import Collection
from pathlib import Path

from .layout import NAME

LOG = ".ninja_log"
BUILD_FILES = rf"\.ninja_log|\.ninja_deps|{NAME}\.(?:so|o|d|cpp|cc|cxx|c|cu|cuh|h|hpp|sycl|hip)"
"""What lies in a folder that ninja builds in: its state, objects, the library, sources of inline code."""


def has_built_library(folder: Path, files: Collection[str]) -> bool:
    """Whether ninja has finished one of the libraries among ``files``, all of which lie below ``folder``.

    Linkers write straight to the final name, ninja notes it in its log afterwards (v1.13,
    ``src/build.cc``, ``Builder::FinishCommand``).
    """
    libraries = {file.rpartition("/")[2] for file in files if file.endswith(".so")}
    return bool(libraries) and not libraries.isdisjoint(_logged(folder / LOG))


def is_newer(path: Path, other: Path) -> bool:
    """Whether a file was written after another, or either is gone."""
    try:
        return os.stat(path).st_mtime_ns > os.stat(other).st_mtime_ns
    except OSError:
        return True


def _logged(log: Path) -> set[str]:
    """Names of the outputs in a log: lines of start, end, time, path and hash of the command, with tabs between."""
    try:
        lines = log.read_text(errors="replace").splitlines()
    except OSError:  # there is none
        return set()
    fields = [line.split("\t") for line in lines]
    return {line[3].rpartition("/")[2] for line in fields if len(line) == 5}
