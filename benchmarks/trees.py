"""Compares trees of files, and measures their size."""

from __future__ import annotations

import filecmp
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from benchmarks import corpus


@dataclass(frozen=True)
class Extent:
    """Number and size of the files in a folder."""

    files: int
    bytes: int

    def __str__(self) -> str:
        return f"{self.files:,} files, {self.bytes / 1e6:.1f} MB"


def extent(folder: Path) -> Extent:
    """The number and the size of all files below a folder."""
    sizes = [file.stat().st_size for file in _files(folder)]
    return Extent(len(sizes), sum(sizes))


def differences(original: Path, restored: Path, *, relocated: bool = True, with_times: bool = True) -> list[str]:
    """The files that differ in content, mode or time (to the nanosecond), a line for each.

    Args:
        relocated: Triton's group files must name their files at the new path, instead of being equal.
        with_times: compare modes and times.
    """
    expected = {str(file.relative_to(original)) for file in _files(original)}
    found = {str(file.relative_to(restored)) for file in _files(restored)}
    lines = [f"{path} is missing or was not expected" for path in sorted(expected ^ found)]
    for path in sorted(expected & found):
        before, after = (original / path).stat(), (restored / path).stat()
        if with_times and (before.st_mode, before.st_mtime_ns) != (after.st_mode, after.st_mtime_ns):
            lines.append(f"{path} has another mode or time")
        if not _same_content(original / path, restored / path, relocated):
            lines.append(f"{path} has other content")
    return lines


def _same_content(original: Path, restored: Path, relocated: bool) -> bool:
    if relocated and original.name.startswith(corpus.GROUP):
        names = json.loads(original.read_bytes())["child_paths"]
        expected = {"child_paths": {child: str(restored.with_name(Path(path).name)) for child, path in names.items()}}
        return bool(json.loads(restored.read_bytes()) == expected)
    return filecmp.cmp(original, restored, shallow=False)


def _files(folder: Path) -> Iterator[Path]:
    return (path for path in folder.rglob("*") if path.is_file())
