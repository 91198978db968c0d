"""Buckets of a real S3, and ways of harming what is between them and a test."""

from __future__ import annotations

import fcntl
import io
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from b10_transfer.concurrency.deadline import Deadline
from b10_transfer.environment import detect
from b10_transfer.pack import Limits
from b10_transfer.repository.repository import Repository
from b10_transfer.stores.worker.client import bucket_store

from ..conftest import IsolatedEnv
from .ceph import ACCESS_KEY, SECRET_KEY, Gateway, bucket_policy
from .proxy import Proxy

BUCKET = os.environ.get("B10_TEST_BUCKET", "")
ENDPOINT = os.environ.get("AWS_ENDPOINT_URL", "")
CONFIGURATION = Path(os.environ.get("B10_TEST_CEPH", ""))

# Without Ceph there is nothing to test here; `make test-s3` has one.
collect_ignore_glob = [] if BUCKET else ["test_*.py"]


@dataclass(frozen=True)
class Bucket:
    """A prefix of a bucket, for one test: its store, and what is really in it."""

    url: str

    @property
    def name(self) -> str:
        return self.url.split("/")[2]

    @property
    def prefix(self) -> str:
        return self.url.split("/", 3)[3] + "/"

    @property
    def client(self) -> Any:
        import boto3

        # Whoever the test acts as: this is the owner.
        return boto3.client("s3", endpoint_url=ENDPOINT, aws_access_key_id=ACCESS_KEY, aws_secret_access_key=SECRET_KEY)

    def objects(self) -> list[str]:
        """Names of all objects, below the prefix."""
        pages = self.client.get_paginator("list_objects_v2").paginate(Bucket=self.name, Prefix=self.prefix)
        return [found["Key"][len(self.prefix) :] for page in pages for found in page.get("Contents", ())]

    def packs(self) -> list[str]:
        return [name for name in self.objects() if "/packs/" in name]

    def leases(self) -> list[str]:
        return [name for name in self.objects() if "/leases/" in name or "/.leases/" in name]

    def uploads(self) -> list[str]:
        """Names of objects whose upload was begun and neither completed nor given up."""
        found = self.client.list_multipart_uploads(Bucket=self.name, Prefix=self.prefix)
        return [upload["Key"] for upload in found.get("Uploads", ())]

    @contextmanager
    def policy(self, user: str, *actions: str) -> Iterator[None]:
        """Let a user, ``*`` for everybody, do some things in the whole bucket meanwhile."""
        with self.policy_text(bucket_policy(self.name, user, *actions)):
            yield

    @contextmanager
    def policy_text(self, text: str) -> Iterator[None]:
        """Give the bucket a policy meanwhile. It has one, so tests in other processes that need another one wait."""
        with CONFIGURATION.with_suffix(".policy").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            self.client.put_bucket_policy(Bucket=self.name, Policy=text)
            try:
                yield
            finally:
                self.client.delete_bucket_policy(Bucket=self.name)

    def publish(self, *packs: bytes) -> None:
        """Have the store hold packs, as saves would have left them."""
        deadline = Deadline("publish", 120)
        with bucket_store(self.url, deadline=deadline) as store:
            limits = Limits.for_packs_of(1024 * 1024 * 1024)
            repository = Repository(store, "default", detect(), limits, deadline)
            for pack in packs:
                repository.publish(io.BytesIO(pack))


@pytest.fixture
def bucket(isolated_env: IsolatedEnv, monkeypatch: pytest.MonkeyPatch) -> Bucket:
    """An empty store in a bucket, which is the configured one."""
    url = f"{BUCKET}/{secrets.token_hex(8)}"
    monkeypatch.setenv("B10_STORE", url)
    return Bucket(url)


@pytest.fixture
def proxy(monkeypatch: pytest.MonkeyPatch) -> Iterator[Proxy]:
    """What stands between the configured store and the gateway."""
    with Proxy(int(ENDPOINT.rpartition(":")[2])) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.endpoint)
        yield proxy


@pytest.fixture(scope="module")
def own_gateway() -> Iterator[Gateway]:
    """A gateway that nobody else uses."""
    with Gateway(CONFIGURATION) as gateway:
        yield gateway


@pytest.fixture
def gateway(own_gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> Iterator[Gateway]:
    """A gateway that this test may kill: it runs when the test begins, and the configured store is behind it."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", own_gateway.endpoint)
    if not own_gateway.is_running:
        own_gateway.start()
    yield own_gateway
    if own_gateway.is_running:
        own_gateway.resume()


@pytest.fixture
def proxied_gateway(gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> Iterator[Proxy]:
    """A proxy before that gateway, by which a test knows how far a transfer is when it kills it."""
    with Proxy(gateway.port) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.endpoint)
        yield proxy
