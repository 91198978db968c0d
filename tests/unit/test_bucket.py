"""What of a bucket can be tested without one: obstore's own store in memory stands for it."""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
from contextlib import suppress

import pytest

from b10_transfer.deadline import Deadline
from b10_transfer.errors import StoreError
from b10_transfer.stores.worker import bucket_store

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


@pytest.mark.parametrize(
    ("url", "name", "value"),
    [
        ("s3://bucket/prefix", "AWS_ACCESS_KEY_ID", "key\n"),
        ("s3://bucket/prefix", "AWS_SECRET_ACCESS_KEY", "hidden\n"),
        ("s3a://bucket/prefix", "AWS_SESSION_TOKEN", "token\r\n"),
        ("s3://bucket/prefix", "AWS_REGION", " us-east-1"),
        ("s3://bucket/prefix", "AWS_SECRET_ACCESS_KEY", "sécret"),
        ("az://container/prefix", "AZURE_STORAGE_ACCOUNT_KEY", "a2V5\n"),
        ("gs://bucket/prefix", "GOOGLE_BEARER_TOKEN", "token\n"),
    ],
)
def test_variable_that_no_request_can_hold_is_named_and_not_repeated(
    monkeypatch: pytest.MonkeyPatch, deadline: Deadline, url: str, name: str, value: str
) -> None:
    error = refused(monkeypatch, deadline, url, {name: value})
    assert name in error
    assert "ends in a line break" in error
    assert value.strip() not in error


@pytest.mark.parametrize(
    ("url", "name", "value"),
    [
        ("s3://bucket/prefix", "AWS_ENDPOINT_URL", "127.0.0.1:9000"),
        ("s3://bucket/prefix", "AWS_ENDPOINT_URL", "http://minio:9000\n"),
        ("s3://bucket/prefix", "AWS_ENDPOINT", "http://mi nio"),
        ("az://container/prefix", "AZURE_STORAGE_ENDPOINT", "storage"),
        ("gs://bucket/prefix", "GOOGLE_BASE_URL", "ftp://storage"),
    ],
)
def test_endpoint_that_is_no_url_is_named(
    monkeypatch: pytest.MonkeyPatch, deadline: Deadline, url: str, name: str, value: str
) -> None:
    error = refused(monkeypatch, deadline, url, {name: value})
    assert f"{name} is {value!r}" in error
    assert "http://host:port" in error


def test_password_in_an_endpoint_is_not_repeated(monkeypatch: pytest.MonkeyPatch, deadline: Deadline) -> None:
    error = refused(monkeypatch, deadline, "s3://bucket/prefix", {"AWS_ENDPOINT_URL": "user:password@host"})
    assert "'host'" in error
    assert "password" not in error


def test_variables_of_another_provider_do_not_matter(monkeypatch: pytest.MonkeyPatch, deadline: Deadline) -> None:
    variables = {"AWS_ACCESS_KEY_ID": "key\n", "AZURE_STORAGE_ACCOUNT_KEY": "no base64"}
    assert "AWS" not in refused(monkeypatch, deadline, "az://container/prefix", variables)


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("s3://bucket/prefix", "AWS_ENDPOINT"),
        ("s3://bucket/prefix", "AWS_ENDPOINT_URL_S3"),
        ("az://container/prefix", "AZURE_STORAGE_ENDPOINT"),
        ("gs://bucket/prefix", "GOOGLE_BASE_URL"),
    ],
)
def test_plain_http_endpoint_is_taken_at_its_word(
    monkeypatch: pytest.MonkeyPatch, deadline: Deadline, url: str, name: str
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        endpoint = f"127.0.0.1:{listener.getsockname()[1]}"
        threading.Thread(target=answer_404, args=(listener,), daemon=True).start()
        error = refused(monkeypatch, deadline, url, {name: f"http://{endpoint}"})
    assert "404" in error or "no such bucket" in error


def test_panic_of_a_client_is_told_and_ends_nothing(monkeypatch: pytest.MonkeyPatch, deadline: Deadline) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{listener.getsockname()[1]}")
        threading.Thread(target=answer_404, args=(listener,), daemon=True).start()
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
        # Not checked here, and no header can hold it.
        monkeypatch.setenv("AWS_TOKEN", "token\n")
        with bucket_store("s3://bucket/prefix", deadline=deadline) as store:
            for _ in range(2):
                with pytest.raises(StoreError, match="InvalidHeaderValue"):
                    store.list("folder")


def refused(monkeypatch: pytest.MonkeyPatch, deadline: Deadline, url: str, variables: dict[str, str]) -> str:
    """What a store says that cannot be had with some variables."""
    usual = {
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AZURE_STORAGE_ACCOUNT_NAME": "account",
        "AZURE_STORAGE_ACCOUNT_KEY": "a2V5",
        "GOOGLE_SKIP_SIGNATURE": "true",
    }
    for name, value in (usual | variables).items():
        monkeypatch.setenv(name, value)
    with bucket_store(url, deadline=deadline) as store, pytest.raises(StoreError) as raised:
        store.list("folder")
    return str(raised.value)


def answer_404(listener: socket.socket) -> None:
    with suppress(OSError):  # closed
        while True:
            client, _address = listener.accept()
            with client:
                client.recv(65536)
                client.sendall(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
