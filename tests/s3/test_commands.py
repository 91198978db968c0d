"""The command on a store in a bucket: what it prints, its exit codes, and what doctor finds out."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator

import pytest

from b10_transfer import OperationStatus, load, save
from b10_transfer.environment.frameworks import TorchBuild

from ..command import command
from ..conftest import IsolatedEnv
from .conftest import Bucket
from .proxy import Answer, Pass, Proxy


@pytest.fixture(autouse=True)
def torch_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether the tests run beside a torch is not what they are about."""
    monkeypatch.setattr("b10_transfer.inspection.doctor.torch_build", lambda: TorchBuild("2.13.0"))


@pytest.fixture
def saved(isolated_env: IsolatedEnv, bucket: Bucket) -> str:
    """The id of a pack that this pod has saved."""
    isolated_env.fill(isolated_env.triton, {"KEY/a.so": b"machine code"})
    report = save()
    assert report.status is OperationStatus.SUCCESS
    return report.pack


def test_ls_info_and_explain_show_what_the_bucket_holds(bucket: Bucket, saved: str) -> None:
    listed = command("ls", "--packs", "--json").json
    assert (listed["store"], listed["exists"]) == (bucket.url, True)
    assert [pack["id"] for pack in listed["environments"][0]["packs"]] == [saved]
    assert saved in command("ls", "--packs").stdout
    assert command("info", "--json").json["packs"] == 1
    explained = command("explain", "--json")
    assert (explained.exit_code, explained.json["would_hit"]) == (0, True)


def test_empty_bucket_is_told_as_such(bucket: Bucket) -> None:
    assert command("ls", "--json").json["environments"] == []
    assert command("explain").exit_code == 3
    assert command("load").exit_code == 3
    assert command("verify").exit_code == 0


def test_verify_finds_the_damaged_byte_and_a_save_heals_it(
    isolated_env: IsolatedEnv, bucket: Bucket, saved: str
) -> None:
    assert command("verify").exit_code == 0
    [name] = bucket.packs()
    data = bytearray(bucket.client.get_object(Bucket=bucket.name, Key=bucket.prefix + name)["Body"].read())
    data[100] ^= 1
    bucket.client.put_object(Bucket=bucket.name, Key=bucket.prefix + name, Body=bytes(data))
    answer = command("verify")
    assert answer.exit_code == 1
    assert saved in answer.stdout
    assert save().quarantined_packs == (saved,)
    shutil.rmtree(isolated_env.triton)
    assert load().rejected_packs == ()


def test_recalled_pack_counts_as_absent_until_it_is_restored(
    isolated_env: IsolatedEnv, bucket: Bucket, saved: str
) -> None:
    assert command("recall", saved).exit_code == 0
    shutil.rmtree(isolated_env.triton)
    assert load().status is OperationStatus.DOES_NOT_EXIST
    assert command("reinstate", saved).exit_code == 0
    assert load().status is OperationStatus.SUCCESS


def test_clear_empties_the_store(bucket: Bucket, saved: str) -> None:
    assert command("clear", "--store", "--yes").exit_code == 0
    assert bucket.objects() == []


def test_run_restores_starts_the_server_and_saves_what_it_compiles(
    isolated_env: IsolatedEnv, bucket: Bucket, saved: str
) -> None:
    shutil.rmtree(isolated_env.triton)
    server = (
        "import os, pathlib; cache = pathlib.Path(os.environ['TRITON_CACHE_DIR']);"
        "assert (cache / 'KEY/a.so').exists(); (cache / 'NEW').mkdir(); (cache / 'NEW/a.so').write_bytes(b'new');"
        "raise SystemExit(7)"
    )
    command_line = [sys.executable, "-c", "from b10_transfer.cli.main import main; main()", "run"]
    done = subprocess.run(
        [*command_line, "--", sys.executable, "-c", server], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 7, done.stderr
    assert len(bucket.packs()) == 2


def test_doctor_is_content_with_a_sound_bucket_and_leaves_nothing_in_it(bucket: Bucket) -> None:
    answer = command("doctor")
    assert answer.exit_code == 0, answer.stdout
    assert {line.split()[0] for line in answer.stdout.splitlines()} == {"ok"}
    assert bucket.objects() == []


@pytest.fixture
def open_to_all(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Requests need no signature, so that a proxy may change them."""
    monkeypatch.setenv("AWS_SKIP_SIGNATURE", "true")
    with bucket.policy("*", "s3:ListBucket", "s3:GetObject", "s3:PutObject", "s3:DeleteObject"):
        yield


@pytest.mark.parametrize("ignored", [True, False], ids=["ignored", "refused"])
def test_doctor_finds_out_a_bucket_without_conditional_creation(
    bucket: Bucket, proxy: Proxy, open_to_all: None, ignored: bool
) -> None:
    harm = Pass(without_headers=("if-none-match",)) if ignored else Answer("501 Not Implemented", "NotImplemented")
    proxy.rule = lambda request: harm if request.is_conditional else Pass()
    answer = command("doctor", "--json")
    [found] = [check for check in answer.json["checks"] if check["name"] == "exclusive create"]
    assert (answer.exit_code, found["state"]) == (1, "PROBLEM")
    assert "packs are safe" in found["advice"]


def test_doctor_says_what_to_do_where_it_is_not_let_in(
    isolated_env: IsolatedEnv, bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    answer = command("doctor", "--deadline", "5")
    assert answer.exit_code == 1
    assert "the secret key is wrong" in answer.stdout
    isolated_env.fill(isolated_env.inductor, {"ey/key.py": b"code"})
    for name in ("ls", "verify", "info", "load", "save"):
        failed = command(name, "--deadline", "5")
        assert failed.exit_code == 1, name
        assert "the secret key is wrong" in failed.stdout + failed.stderr, name
