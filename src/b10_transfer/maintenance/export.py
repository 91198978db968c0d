"""Copies packs between stores through one file, for an image or for a network without the store.

The file is an ordinary tar with the store's own layout. An import verifies packs as a load does: every byte, and the
signature if there are trusted keys.
"""

from __future__ import annotations

import io
import secrets
import shutil
import tarfile
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from ..concurrency.deadline import Deadline
from ..config import Config
from ..environment import Environment
from ..errors import CorruptPackError, LocalCacheError
from ..repository import layout
from ..repository.catalogue import Catalogue
from ..repository.repository import ReadRepository
from ..repository.union import Pack, Rejected
from ..stores.base import ObjectReader, ReadStore, Store
from ..stores.directory import DirectoryStore
from .archive import ArchiveStore
from .oci import write_layout
from .write_access import require_write_access

COPIED, REPLACED, THERE = "copied", "replaced", "there already"
DAMAGED_THERE = "damaged in the store; `import --replace-damaged` replaces it"
_PART_BYTES = 4 * 1024 * 1024


@dataclass(frozen=True)
class CopyResult:
    """The result for one pack."""

    namespace: str
    environment_id: str
    pack: str
    packed_bytes: int
    state: str
    """``copied``, ``replaced`` (the store's copy was damaged), ``there already``, or why it was not copied."""

    @property
    def is_done(self) -> bool:
        """Whether the target holds a valid copy."""
        return self.state in (COPIED, REPLACED, THERE)


Choice = Callable[[str, str], bool]
"""Takes a namespace and an environment id; returns whether its packs are copied."""


def export(
    store: Store, config: Config, deadline: Deadline, path: Path, wanted: Choice, *, oci: bool = False
) -> list[CopyResult]:
    """Write the usable packs of a store to a file. If there is none, write nothing.

    Args:
        store: The store.
        config: The settings of this pod.
        deadline: Of the operation.
        path: The file.
        wanted: Which environments to export.
        oci: Whether ``path`` becomes a folder, an OCI image layout. Default: false.

    Returns:
        One entry for each pack.

    Raises:
        CacheError: The store could not be read or the file not written. An earlier file of that name is not changed.
    """
    with _directory(config) as folder:
        results = copy(store, DirectoryStore(folder), config, deadline, wanted)
        if not any(one.is_done for one in results):
            return results
        # Under another name first, so that a file with this name is always complete.
        temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
        with _local_errors("write", path):
            try:
                if oci:
                    write_layout(temporary, lambda layer: _pack(folder, layer, deadline))
                    temporary.rename(path)  # replaces at most an empty folder
                else:
                    with open(temporary, "xb") as file:
                        _pack(folder, file, deadline)
                    temporary.replace(path)
            except BaseException:
                shutil.rmtree(temporary) if temporary.is_dir() else temporary.unlink(missing_ok=True)
                raise
    return results


def import_(
    path: Path, store: Store, config: Config, deadline: Deadline, *, replace_damaged: bool = False
) -> list[CopyResult]:
    """Publish the packs of a file that a store does not have.

    Args:
        path: A file that :func:`export` wrote.
        store: The target.
        config: The settings of this pod. Trusted keys and limits decide which packs are valid.
        deadline: Of the operation.
        replace_damaged: Whether the file's copy replaces a pack that is damaged in the store. Default: false.

    Returns:
        One entry for each pack of the file.

    Raises:
        CacheError: The file or the store failed. Packs that were published before stay.
    """
    require_write_access(config)
    with _local_errors("read", path), open(path, "rb") as file:
        source = ArchiveStore(file, path, deadline)
        return copy(
            source, store, config, deadline, lambda _namespace, _environment: True, replace_damaged=replace_damaged
        )


def copy(
    source: ReadStore,
    target: Store,
    config: Config,
    deadline: Deadline,
    wanted: Choice,
    *,
    replace_damaged: bool = False,
) -> list[CopyResult]:
    """Publish every usable pack of ``source`` in ``target``, under the same name. Raises CacheError.

    Superseded packs are copied, too: in the target, the merged pack may be untrusted, too large or recalled.
    """
    results = []
    catalogue, there = Catalogue(source, config, deadline), Catalogue(target, config, deadline)
    for namespace in catalogue.namespaces():
        for environment_id in filter(lambda found: wanted(namespace, found), catalogue.environments(namespace)):
            repository = catalogue.repository(namespace, environment_id)
            receiver = _Receiver(target, there.repository(namespace, environment_id), replace_damaged)
            parts: Mapping[str, str] = {}
            for pack in repository.each():
                if isinstance(pack, Rejected):
                    results.append(CopyResult(namespace, environment_id, pack.id, 0, pack.error.detail))
                    continue
                if (reader := source.open(pack.name)) is None:
                    continue
                with reader:
                    state = receiver.take(pack, _Source(reader, deadline))
                results.append(CopyResult(namespace, environment_id, pack.id, pack.packed_bytes, state))
                parts = parts or catalogue.parts(namespace, environment_id, [pack])
            if parts:
                description = io.BytesIO(Environment(parts).to_json())
                target.create(layout.Place(namespace, environment_id).description, description)
    return results


class _Receiver:
    """One environment of the target store."""

    def __init__(self, store: Store, repository: ReadRepository, replace_damaged: bool) -> None:
        self._store = store
        self._repository = repository
        self._replace_damaged = replace_damaged
        self._listed = repository.look()
        self._place = layout.Place(repository.namespace, repository.environment.id)

    def take(self, pack: Pack, content: _Source) -> str:
        """Publish a pack unless the store has a valid one with its id. Returns :attr:`CopyResult.state`."""
        if pack.id in self._listed.recalls:
            return "it is recalled in the store; `reinstate` undoes that"
        if pack.id in self._listed.pruned:
            return "it is marked for deletion in the store (`prune`); `reinstate` undoes that"
        there = self._repository.read(pack.id) if pack.id in self._listed.packs else None
        is_damaged = pack.id in self._listed.damaged or (
            isinstance(there, Rejected) and isinstance(there.error, CorruptPackError)
        )
        if is_damaged:
            return self._replace(pack, content) if self._replace_damaged else f"it is {DAMAGED_THERE}"
        if isinstance(there, Rejected):
            return f"the store's copy cannot be used: {there.error.detail}"
        if there is not None:
            return THERE if there.index.units == pack.index.units else "the store has another pack with that id"
        return COPIED if self._store.create(pack.name, content) else THERE

    def _replace(self, pack: Pack, content: _Source) -> str:
        """Replace a damaged pack. The mark is removed last, so that no load reads the pack before."""
        self._store.delete(pack.name)
        if not self._store.create(pack.name, content):
            return "another process has just published a pack with that id; import again"
        self._store.delete(self._place.damaged(pack.id))
        return REPLACED


class _Source:
    """Reads an object of one store, for another store to create it."""

    def __init__(self, reader: ObjectReader, deadline: Deadline) -> None:
        self._reader = reader
        self._deadline = deadline
        self._offset = 0

    def read(self, _size: int = -1, /) -> bytes | bytearray:
        self._deadline.check("copying packs")
        length = min(_PART_BYTES, self._reader.size_bytes - self._offset)
        data = self._reader.reread_at(self._offset, length) if length else b""
        self._offset += length
        return data


def _pack(folder: Path, out: BinaryIO, deadline: Deadline) -> None:
    with tarfile.open(fileobj=out, mode="w") as archive:
        for path in sorted(folder.rglob("*")):
            name = path.relative_to(folder).as_posix()
            if layout.is_carried(name):
                deadline.check("writing the file")
                member = archive.gettarinfo(path, name)
                member.mode, member.uid, member.gid, member.uname, member.gname = 0o644, 0, 0, "", ""
                with open(path, "rb") as content:
                    archive.addfile(member, content)


@contextmanager
def _directory(config: Config) -> Iterator[Path]:
    """A temporary directory in LOCAL_WORK_DIR."""
    with _local_errors("make a folder in LOCAL_WORK_DIR at", config.work_dir):
        temporary = tempfile.TemporaryDirectory(dir=config.work_dir, prefix="b10-transfer-")
    with temporary as name:
        yield Path(name)


@contextmanager
def _local_errors(operation: str, path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise LocalCacheError(operation, str(path), error.strerror or str(error)) from error
