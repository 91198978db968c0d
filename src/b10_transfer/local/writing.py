"""Write the files of a pack's units to staged trees."""

from __future__ import annotations

import stat
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack

from ..adapters import CacheRoot
from ..concurrency.deadline import Deadline
from ..concurrency.pipeline import has_idle_processor, shared
from ..errors import CorruptPackError
from ..pack import PackUnit, Slice
from ..repository.repository import ReadRepository
from ..repository.union import Pack
from .bulk import FilePart, is_native
from .staging import StagedTree

_Batch = tuple[str, list[FilePart]]
"""The name of a root, and files to write there in one call."""
_BATCH_FILES = 32
"""A frame of kernels holds some hundred files, which two threads divide among themselves."""


def stage(
    repository: ReadRepository,
    pack: Pack,
    units: list[PackUnit],
    roots: Mapping[str, CacheRoot],
    trees: Mapping[str, StagedTree],
    deadline: Deadline,
) -> Mapping[str, OSError]:
    """Write the units' files to staging. Raises PackError if the pack cannot be used.

    Returns the roots to which something could not be written, and why.
    """
    deadline.check(f"reading pack {pack.id}")
    members = [member for unit in units for member in unit.members]
    writer = _Writer(pack, roots, trees)
    with ExitStack() as stack:
        reader = stack.enter_context(repository.opened(pack))
        write: Callable[[Iterable[_Batch]], None] = writer.write_all
        if is_native and has_idle_processor():  # in Python it would only wait for the interpreter's lock
            write = stack.enter_context(shared(writer.write, deadline))
        for content, slices in reader.read_slices(pack.index, members):
            write(writer.batches(content, slices))
    return writer.failed


class _Writer:
    """Writes a pack's files to their trees."""

    def __init__(self, pack: Pack, roots: Mapping[str, CacheRoot], trees: Mapping[str, StagedTree]) -> None:
        self._pack = pack
        self._trees = trees
        self._roots = {name: (roots[name], roots[name].adapter.is_rewritten) for name in trees}
        self._gathered = bytearray()
        """The content in earlier frames of a file that is to be rewritten."""
        self.failed: dict[str, OSError] = {}
        """Why a root cannot be written to, by its name."""

    def batches(self, content: bytearray, slices: Sequence[Slice]) -> Iterator[_Batch]:
        """The parts of files in a frame. Raises CorruptPackError if a file is not valid."""
        parts: dict[str, list[FilePart]] = {name: [] for name in self._trees}
        # This runs thousands of times: a microsecond each is a millisecond of a start.
        for (path_in_pack, size, mode, mtime_ns, _offset, _sha256), first, last, at in slices:
            root_name, _, path = path_in_pack.partition("/")
            root, is_rewritten = self._roots[root_name]
            is_last = at + last - first == size
            if is_rewritten(path):
                self._gathered += content[first:last]
                if is_last:
                    data = _localised(root, path, bytes(self._gathered), self._pack)
                    parts[root_name].append((path, mode, mtime_ns, data, 0, len(data), 0))
                    self._gathered.clear()
            else:
                # The last part removes the owner's permission to write, if the file must not have it.
                mode = mode if is_last else mode | stat.S_IWUSR
                parts[root_name].append((path, mode, mtime_ns, content, first, last, at))
        for name, of_root in parts.items():
            for start in range(0, len(of_root), _BATCH_FILES):
                yield name, of_root[start : start + _BATCH_FILES]

    def write(self, batch: _Batch) -> None:
        """Write some files. Raises CorruptPackError if one is in the way of another."""
        root_name, parts = batch
        if root_name in self.failed:
            return
        try:
            self._trees[root_name].write(parts)
        except (FileExistsError, NotADirectoryError) as error:
            reason = f"{error.filename} is in the way of another pack's files"
            raise CorruptPackError(self._pack.id, reason) from error
        except OSError as error:  # its file system is full, say
            self.failed[root_name] = error

    def write_all(self, batches: Iterable[_Batch]) -> None:
        """Write them one after the other."""
        for batch in batches:
            self.write(batch)


def _localised(root: CacheRoot, path: str, data: bytes, pack: Pack) -> bytes:
    try:
        return root.adapter.to_local(root.path, path, data)
    except ValueError as error:
        raise CorruptPackError(pack.id, f"{root.name}/{path}: {error}") from error
