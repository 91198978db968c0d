"""What of a bucket can be tested without one: obstore's own store in memory stands for it."""

from __future__ import annotations

import subprocess
import sys

import pytest

# In a process of its own: obstore's threads do not survive forks of this one.
_ENDS = """
import os, sys
import obstore
from obstore.store import MemoryStore
from b10_transfer.stores.bucket import BucketStore
from b10_transfer.stores.ranges import TAIL_BYTES

store = BucketStore(sys.argv[1], 10)
real_get, store._store = obstore.get, MemoryStore()

def get(client, name, *, options=None):
    if options and "suffix" in options["range"] and sys.argv[1].startswith("az"):
        raise obstore.exceptions.NotSupportedError("Azure does not support suffix range requests")
    return real_get(client, name, options=options) if options else real_get(client, name)

obstore.get = get
assert store.open("a/none") is None
for size in (1, TAIL_BYTES, TAIL_BYTES + 1, 3 * TAIL_BYTES):
    data = os.urandom(size)
    obstore.put(store._store, "a/object", data)
    with store.open("a/object") as reader:
        assert reader.size_bytes == size
        assert reader.read_at(0, size) == data
"""


@pytest.mark.parametrize("url", ["s3://bucket/prefix", "az://container/prefix"])
def test_object_opens_whether_or_not_a_bucket_gives_ranges_from_the_end(
    monkeypatch: pytest.MonkeyPatch, url: str
) -> None:
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_NAME", "account")
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_KEY", "a2V5")
    done = subprocess.run([sys.executable, "-c", _ENDS, url], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
