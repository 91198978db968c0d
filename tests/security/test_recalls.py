"""Recalls where keys are trusted: a writer of the store without a key cannot make one."""

from __future__ import annotations

from pathlib import Path

import pytest

from b10_transfer import OperationStatus, load, save
from b10_transfer.repository.signing import SigningKey
from tests.command import command
from tests.conftest import IsolatedEnv

KEY, OTHER = SigningKey.generate(), SigningKey.generate()


@pytest.fixture
def signed(isolated_env: IsolatedEnv, monkeypatch: pytest.MonkeyPatch) -> str:
    """A store with one signed pack, whose id this is. The pod trusts the key, and has it."""
    monkeypatch.setenv("B10_CACHES", "triton")
    monkeypatch.setenv("B10_SIGNING_KEY", KEY.private_text())
    monkeypatch.setenv("B10_TRUSTED_KEYS", KEY.public_text())
    isolated_env.fill(isolated_env.triton, {"KEY/a.so": b"code"})
    return save().pack


def load_elsewhere(monkeypatch: pytest.MonkeyPatch, path: Path) -> OperationStatus:
    with monkeypatch.context() as patch:
        patch.setenv("TRITON_CACHE_DIR", str(path))
        return load().status


def folder(env: IsolatedEnv) -> Path:
    [found] = env.store.glob("v1/*/*/packs")
    return found.parent


def test_signed_recall_counts_and_is_undone(
    signed: str, isolated_env: IsolatedEnv, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert command("recall", signed).exit_code == 0
    assert command("recall", signed).stdout.startswith("nothing to recall")
    [mark] = (folder(isolated_env) / "recalled").iterdir()
    assert mark.name.startswith(f"{signed}.{KEY.id}.")
    assert load_elsewhere(monkeypatch, tmp_path / "one") is OperationStatus.DOES_NOT_EXIST
    assert save().status is OperationStatus.SKIPPED, "nor is it published again"
    assert "recalled" in command("ls", "--packs").stdout
    assert command("reinstate", signed).exit_code == 0
    assert load_elsewhere(monkeypatch, tmp_path / "two") is OperationStatus.SUCCESS


def marks_of_an_attacker(pack_id: str, place: Path) -> list[str]:
    """The names he can make: unsigned, signed by a key of his, of another pack, another environment, damaged."""
    right = KEY.sign_recall(f"v1/default/{place.name}", pack_id)
    return [
        pack_id,
        f"{pack_id}.{OTHER.sign_recall(f'v1/default/{place.name}', pack_id)}",
        f"{pack_id}.{KEY.id}.{OTHER.sign_recall(f'v1/default/{place.name}', pack_id).partition('.')[2]}",
        f"{pack_id}.{KEY.sign_recall(f'v1/default/{place.name}', '01a228e00000-0000000000000001')}",
        f"{pack_id}.{KEY.sign_recall(f'v1/other/{place.name}', pack_id)}",
        f"{pack_id}.{right[:-1]}{'0' if right[-1] != '0' else '1'}",
        f"{pack_id}.{right}00",
        f"{pack_id}.{KEY.id}.",
    ]


@pytest.mark.parametrize("number", range(8))
def test_recall_that_no_trusted_key_has_signed_does_not_count_and_is_named(
    signed: str,
    isolated_env: IsolatedEnv,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    number: int,
) -> None:
    place = folder(isolated_env)
    (place / "recalled").mkdir()
    (place / "recalled" / marks_of_an_attacker(signed, place)[number]).write_text("{}")
    assert load_elsewhere(monkeypatch, tmp_path / "one") is OperationStatus.SUCCESS
    if number < 6:
        assert f"recalls that no trusted key has signed are ignored: {signed}" in caplog.text
    monkeypatch.delenv("B10_SIGNING_KEY")
    monkeypatch.delenv("B10_TRUSTED_KEYS")
    expected = OperationStatus.DOES_NOT_EXIST if number < 6 else OperationStatus.SUCCESS
    assert load_elsewhere(monkeypatch, tmp_path / "two") is expected, "without keys every mark counts"


def test_false_recall_beside_a_true_one_changes_nothing(
    signed: str, isolated_env: IsolatedEnv, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    command("recall", signed)
    (folder(isolated_env) / "recalled" / signed).write_text("{}")
    assert load_elsewhere(monkeypatch, tmp_path / "one") is OperationStatus.DOES_NOT_EXIST
    assert command("reinstate", signed).exit_code == 0
    assert list((folder(isolated_env) / "recalled").iterdir()) == []


@pytest.mark.parametrize("key", ["", OTHER.private_text()], ids=["no key", "another key"])
def test_recall_that_pods_would_ignore_is_refused(
    signed: str, isolated_env: IsolatedEnv, monkeypatch: pytest.MonkeyPatch, key: str
) -> None:
    monkeypatch.setenv("B10_SIGNING_KEY", key) if key else monkeypatch.delenv("B10_SIGNING_KEY")
    answer = command("recall", signed)
    assert answer.exit_code == 1
    assert "a recall that no trusted key signed" in answer.stderr
    assert key not in answer.stderr or not key
    assert not (folder(isolated_env) / "recalled").exists()


def test_mark_that_a_keyless_writer_deletes_lets_the_pack_count_again(
    signed: str, isolated_env: IsolatedEnv, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """What remains, as docs/guarantees.md says. The other way back: to trust the key no longer."""
    command("recall", signed)
    [mark] = (folder(isolated_env) / "recalled").iterdir()
    mark.unlink()
    assert load_elsewhere(monkeypatch, tmp_path / "one") is OperationStatus.SUCCESS
    monkeypatch.setenv("B10_TRUSTED_KEYS", OTHER.public_text())
    assert load_elsewhere(monkeypatch, tmp_path / "two") is OperationStatus.DOES_NOT_EXIST


@pytest.mark.usefixtures("signed")
@pytest.mark.parametrize("value", ["", " ", ",", "\n"])
def test_trusted_keys_that_are_set_and_empty_are_an_error(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, value: str
) -> None:
    """A manifest variable that was not replaced must not switch verification off."""
    monkeypatch.delenv("B10_SIGNING_KEY")
    monkeypatch.setenv("B10_TRUSTED_KEYS", value)
    assert load_elsewhere(monkeypatch, tmp_path / "one") is OperationStatus.ERROR
    assert save().status is OperationStatus.ERROR
    assert "B10_TRUSTED_KEYS" in load().reason
    assert command("verify").exit_code == 1
