"""Carry packs between stores: through one file, into an image or across an air gap.

The file is an ordinary tar of a store's own layout. Whoever takes packs out of it checks them as any load does: every
byte, and the signature where keys are trusted.
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
from ..errors import ImportFileError, LocalCacheError
from ..repository import layout
from ..repository.catalogue import Catalogue
from ..repository.union import Rejected
from ..stores.base import ObjectReader, Store
from ..stores.directory import DirectoryStore
from .oci import write_layout

_MOST_MEMBERS = 100_000
_PART_BYTES = 4 * 1024 * 1024


@dataclass(frozen=True)
class Carried:
    """What was done with one pack."""

    namespace: str
    environment_id: str
    pack: str
    packed_bytes: int
    state: str
    """``copied``, ``there already``, or why it was left out."""


Choice = Callable[[str, str], bool]
"""Whether a namespace's environment is wanted."""


def export(
    store: Store, config: Config, deadline: Deadline, path: Path, wanted: Choice, *, oci: bool = False
) -> list[Carried]:
    """Write the usable packs of a store to a new file, or with ``oci`` to a new folder: an OCI image layout.

    Raises CacheError, and then there is no such file or folder.
    """
    with _directory(config) as folder:
        carried = copy(store, DirectoryStore(folder), config, deadline, wanted)
        # Beside it first: a file that is there is whole.
        temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
        with _local_errors("write", path):
            try:
                if oci:
                    write_layout(temporary, lambda layer: _pack(folder, layer, deadline))
                    temporary.rename(path)  # over nothing but an empty folder
                else:
                    with open(temporary, "xb") as file:
                        _pack(folder, file, deadline)
                    temporary.replace(path)
            except BaseException:
                shutil.rmtree(temporary) if temporary.is_dir() else temporary.unlink(missing_ok=True)
                raise
    return carried


def import_(path: Path, store: Store, config: Config, deadline: Deadline) -> list[Carried]:
    """Publish what a file holds and a store lacks. Raises CacheError; what was published until then stays."""
    with _directory(config) as folder:
        source = DirectoryStore(folder)
        with _local_errors("read", path), open(path, "rb") as file:
            _unpack(file, source, path, config, deadline)
        return copy(source, store, config, deadline, lambda _namespace, _environment: True)


def copy(source: Store, target: Store, config: Config, deadline: Deadline, wanted: Choice) -> list[Carried]:
    """Publish in ``target`` every usable pack of ``source`` that it lacks, under the same name. Raises CacheError.

    Those that were merged into another, too: what counts here may not count there, by trust, limits or marks.
    """
    carried = []
    catalogue, there = Catalogue(source, config, deadline), Catalogue(target, config, deadline)
    for namespace in catalogue.namespaces():
        for environment_id in filter(lambda found: wanted(namespace, found), catalogue.environments(namespace)):
            repository = catalogue.repository(namespace, environment_id)
            parts: Mapping[str, str] = {}
            present = there.repository(namespace, environment_id).listing()
            for pack in repository.each():
                if isinstance(pack, Rejected):
                    carried.append(Carried(namespace, environment_id, pack.id, 0, pack.error.detail))
                    continue
                state = "there already"
                if pack.id not in present:
                    reader = source.open(pack.name)
                    if reader is None:
                        continue
                    with reader:
                        state = "copied" if target.create(pack.name, _Source(reader, deadline)) else state
                carried.append(Carried(namespace, environment_id, pack.id, pack.packed_bytes, state))
                parts = parts or catalogue.parts(namespace, environment_id, [pack])
            if parts:
                description = io.BytesIO(Environment(parts).to_json())
                target.create(layout.Place(namespace, environment_id).description, description)
    return carried


class _Source:
    """An object of one store as a source for another."""

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


def _unpack(file: BinaryIO, store: DirectoryStore, path: Path, config: Config, deadline: Deadline) -> None:
    """Put the objects of an export into a store. Every member is checked before it is read.

    Raises:
        ImportFileError: The file is no export, or holds what none holds.
    """
    left_bytes = path.stat().st_size
    try:
        with tarfile.open(fileobj=file, mode="r:") as archive:
            for number, member in enumerate(archive):
                deadline.check("reading the file")
                left_bytes -= member.size
                if (reason := _refusal(member, config)) or number >= _MOST_MEMBERS or left_bytes < 0:
                    raise ImportFileError(str(path), f"it is no export: it holds {reason or 'more than any export'}")
                content = archive.extractfile(member)
                assert content is not None  # it is a regular file
                store.create(member.name, content)
    except (tarfile.TarError, ValueError, OverflowError) as error:
        raise ImportFileError(str(path), f"it is no export ({error})") from error


def _refusal(member: tarfile.TarInfo, config: Config) -> str:
    """Why a member of a file is none of an export; empty if it may be one."""
    # A sparse file has the type of a regular one, and a size of which the file holds nothing.
    if not member.isreg() or member.issparse() or member.type not in (tarfile.REGTYPE, tarfile.AREGTYPE):
        return f"{member.name!a:.200}, which is not a plain file"
    if not layout.is_carried(member.name):
        return f"{member.name!a:.200}, which is no object of a store"
    if not 0 <= member.size <= config.max_pack_bytes:
        return f"{member.name!a:.200} of {member.size} bytes, over the limit of MAX_CACHE_SIZE_MB"
    return ""


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
