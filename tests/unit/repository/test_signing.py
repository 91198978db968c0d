"""Signatures: with trusted keys set, what none of them signed as it is counts as absent, before a byte is unpacked."""

from __future__ import annotations

import io
import json
import logging
import os
import sys
import tarfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from b10_transfer import OperationStatus, load, save
from b10_transfer.concurrency.deadline import Deadline
from b10_transfer.config import Config
from b10_transfer.errors import ConfigurationError, PackError, UntrustedPackError
from b10_transfer.pack import trailer
from b10_transfer.pack.zstd import unpack_frame
from b10_transfer.repository.repository import Repository
from b10_transfer.repository.signing import SigningKey, TrustedKeys, key_id, signing_key, trusted_keys
from b10_transfer.repository.union import Union
from b10_transfer.testing.memory import MemoryStore

if TYPE_CHECKING:
    from tests.conftest import IsolatedEnv, Packs

WRITER = SigningKey.generate()
OTHER = SigningKey.generate()
UNITS = {"triton/KEY/": {"a.cubin": b"content" * 100}}


def trust(*keys: SigningKey) -> TrustedKeys:
    found = trusted_keys(Config.from_environment({"B10_TRUSTED_KEYS": ",".join(key.public_text() for key in keys)}))
    assert found is not None
    return found


def repository(packs: Packs, store: MemoryStore, trusted: TrustedKeys | None, signer: SigningKey | None) -> Repository:
    deadline = Deadline("test", 60)
    return Repository(store, packs.namespace, packs.environment, packs.limits, deadline, trusted, signer)


def published(packs: Packs, signer: SigningKey | None) -> tuple[MemoryStore, str, bytes]:
    """A store with one pack, the pack's id and its bytes."""
    store = MemoryStore()
    pack_id = repository(packs, store, None, signer).publish(io.BytesIO(packs.write(UNITS)))
    return store, pack_id, content(store, pack_id, packs)


def name_of(pack_id: str, packs: Packs) -> str:
    return f"v1/{packs.namespace}/{packs.environment.id}/packs/{pack_id}.tar.zst"


def content(store: MemoryStore, pack_id: str, packs: Packs) -> bytes:
    reader = store.open(name_of(pack_id, packs))
    assert reader is not None
    return bytes(reader.read_at(0, reader.size_bytes))


def union_of(packs: Packs, data: bytes, pack_id: str, trusted: TrustedKeys) -> Union:
    """What a reader with trusted keys sees in a store that holds just these bytes."""
    store = MemoryStore()
    store.create(name_of(pack_id, packs), io.BytesIO(data))
    return repository(packs, store, trusted, None).union(verify_frames=True)


def refusal(packs: Packs, data: bytes, pack_id: str, trusted: TrustedKeys) -> PackError:
    union = union_of(packs, data, pack_id, trusted)
    assert not union.packs
    [rejected] = union.rejected
    return rejected.error


# Packs


def test_pack_signed_by_a_trusted_key_is_used(packs: Packs) -> None:
    store, _, _ = published(packs, WRITER)
    assert packs.read(repository(packs, store, trust(OTHER, WRITER), None)) == {"triton/KEY/a.cubin": b"content" * 100}


def test_signed_pack_is_used_by_who_trusts_nobody_in_particular(packs: Packs) -> None:
    store, _, _ = published(packs, WRITER)
    assert packs.read(packs.repository(store))


def test_signed_pack_is_still_an_archive_that_tar_reads(packs: Packs) -> None:
    _, _, data = published(packs, WRITER)
    footer = trailer.decode_footer("p", data[-trailer.FOOTER_BYTES :], len(data))
    frames = data[: -footer.trailer_bytes]
    index = packs.index_of(data)
    raw_bytes = sum(frame[1] for frame in json.loads(index)["frames"])
    with tarfile.open(fileobj=io.BytesIO(unpack_frame(frames, raw_bytes))) as archive:
        assert archive.getnames() == ["triton/KEY/a.cubin"]


def test_unsigned_pack_is_refused(packs: Packs) -> None:
    _, pack_id, data = published(packs, None)
    error = refusal(packs, data, pack_id, trust(WRITER))
    assert isinstance(error, UntrustedPackError)
    assert "it is not signed" in str(error)


def test_pack_signed_by_somebody_else_is_refused(packs: Packs) -> None:
    _, pack_id, data = published(packs, OTHER)
    error = refusal(packs, data, pack_id, trust(WRITER))
    assert isinstance(error, UntrustedPackError)
    assert all(id_of(key) in str(error) for key in (WRITER, OTHER))


def id_of(key: SigningKey) -> str:
    return str(trust(key))


def test_old_pack_published_again_as_a_newer_one_is_refused(packs: Packs) -> None:
    _, pack_id, data = published(packs, WRITER)
    later = f"{int(pack_id[:12], 16) + 1:012x}{pack_id[12:]}"
    assert "published under another id" in str(refusal(packs, data, later, trust(WRITER)))


def test_signature_of_another_pack_is_refused(packs: Packs) -> None:
    _, pack_id, _ = published(packs, WRITER)
    forged = io.BytesIO(packs.write({"triton/KEY/": {"a.cubin": b"evil"}}))
    signed = io.BytesIO(packs.write(UNITS))
    WRITER.sign(signed, pack_id)
    extension = extension_of(signed.getvalue())
    trailer.extend(forged, lambda _index: extension)
    assert isinstance(refusal(packs, forged.getvalue(), pack_id, trust(WRITER)), UntrustedPackError)


def extension_of(pack: bytes) -> bytes:
    footer = trailer.decode_footer("p", pack[-trailer.FOOTER_BYTES :], len(pack))
    return pack[-trailer.FOOTER_BYTES - footer.extension_bytes : -trailer.FOOTER_BYTES]


@pytest.mark.parametrize(
    "extension",
    [
        b"{",
        b"[]",
        b"1",
        b"null",
        b"{}",
        b'{"signatures": 1}',
        b'{"signatures": []}',
        b'{"signatures": {"%s": 1}}',
        b'{"signatures": {"%s": "zz"}}',
        b'{"signatures": {"%s": ""}}',
        b'{"signatures": {"%s": "00"}}',
        b"[" * 60_000,
        b'{"signatures": {}, "padding": "' + b"x" * 60_000 + b'"}',
        b"\xff\xfe",
    ],
    ids=lambda extension: ascii(extension)[:40],
)
def test_odd_signature_is_refused(packs: Packs, extension: bytes) -> None:
    _, pack_id, data = published(packs, None)
    pack = io.BytesIO(data)
    trailer.extend(pack, lambda _index: extension.replace(b"%s", id_of(WRITER).encode()))
    assert isinstance(refusal(packs, pack.getvalue(), pack_id, trust(WRITER)), UntrustedPackError)


def test_signed_pack_with_any_byte_changed_is_refused(packs: Packs) -> None:
    _, pack_id, data = published(packs, WRITER)
    trusted = trust(WRITER)
    for position in range(len(data)):
        altered = bytearray(data)
        altered[position] ^= 1
        assert isinstance(refusal(packs, bytes(altered), pack_id, trusted), PackError), position


def test_nothing_is_unpacked_before_the_signature_is_checked(packs: Packs, monkeypatch: pytest.MonkeyPatch) -> None:
    _, pack_id, data = published(packs, None)

    def unpack(*_: object) -> bytes:
        raise AssertionError("unpacked")

    monkeypatch.setattr(trailer, "unpack_frame", unpack)
    assert isinstance(refusal(packs, data, pack_id, trust(WRITER)), UntrustedPackError)


def test_signing_again_replaces_the_signature(packs: Packs) -> None:
    _, pack_id, data = published(packs, OTHER)
    again = io.BytesIO(data)
    WRITER.sign(again, pack_id)
    assert union_of(packs, again.getvalue(), pack_id, trust(WRITER)).packs


# A pod


def test_pod_that_trusts_a_key_restores_what_it_signed(
    isolated_env: IsolatedEnv, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    isolated_env.fill(isolated_env.triton, {"KEY/a.so": b"signed"})
    key = tmp_path / "key"
    key.write_text(f"# of the builders\n{WRITER.private_text()}\n")
    key.chmod(0o600)
    monkeypatch.setenv("B10_SIGNING_KEY", str(key))
    assert save().status is OperationStatus.SUCCESS
    monkeypatch.delenv("B10_SIGNING_KEY")
    monkeypatch.setenv("B10_TRUSTED_KEYS", f"{OTHER.public_text()} {WRITER.public_text()}")
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path / "new"))
    assert load().status is OperationStatus.SUCCESS
    assert (tmp_path / "new" / "KEY" / "a.so").read_bytes() == b"signed"


def test_pod_that_trusts_a_key_writes_nothing_of_an_unsigned_pack_and_says_so(
    isolated_env: IsolatedEnv,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    isolated_env.fill(isolated_env.triton, {"KEY/a.so": b"unsigned"})
    assert save().status is OperationStatus.SUCCESS
    monkeypatch.setenv("B10_TRUSTED_KEYS", WRITER.public_text())
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path / "new"))
    with caplog.at_level(logging.ERROR):
        report = load()
    assert report.status is OperationStatus.DOES_NOT_EXIST
    assert not (tmp_path / "new").exists()
    assert "it is not signed, and B10_TRUSTED_KEYS is set" in caplog.text


def test_writer_that_trusts_only_itself_publishes_again_what_is_not_signed(
    isolated_env: IsolatedEnv, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    isolated_env.fill(isolated_env.triton, {"KEY/a.so": b"of a writer"})
    assert save().status is OperationStatus.SUCCESS
    monkeypatch.setenv("B10_SIGNING_KEY", WRITER.private_text())
    monkeypatch.setenv("B10_TRUSTED_KEYS", WRITER.public_text())
    report = save()
    assert (report.status, report.units, report.quarantined_packs) == (OperationStatus.SUCCESS, 1, ())
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path / "new"))
    assert load().units == 1


# Keys


def test_keys_are_read_from_text_and_from_files_with_comments(tmp_path: Path) -> None:
    file = tmp_path / "trusted"
    file.write_text(f"# until spring\n\n{WRITER.public_text()}\n  {OTHER.public_text()}  \n")
    found = trusted_keys(Config.from_environment({"B10_TRUSTED_KEYS": f"{file}"}))
    assert str(found) == str(trust(OTHER, WRITER))


def test_no_key_means_no_signature_and_no_check() -> None:
    config = Config.from_environment({})
    assert signing_key(config) is None
    assert trusted_keys(config) is None


def test_key_survives_its_text() -> None:
    again = signing_key(Config.from_environment({"B10_SIGNING_KEY": WRITER.private_text()}))
    assert again is not None
    assert again.public_text() == WRITER.public_text()


@pytest.mark.parametrize(
    "value", ["b10-public:", "b10-public:AAAA", "b10-public:*", "/no/such/file", "hello", ",", "b10-public:" + "A" * 43]
)
def test_trusted_key_that_is_none_is_refused(value: str) -> None:
    with pytest.raises(ConfigurationError, match=r"^B10_TRUSTED_KEYS="):
        trusted_keys(Config.from_environment({"B10_TRUSTED_KEYS": value}))


@pytest.mark.parametrize("content", ["", "# nothing\n", "b10-public:AAAA", "garbage", "\xff"])
def test_key_file_without_a_usable_key_is_refused(tmp_path: Path, content: str) -> None:
    file = tmp_path / "key"
    file.write_text(content, encoding="latin-1")
    with pytest.raises(ConfigurationError, match=r"^B10_TRUSTED_KEYS="):
        trusted_keys(Config.from_environment({"B10_TRUSTED_KEYS": str(file)}))
    with pytest.raises(ConfigurationError, match=r"^B10_SIGNING_KEY="):
        signing_key(Config.from_environment({"B10_SIGNING_KEY": str(file)}))


@pytest.mark.parametrize("value", ["b10-private:AAAA", "b10-private:secret*", "-----BEGIN PRIVATE KEY----- secret"])
def test_private_key_is_never_shown(value: str, caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(ConfigurationError) as raised:
        signing_key(Config.from_environment({"B10_SIGNING_KEY": value}))
    assert value not in str(raised.value)
    assert "(not shown)" in str(raised.value)
    config = Config.from_environment({"B10_SIGNING_KEY": WRITER.private_text()})
    assert WRITER.private_text() not in repr(config) + repr(signing_key(config))


@pytest.mark.parametrize("path", ["~nobody-is-called-so/key", "~../key", "~/\0"])
def test_path_of_a_key_that_leads_nowhere_is_refused(path: str) -> None:
    with pytest.raises(ConfigurationError, match="no file that can be read"):
        signing_key(Config.from_environment({"B10_SIGNING_KEY": path}))


def test_private_key_among_the_trusted_ones_is_refused_without_showing_it() -> None:
    with pytest.raises(ConfigurationError) as raised:
        trusted_keys(Config.from_environment({"B10_TRUSTED_KEYS": WRITER.private_text()}))
    assert WRITER.private_text() not in str(raised.value)


def test_key_file_that_others_can_read_is_warned_of(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    file = tmp_path / "key"
    file.write_text(WRITER.private_text())
    os.chmod(file, 0o644)
    with caplog.at_level(logging.WARNING):
        assert signing_key(Config.from_environment({"B10_SIGNING_KEY": str(file)})) is not None
    assert "make its mode 0600" in caplog.text


def test_without_the_library_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cryptography.hazmat.primitives.asymmetric.ed25519", None)
    with pytest.raises(ConfigurationError, match=r"b10-transfer\[signing\]"):
        trusted_keys(Config.from_environment({"B10_TRUSTED_KEYS": WRITER.public_text()}))


def test_key_is_called_by_its_digest() -> None:
    assert key_id(b"\0" * 32) == "66687aadf862bd77"
