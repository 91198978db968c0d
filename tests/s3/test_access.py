"""A bucket that lets nobody in says why, and what to do; never with a secret, and never in a foreign language."""

from __future__ import annotations

import secrets
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator

import pytest

from b10_transfer import OperationStatus, load, save

from ..conftest import IsolatedEnv
from .ceph import free_port, make_user
from .conftest import CONFIGURATION, Bucket
from .proxy import Answer, Proxy

STRANGE_SECRET = "a-secret-that-nobody-may-see"


@pytest.fixture
def filled(isolated_env: IsolatedEnv) -> None:
    isolated_env.fill(isolated_env.triton, {"KEY/a.so": b"a"})


@pytest.fixture(autouse=True)
def nothing_secret_and_no_structures_are_logged(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    yield
    assert STRANGE_SECRET not in caplog.text
    assert "testsecret" not in caplog.text
    for foreign in ("Debug source", "reqwest", "Generic", "<?xml", "X-Amz", "RetryError"):
        assert foreign not in caplog.text


WRONG = {
    "another secret": ({"AWS_SECRET_ACCESS_KEY": STRANGE_SECRET}, "the secret key is wrong"),
    "unknown key": ({"AWS_ACCESS_KEY_ID": "nobody", "AWS_SECRET_ACCESS_KEY": STRANGE_SECRET}, "key is not known"),
    "missing bucket": ({"B10_STORE": "s3://no-such-bucket/x"}, "there is no such bucket; create it"),
    "nobody listens": ({"AWS_ENDPOINT_URL": "http://127.0.0.1:1"}, "Connection refused (http://127.0.0.1:1)"),
    "name unknown": ({"AWS_ENDPOINT_URL": "http://nowhere.invalid"}, "(http://nowhere.invalid); check the endpoint"),
    "secret in the endpoint": (
        {"AWS_ENDPOINT_URL": f"http://me:{STRANGE_SECRET}@127.0.0.1:1"},
        "Connection refused (http://127.0.0.1:1)",
    ),
}


def test_endpoint_where_nobody_listens_does_not_cost_the_deadline(
    bucket: Bucket, filled: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{free_port()}")
    report = load(merge=True, deadline_s=60)
    assert report.status is OperationStatus.ERROR
    assert "Connection refused" in report.reason
    assert report.seconds < 15


@pytest.mark.parametrize(("variables", "told"), WRONG.values(), ids=WRONG)
def test_what_keeps_a_pod_out_is_told(
    bucket: Bucket, filled: None, monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], told: str
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    for report in (save(deadline_s=30), load(merge=True, deadline_s=30)):
        assert report.status is OperationStatus.ERROR
        assert told in report.reason
        assert report.reason.startswith("could not list s3://")
        assert len(report.reason) < 400
    assert bucket.objects() == []


def test_credentials_in_the_place_of_a_bucket_are_not_repeated(
    isolated_env: IsolatedEnv, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("B10_STORE", f"s3://key:{STRANGE_SECRET}@bucket/prefix")
    report = load()
    assert report.status is OperationStatus.ERROR
    assert STRANGE_SECRET not in report.reason


class Visitor:
    """Another user of the same S3."""

    def __init__(self) -> None:
        self.name = f"visitor-{secrets.token_hex(4)}"
        self.secret = secrets.token_hex(8)
        make_user(CONFIGURATION, self.name, self.name, self.secret)

    def act(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", self.name)
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", self.secret)


@pytest.fixture(scope="module")
def visitor() -> Visitor:
    return Visitor()


def test_user_without_any_permission_is_told_which_are_needed(
    bucket: Bucket, filled: None, visitor: Visitor, monkeypatch: pytest.MonkeyPatch
) -> None:
    visitor.act(monkeypatch)
    for report in (save(), load(merge=True)):
        assert report.status is OperationStatus.ERROR
        assert "access was refused; the credentials lack a permission (needed: list, get, put, delete)" in report.reason


def test_user_who_may_only_read_loads_and_is_told_why_saves_fail(
    isolated_env: IsolatedEnv, bucket: Bucket, filled: None, visitor: Visitor, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert save().status is OperationStatus.SUCCESS
    with bucket.policy(visitor.name, "s3:ListBucket", "s3:GetObject"):
        visitor.act(monkeypatch)
        shutil.rmtree(isolated_env.triton)
        assert load().status is OperationStatus.SUCCESS
        assert save().status is OperationStatus.SKIPPED
        isolated_env.fill(isolated_env.triton, {"NEW/a.so": b"new"})
        report = save()
        assert (report.status, report.read_only) == (OperationStatus.SKIPPED, True)
        assert "access was refused" in report.reason
        assert report.reason.startswith(f"nothing was saved: this pod cannot write to {bucket.url} (")
        monkeypatch.setenv("B10_READ_ONLY", "1")
        assert save().status is OperationStatus.SKIPPED


def test_machine_whose_clock_is_wrong_is_told_so(bucket: Bucket, filled: None) -> None:
    program = "import b10_transfer; print(b10_transfer.load(merge=True).reason)"
    skewed = ["faketime", "--exclude-monotonic", "-f", "-2h", sys.executable, "-c", program]
    done = subprocess.run(skewed, capture_output=True, text=True, timeout=60, check=True)
    assert "this machine's clock is too far off for the signature to be accepted; set it" in done.stdout


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (Answer("301 Moved Permanently", "PermanentRedirect"), "set AWS_REGION"),
        (Answer("400 Bad Request", "AuthorizationHeaderMalformed"), "the bucket is in another region"),
        (Answer("400 Bad Request", "ExpiredToken"), "the credentials have expired"),
        (Answer("418 I'm a teapot", "Odd"), "the bucket answered 418 I'm a teapot (Odd)"),
    ],
    ids=["redirect", "region", "expired", "odd"],
)
def test_answer_of_a_bucket_is_explained(bucket: Bucket, proxy: Proxy, answer: Answer, told: str) -> None:
    proxy.rule = lambda request: answer
    assert told in load(deadline_s=3).reason


def test_endpoint_that_takes_connections_and_says_nothing_costs_the_deadline(
    bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", free_port())) as silent:
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{silent.getsockname()[1]}")
        report = load(deadline_s=3)
    assert report.status is OperationStatus.ERROR
    assert "no answer in time" in report.reason or "deadline of 3 s while listing the packs" in report.reason
