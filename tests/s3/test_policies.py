"""The policies of docs/object-stores.md, applied to a real S3: what they allow is enough, and no more."""

from __future__ import annotations

import json
import re
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from b10_transfer import OperationStatus, load, save

from ..conftest import IsolatedEnv
from .ceph import make_user
from .conftest import CONFIGURATION, Bucket

PAGE = (Path(__file__).parents[2] / "docs" / "object-stores.md").read_text()
LOADS, SAVES = (json.loads(block) for block in re.findall(r"```json\n(.*?)```", PAGE, re.DOTALL))


class User:
    """A user who owns nothing here."""

    def __init__(self) -> None:
        self.name, self.secret = secrets.token_hex(8), secrets.token_hex(16)
        make_user(CONFIGURATION, self.name, self.name, self.secret)

    def act(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", self.name)
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", self.secret)


@pytest.fixture(scope="module")
def user() -> User:
    return User()


@contextmanager
def applied(policy: dict[str, Any], bucket: Bucket, user: User) -> Iterator[None]:
    """Let a user do in the store what a policy of the page allows."""
    text = json.dumps(policy).replace("my-bucket", bucket.name).replace("compile-cache/", bucket.prefix)
    document = json.loads(text)
    for statement in document["Statement"]:
        statement["Principal"] = {"AWS": [f"arn:aws:iam:::user/{user.name}"]}
    with bucket.policy_text(json.dumps(document)):
        yield


@pytest.fixture
def published(bucket: Bucket, isolated_env: IsolatedEnv) -> None:
    """The owner has saved to two namespaces."""
    isolated_env.fill(isolated_env.triton, {"KEY/a.so": b"a"})
    for namespace in ("llama", "other"):
        assert save(namespace=namespace).status is OperationStatus.SUCCESS
    shutil.rmtree(isolated_env.triton)


def test_pod_that_loads_reaches_its_namespace_alone(
    published: None, bucket: Bucket, isolated_env: IsolatedEnv, user: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    user.act(monkeypatch)
    monkeypatch.setenv("B10_READ_ONLY", "1")
    before = bucket.objects()
    assert load(namespace="llama").status is OperationStatus.ERROR
    with applied(LOADS, bucket, user):
        assert load(namespace="other").status is OperationStatus.ERROR
        report = load(namespace="llama")
        assert (report.status, report.units) == (OperationStatus.SUCCESS, 1)
        monkeypatch.delenv("B10_READ_ONLY")
        isolated_env.fill(isolated_env.triton, {"NEW/a.so": b"new"})
        assert save(namespace="llama").status in (OperationStatus.SKIPPED, OperationStatus.ERROR)
    assert bucket.objects() == before


def test_pod_that_saves_reaches_its_namespace_alone(
    published: None, bucket: Bucket, isolated_env: IsolatedEnv, user: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    user.act(monkeypatch)
    before = [name for name in bucket.objects() if name.startswith("v1/other/")]
    with applied(SAVES, bucket, user):
        assert load(namespace="llama").units == 1
        isolated_env.fill(isolated_env.triton, {"NEW/a.so": b"new", "LARGE/a.so": secrets.token_bytes(20_000_000)})
        report = save(namespace="llama")
        assert (report.status, report.units) == (OperationStatus.SUCCESS, 2), report.reason
        assert save(namespace="other").status is OperationStatus.ERROR
    assert [name for name in bucket.objects() if name.startswith("v1/other/")] == before
