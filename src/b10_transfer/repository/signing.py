"""Signatures of packs: who may publish code to a fleet.

A writer has a private Ed25519 key, readers only public ones. The signature covers the packed index, which names the
namespace, the environment, every file with its place and mode, and the digest of every frame; and the pack's id, so
that an old pack cannot be published again as a newer one. It is checked before a byte of the pack is unpacked.

A key is one line of text, ``b10-private:<base64>`` or ``b10-public:<base64>`` of its 32 bytes.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import logging
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO, Protocol

from ..concurrency.forks import no_fork
from ..config import Config
from ..errors import CacheError, ConfigurationError, UntrustedPackError
from ..pack import trailer

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

logger = logging.getLogger(__name__)

_NEEDS_CRYPTOGRAPHY = "signatures need the package cryptography: pip install 'b10-transfer[signing]'"
_CONTEXT = b"b10-transfer signed pack 1\n"
_RECALL_CONTEXT = b"b10-transfer signed recall 1\n"
_PRIVATE = "b10-private:"
_PUBLIC = "b10-public:"
_KEY_BYTES = 32
_MAX_EXTENSION_BYTES = 64 * 1024
_MAX_KEY_FILE_BYTES = 64 * 1024


class Trust(Protocol):
    """Decides which packs count."""

    def check(self, pack_id: str, index: bytes | memoryview, extension: bytes) -> None:
        """Raise UntrustedPackError unless a pack with this packed index and extension counts under this id."""

    def approves_recall(self, folder: str, pack_id: str, signature: str) -> bool | None:
        """Whether a recall with this signature of a pack in this folder of the store counts.

        None if it does not because it names no trusted key, which takes no time to find out.
        """


@dataclass(frozen=True)
class SigningKey:
    """A writer's private key."""

    _private: Ed25519PrivateKey

    @classmethod
    def generate(cls) -> SigningKey:
        """A new key. Raises CacheError without the package ``cryptography``."""
        if not _has_cryptography():
            raise CacheError(_NEEDS_CRYPTOGRAPHY)
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

        return cls(Ed25519PrivateKey.generate())

    def __repr__(self) -> str:
        return f"SigningKey({key_id(self._public_bytes())})"

    def private_text(self) -> str:
        """The private key as text. Its holder can publish code to all pods that trust it."""
        return _PRIVATE + base64.b64encode(self._private.private_bytes_raw()).decode()

    def public_text(self) -> str:
        """The public key as text."""
        return _PUBLIC + base64.b64encode(self._public_bytes()).decode()

    def sign(self, pack: BinaryIO, pack_id: str) -> None:
        """Put a signature under ``pack_id`` into a finished pack, in place of any that it has."""

        def extension(index: bytes) -> bytes:
            signature = self._private.sign(_message(pack_id, index)).hex()
            return json.dumps({"signatures": {key_id(self._public_bytes()): signature}}).encode()

        trailer.extend(pack, extension)

    def sign_recall(self, folder: str, pack_id: str) -> str:
        """The signature of a recall, as a part of an object's name."""
        return f"{self.id}.{self._private.sign(_recall_message(folder, pack_id)).hex()}"

    @property
    def id(self) -> str:
        return key_id(self._public_bytes())

    @property
    def public(self) -> TrustedKeys:
        """Trust in this key alone."""
        return TrustedKeys({key_id(self._public_bytes()): self._private.public_key()})

    def _public_bytes(self) -> bytes:
        return self._private.public_key().public_bytes_raw()


@dataclass(frozen=True)
class TrustedKeys:
    """The public keys of those whose packs are used, by their ids."""

    _keys: Mapping[str, Ed25519PublicKey]

    def __str__(self) -> str:
        return ", ".join(sorted(self._keys))

    def approves_recall(self, folder: str, pack_id: str, signature: str) -> bool | None:
        """Whether one of the keys has signed a recall; None if it names none of them."""
        from cryptography.exceptions import InvalidSignature

        name, _, digits = signature.partition(".")
        if name not in self._keys:
            return None
        try:
            self._keys[name].verify(bytes.fromhex(digits), _recall_message(folder, pack_id))
        except InvalidSignature:
            return False
        return True

    def __contains__(self, key: SigningKey) -> bool:
        return key.id in self._keys

    def check(self, pack_id: str, index: bytes | memoryview, extension: bytes) -> None:
        """Raise UntrustedPackError unless one of the keys has signed this packed index under this id."""
        from cryptography.exceptions import InvalidSignature

        signatures = _signatures(pack_id, extension)
        if not signatures:
            raise UntrustedPackError(pack_id, "it is not signed, and B10_TRUSTED_KEYS is set")
        for name, public in self._keys.items():
            if name in signatures:
                with suppress(InvalidSignature):
                    public.verify(signatures[name], _message(pack_id, index))
                    return
                raise UntrustedPackError(
                    pack_id, f"its signature by key {name} is wrong: it was altered, or published under another id"
                )
        signers = ", ".join(sorted(signatures))
        raise UntrustedPackError(pack_id, f"it is signed by {signers!a:.200}, and B10_TRUSTED_KEYS holds {self}")


@dataclass(frozen=True)
class OwnPacks:
    """Trust in what a pod could have published itself: what its key alone has signed, or unsigned packs without one."""

    signer: SigningKey | None

    def approves_recall(self, folder: str, pack_id: str, signature: str) -> bool:
        """Every recall counts, signed or not: nothing of a recalled pack is merged or deleted."""
        return True

    def check(self, pack_id: str, index: bytes | memoryview, extension: bytes) -> None:
        if self.signer is None:
            if extension:
                raise UntrustedPackError(pack_id, "it is signed, and this pod has no key")
            return
        self.signer.public.check(pack_id, index, extension)
        if len(_signatures(pack_id, extension)) > 1:
            raise UntrustedPackError(pack_id, "others have signed it, too")


def key_id(public: bytes) -> str:
    """The id of a key: 16 hexadecimal digits of its SHA-256."""
    return hashlib.sha256(public).hexdigest()[:16]


def signing_key(config: Config) -> SigningKey | None:
    """The key in B10_SIGNING_KEY, None if that is not set. Raises ConfigurationError, which never shows the key."""
    text = config.signing_key
    if text is None:
        return None
    name, hidden = "B10_SIGNING_KEY", "(not shown)"
    if not text.startswith(_PRIVATE):
        # Shown if it is a path for certain: a key of some other format must not end up in a log.
        hidden = text if text.startswith(("/", "~/")) else hidden
        _warn_if_others_can_read(text)
        lines = list(_lines(name, text, hidden))
        if len(lines) != 1 or not lines[0].startswith(_PRIVATE):
            raise ConfigurationError(name, hidden, f"the file must hold one line, {_PRIVATE}<base64>")
        [text] = lines
    seed = _decode(name, hidden, text.removeprefix(_PRIVATE))
    _require_cryptography(name, hidden)
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    return SigningKey(Ed25519PrivateKey.from_private_bytes(seed))


def trusted_keys(config: Config) -> TrustedKeys | None:
    """The keys in B10_TRUSTED_KEYS, None if that is not set. Raises ConfigurationError."""
    text = config.trusted_keys
    if text is None:
        return None
    name = "B10_TRUSTED_KEYS"
    _require_cryptography(name, text)
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    keys = {}
    for line in _trusted_lines(name, text.replace(",", " ").split()):
        if not line.startswith(_PUBLIC):
            rule = f"it must name files, or hold keys ({_PUBLIC}<base64>)"
            raise ConfigurationError(name, "(not shown)" if line.startswith(_PRIVATE) else line, rule)
        public = _decode(name, line, line.removeprefix(_PUBLIC))
        keys[key_id(public)] = Ed25519PublicKey.from_public_bytes(public)
    if not keys:
        # An empty list must not mean that every pack is trusted.
        raise ConfigurationError(name, text, "it holds no key")
    return TrustedKeys(keys)


def _message(pack_id: str, index: bytes | memoryview) -> bytes:
    return _CONTEXT + pack_id.encode() + b"\n" + hashlib.sha256(index).digest()


def _recall_message(folder: str, pack_id: str) -> bytes:
    return _RECALL_CONTEXT + f"{folder}\n{pack_id}\n".encode()


def _signatures(pack_id: str, extension: bytes) -> dict[str, bytes]:
    """Signatures by the ids of their keys; empty if there are none. Raises UntrustedPackError for anything odd."""
    if not extension:
        return {}
    try:
        if len(extension) > _MAX_EXTENSION_BYTES:
            raise ValueError(f"it has {len(extension)} bytes")
        signatures = json.loads(extension).get("signatures", {})
        return {str(name): bytes.fromhex(signature) for name, signature in signatures.items()}
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        raise UntrustedPackError(pack_id, f"its signature cannot be read ({error!s:.100})") from error


def _trusted_lines(name: str, entries: Iterable[str]) -> Iterator[str]:
    for entry in entries:
        if entry.startswith((_PUBLIC, _PRIVATE)):
            yield entry
        else:
            yield from _lines(name, entry, entry)


def _lines(name: str, path: str, shown: str) -> Iterator[str]:
    """The lines of a key file, without blank ones and comments."""
    try:
        with open(os.path.expanduser(path), encoding="ascii") as file:
            text = file.read(_MAX_KEY_FILE_BYTES)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no text"
        raise ConfigurationError(name, shown, f"it is no key, and no file that can be read ({reason})") from error
    for line in text.splitlines():
        if (line := line.strip()) and not line.startswith("#"):
            yield line


def _decode(name: str, shown: str, text: str) -> bytes:
    try:
        data = base64.b64decode(text, validate=True)
    except binascii.Error as error:
        raise ConfigurationError(name, shown, f"the key is not base64 ({error})") from error
    if len(data) != _KEY_BYTES:
        raise ConfigurationError(name, shown, f"the key has {len(data)} bytes, it must have {_KEY_BYTES}")
    return data


def _warn_if_others_can_read(path: str) -> None:
    with suppress(OSError, ValueError):  # reading it later reports the error
        # Not Path.expanduser, which raises for a user that is unknown.
        if os.stat(os.path.expanduser(path)).st_mode & 0o077:
            logger.warning("B10_SIGNING_KEY: others can read %s; make its mode 0600", path)


def _require_cryptography(name: str, value: str) -> None:
    if not _has_cryptography():
        raise ConfigurationError(name, value, _NEEDS_CRYPTOGRAPHY)


def _has_cryptography() -> bool:
    try:
        with no_fork:
            import cryptography.hazmat.primitives.asymmetric.ed25519  # noqa: F401
    except ImportError:
        return False
    return True
