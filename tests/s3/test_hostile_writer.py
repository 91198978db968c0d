"""A writer of a bucket without a key: what he can do there to honest pods, of all that is tried on a directory."""

from __future__ import annotations

import os
import secrets

from hypothesis import strategies as st
from hypothesis.stateful import rule

from tests.security.hostile_writer import ANY, HostileWriter, steps

from .ceph import ACCESS_KEY, SECRET_KEY
from .conftest import BUCKET, ENDPOINT, Bucket

STEPS = int(os.environ.get("B10_HOSTILE_STEPS", "300"))
ODD_KEYS = ("packs//x", "packs/../x", "packs/.", "/x", "leases//x", "leases/x\n", "quarantine/\x01", "recalled/..")


class HostileWriterOfABucket(HostileWriter):
    def make_store(self) -> str:
        self.bucket = Bucket(f"{BUCKET}/{secrets.token_hex(8)}")
        self.client = self.bucket.client
        return self.bucket.url

    def variables(self) -> dict[str, str]:
        keys = {"AWS_ACCESS_KEY_ID": ACCESS_KEY, "AWS_SECRET_ACCESS_KEY": SECRET_KEY}
        return {"AWS_ENDPOINT_URL": ENDPOINT, "AWS_REGION": "us-east-1", **keys}

    def names(self) -> list[str]:
        return self.bucket.objects()

    def read(self, name: str) -> bytes | None:
        content: bytes = self.client.get_object(**self.where(name))["Body"].read()
        return content

    def put(self, name: str, content: bytes) -> None:
        # One page of keys that holds such a key cannot be listed: see "odd keys" in docs/guarantees.md.
        if name.endswith("\n") and "/leases/" not in name:
            self.was_destructive = True
        self.client.put_object(Body=content, **self.where(name))

    def delete(self, name: str) -> None:
        self.client.delete_object(**self.where(name))

    def where(self, name: str) -> dict[str, str]:
        return {"Bucket": self.bucket.name, "Key": self.bucket.prefix + name}

    @rule(key=st.sampled_from(ODD_KEYS), choice=ANY)
    def attacker_creates_an_odd_key(self, key: str, choice: int) -> None:
        self.put_if_absent(f"{self.environment()}/{key}", b"x" * (choice % 3))

    def teardown(self) -> None:
        for name in self.names():
            self.delete(name)
        self.client.close()
        super().teardown()


TestHostileWriterOfABucket = HostileWriterOfABucket.TestCase
TestHostileWriterOfABucket.settings = steps(STEPS)
