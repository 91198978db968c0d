"""``keygen`` makes a pair of keys that sign and are trusted, and never overwrites one."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest
from click.testing import CliRunner

from b10_transfer.cli.main import main
from b10_transfer.config import Config
from b10_transfer.repository.signing import signing_key, trusted_keys


def test_pair_signs_and_is_trusted(tmp_path: Path) -> None:
    path = tmp_path / "builder.key"
    result = CliRunner().invoke(main, ["keygen", str(path)])
    assert result.exit_code == 0
    public = tmp_path / "builder.key.pub"
    assert (stat.S_IMODE(path.stat().st_mode), stat.S_IMODE(public.stat().st_mode)) == (0o600, 0o644)
    key = signing_key(Config.from_environment({"B10_SIGNING_KEY": str(path)}))
    assert key is not None
    assert key.public_text() == public.read_text().strip()
    assert key.public_text() in result.output
    assert key.private_text() not in result.output
    assert trusted_keys(Config.from_environment({"B10_TRUSTED_KEYS": str(public)})) is not None


def test_existing_key_stays(tmp_path: Path) -> None:
    path = tmp_path / "key"
    path.write_text("precious")
    result = CliRunner().invoke(main, ["keygen", str(path)])
    assert (result.exit_code, path.read_text()) == (1, "precious")
    assert not (tmp_path / "key.pub").exists()


def test_existing_public_key_stays_and_leaves_no_private_one(tmp_path: Path) -> None:
    (tmp_path / "key.pub").write_text("precious")
    result = CliRunner().invoke(main, ["keygen", str(tmp_path / "key")])
    assert (result.exit_code, (tmp_path / "key.pub").read_text()) == (1, "precious")
    assert not (tmp_path / "key").exists()


def test_missing_folder_is_an_error_that_names_it(tmp_path: Path) -> None:
    result = CliRunner().invoke(main, ["keygen", str(tmp_path / "no" / "key")])
    assert result.exit_code == 1
    assert result.stderr == f"no key was made: {tmp_path}/no/key: No such file or directory\n"


@pytest.mark.parametrize("name", ["", ".", "..", "/", "keys/", "keys/..", "/tmp/."])
def test_path_that_names_no_file_is_wrong_usage(name: str) -> None:
    result = CliRunner().invoke(main, ["keygen", name])
    assert result.exit_code == 2
    for words in (f"PATH={name!r}", "names no file", "builder.key"):
        assert words in result.stderr
    assert "keygen=" not in result.stderr
