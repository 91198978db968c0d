"""What is fuzzed, and what must hold of any input: each target takes bytes and raises only if something is wrong.

``pack``: an object that lies in a store under a pack's name. ``signature``: a pack's id, packed index and extension, as
the check of signatures gets them. ``settings``: environment variables. ``commands``: the content of a store.
"""

from __future__ import annotations

import hashlib
import io
import os
import shutil
import stat
import tempfile
from collections.abc import Callable
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from b10_transfer.adapters import ADAPTERS, CacheRoot, cache_roots
from b10_transfer.concurrency.deadline import Deadline
from b10_transfer.config import VARIABLES, Config, read_deadline
from b10_transfer.environment import Environment
from b10_transfer.errors import ConfigurationError, CorruptPackError, PackError, UntrustedPackError
from b10_transfer.local.restore import restore
from b10_transfer.pack import Limits
from b10_transfer.repository.merging import merge, mergeable
from b10_transfer.repository.repository import ReadRepository
from b10_transfer.repository.signing import SigningKey, TrustedKeys, key_id, signing_key, trusted_keys
from b10_transfer.repository.union import Union
from b10_transfer.testing.memory import MemoryStore

from . import hostile_stores
from .mutator import SEPARATOR

if TYPE_CHECKING:
    from collections.abc import Iterator

DEADLINE_S = 10.0
"""For one input, which takes about a millisecond: whoever runs into it has found a hang."""
LIMITS = Limits(packed_bytes=1 << 20, raw_bytes=8 << 20, members=1000)
ENVIRONMENT = Environment({"torch": "2.13.0+cpu", "machine": "x86_64"}, {"hostname": "here"})
NAMESPACE = "default"
ID = "018bcfe56800-0123456789abcdef"
MERGED_ID = "018bcfe56800-0123456789abcdff"
PACK = f"v1/{NAMESPACE}/{ENVIRONMENT.id}/packs/{ID}.tar.zst"
_PRIVATE = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
KEY = SigningKey(_PRIVATE)
_PUBLIC = _PRIVATE.public_key()
TRUSTED = TrustedKeys({key_id(_PUBLIC.public_bytes_raw()): _PUBLIC})
_ADAPTERS = {adapter.name: adapter for adapter in ADAPTERS}
_MOST_MESSAGE = 2000

signed_indexes: set[str] = set()
"""SHA-256 of every packed index that KEY has signed under ID: no other may ever count as signed."""


def pack(data: bytes) -> None:
    """A load, a survey and a merge of a store that holds this one pack: rejected in so many words, or used whole."""
    store = MemoryStore()
    store.create(PACK, io.BytesIO(data))
    union = ReadRepository(store, NAMESPACE, ENVIRONMENT, LIMITS, deadline()).union(verify_frames=True)
    _check_messages(union)
    _check_merge(ReadRepository(store, NAMESPACE, ENVIRONMENT, LIMITS, deadline()), union)
    _check_restore(ReadRepository(store, NAMESPACE, ENVIRONMENT, LIMITS, deadline()))
    if b"signatures" in data:
        trusting = ReadRepository(store, NAMESPACE, ENVIRONMENT, LIMITS, deadline(), _Recording())
        for found in trusting.union().packs:
            assert found.id == ID


class _Recording(TrustedKeys):
    """Trusts KEY, and sees to it that what it lets pass was signed."""

    def __init__(self) -> None:
        super().__init__(TRUSTED._keys)

    def check(self, pack_id: str, index: bytes | memoryview, extension: bytes) -> None:
        super().check(pack_id, index, extension)
        assert hashlib.sha256(index).hexdigest() in signed_indexes, "a forged signature was accepted"


_merged = {hash(())}
_restored = {hash(frozenset())}
"""What has been merged and restored: that is slow, and many inputs differ only in what it does not look at."""


def deadline() -> Deadline:
    return Deadline("fuzz", DEADLINE_S)


def _check_messages(union: Union) -> None:
    for rejected in union.rejected:
        message = str(rejected.error)
        assert isinstance(rejected.error, PackError)
        assert len(message) < _MOST_MESSAGE and message.isprintable(), f"a message to nobody: {message!r:.300}"


def _check_restore(repository: ReadRepository) -> None:
    """What a load takes from the pack is what its index says, and all of it lies in the roots."""
    union = repository.union()
    members = [member for _pack, unit in union.units.values() for member in unit.members]
    shape = hash(frozenset((member.path, member.size, member.mode) for member in members))
    if shape in _restored:
        return
    _restored.add(shape)
    with _folder() as folder:
        roots = [
            CacheRoot(_ADAPTERS[name], folder / "roots" / name)
            for name in {unit.partition("/")[0] for unit in union.units}
        ]
        for root in roots:
            root.path.mkdir(parents=True)
        restored = restore(repository, union, union.units, roots, deadline())
        expected = {
            f"roots/{member.path}": member for name in restored.names for member in union.units[name][1].members
        }
        for path, status in _files(folder):
            member = expected.pop(path)  # nothing that the index does not name
            assert stat.S_ISREG(status.st_mode) and status.st_nlink == 1, path
            assert stat.S_IMODE(status.st_mode) == member.mode, path
            adapter = _ADAPTERS[member.path.partition("/")[0]]
            if not adapter.is_rewritten(member.path.partition("/")[2]):
                assert status.st_size == member.size, path
        assert not expected, f"not all was placed: {list(expected)[:3]}"
        assert not restored.failures


def _check_merge(repository: ReadRepository, union: Union) -> None:
    """What may be merged is merged into a sound pack that holds the same, or refused."""
    shape = hash(tuple((unit.name, unit.origin, unit.members) for _pack, unit in union.units.values()))
    if shape in _merged:
        return
    _merged.add(shape)
    for found in mergeable(union, LIMITS):
        out, store = io.BytesIO(), MemoryStore()
        try:
            merge(repository, [found], out, deadline())
        except CorruptPackError as error:  # its frames are sound, and a file in them is not
            assert error.pack == found.id
            return
        store.create(PACK.replace(ID, MERGED_ID), io.BytesIO(out.getvalue()))
        merged = ReadRepository(store, NAMESPACE, ENVIRONMENT, LIMITS, deadline()).union(verify_frames=True)
        assert not merged.rejected, merged.rejected
        [pack] = merged.packs
        for name, (_pack, unit) in union.units.items():
            other = merged.units[name][1]
            assert pack.origin(other) == found.origin(unit)
            assert {m._replace(offset=0) for m in other.members} == {m._replace(offset=0) for m in unit.members}
        assert merged.units.keys() == union.units.keys()


def _files(folder: Path) -> Iterator[tuple[str, os.stat_result]]:
    for where, _folders, names in os.walk(folder):
        for name in names:
            path = os.path.join(where, name)
            yield os.path.relpath(path, folder), os.lstat(path)


@contextmanager
def _folder() -> Iterator[Path]:
    path = Path(tempfile.mkdtemp(prefix="fuzz-", dir="/dev/shm" if os.path.isdir("/dev/shm") else None))
    try:
        yield path
    finally:
        shutil.rmtree(path)


def signature(data: bytes) -> None:
    """Nothing is trusted but what was signed, and nothing but UntrustedPackError says so."""
    index, _, extension = data.partition(SEPARATOR)
    try:
        _Recording().check(ID, index, extension)
    except UntrustedPackError as error:
        assert len(str(error)) < _MOST_MESSAGE and str(error).isprintable()


_NAMES = [
    *(variable.name for variable in VARIABLES),
    *(variable.name for adapter in ADAPTERS for variable in adapter.variables),
    *("MAX_CACHE_SIZE_CAP_MB", "LOCK_TIMEOUT_CAP_SECONDS", "HOME", "XDG_CACHE_HOME", "TRITON_HOME"),
]


def settings(data: bytes) -> None:
    """Environment variables, ``<number><value>`` with NUL between them: usable, or refused by a ConfigurationError."""
    environ = {}
    for entry in data.split(b"\0")[:8]:
        if entry:
            environ[_NAMES[entry[0] % len(_NAMES)]] = os.fsdecode(entry[1:])
    for read in (_read_config, read_seconds):
        with suppress(ConfigurationError):
            read(environ)


def read_seconds(environ: dict[str, str]) -> None:
    assert 0 < read_deadline(environ=environ) <= 86400


def _read_config(environ: dict[str, str]) -> None:
    config = Config.from_environment(environ)
    assert not isinstance(config.store, Path) or config.store.is_absolute()
    assert config.work_dir.is_absolute()
    for read in (cache_roots, signing_key, trusted_keys):
        try:
            read(config)
        except ConfigurationError as error:
            assert "b10-private:" not in str(error).replace("b10-private:<base64>", "")


TARGETS: dict[str, Callable[[bytes], None]] = {
    "pack": pack,
    "signature": signature,
    "settings": settings,
    "commands": hostile_stores.commands,
}
