"""What ninja leaves beside the libraries it builds, for the caches that are built with it.

PyTorch's extensions, FlashInfer and tvm-ffi run ninja in every process, also where the library is there; ninja then
decides whether it is current. It says yes only if

- its state, ``.ninja_log`` and ``.ninja_deps``, and the objects (``.o``) between source and library are there too,
- each command is the one in the log: it holds the paths of sources, includes and often the folder itself,
- no input is newer than the output and the log say, to the nanosecond.

Ninja goes by times, and on another pod those say nothing. So a save records digests of what the build was made from
(:mod:`.records`). If all of it is the same where it is restored, outputs and state get times that ninja takes as
current, and else the build is not restored. The cache may be at another path there: the commands' hashes are computed
anew.

A folder's name says less than ninja looks at: one that was built anew because an image's packages are newer has the
stored one's name. It may be replaced, and is then saved again (``Adapter.may_be_replaced``).

``build.ninja`` is written anew by the caller and does not travel. Figures: docs/decisions/006-ninja-state.md.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection
from pathlib import Path

from ...concurrency.forks import no_fork
from ..base import Adapter, Unit
from ..layout import NAME

LOG, DEPENDENCIES = ".ninja_log", ".ninja_deps"
BUILD_FILES = rf"\.ninja_log|\.ninja_deps|{NAME}\.(?:so|o|d|cpp|cc|cxx|c|cu|cuh|h|hpp|sycl|hip)"
"""What lies in a folder that ninja builds in: its state, objects, the library, sources of inline code."""


class NinjaAdapter(Adapter):
    """A cache whose units are folders that ninja builds in, among others."""

    most_rewritten_bytes = 4 * 1024 * 1024
    """A record names some thousand headers for each object."""

    def may_be_replaced(self, unit: Unit, files: Collection[str] = ()) -> bool:
        return True  # ninja looks at more than a name says

    def is_rewritten(self, path: str) -> bool:
        return path.endswith((f"/{LOG}", f"/{DEPENDENCIES}"))

    def to_portable(self, root: Path, path: str, data: bytes, files: Collection[str]) -> bytes:
        # Most processes have no build to save or restore.
        with no_fork:
            from . import recording

        folder, _, name = path.rpartition("/")
        if name == DEPENDENCIES:
            return recording.NO_DEPENDENCIES  # the record holds them
        try:
            return recording.record(root, folder, data, files).encode(root)
        except (OSError, RecursionError) as error:
            raise ValueError(str(error)) from error

    def to_local(self, root: Path, path: str, data: bytes) -> bytes:
        return data  # :meth:`fitting` rewrites it

    def fitting(self, root: Path, staged: Path, check: Callable[[], None]) -> Callable[[Unit], str]:
        with no_fork:
            from . import fitting

        compared = fitting.Compared(root, staged)

        def fit(unit: Unit) -> str:
            log = staged / unit.path / LOG
            if not log.exists():
                return ""
            try:
                fitting.fit(root, staged, unit.path, log.read_bytes(), compared, check)
            except ValueError as error:
                return str(error)
            return ""

        return fit


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
