"""What of a bucket can be tested without one: obstore's own store in memory stands for it."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import suppress

import pytest

from b10_transfer.deadline import Deadline
from b10_transfer.errors import StoreError
from b10_transfer.stores.answers import is_repeatable
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
        ("s3://bucket/prefix", "AWS_ACCESS_KEY_ID", "hidden\n"),
        ("s3://bucket/prefix", "AWS_SECRET_ACCESS_KEY", "hidden\n"),
        ("s3a://bucket/prefix", "AWS_SESSION_TOKEN", "hidden\r\n"),
        ("s3://bucket/prefix", "AWS_REGION", "hidden\t"),
        ("az://container/prefix", "AZURE_STORAGE_ACCOUNT_KEY", "hidden\n"),
        ("gs://bucket/prefix", "GOOGLE_BEARER_TOKEN", "hidden\n"),
    ],
)
def test_variable_that_no_request_can_hold_is_named_and_not_repeated(
    monkeypatch: pytest.MonkeyPatch, deadline: Deadline, url: str, name: str, value: str
) -> None:
    error = refused(monkeypatch, deadline, url, {name: value})
    assert f"{name} has a line break" in error
    assert "hidden" not in error


@pytest.mark.parametrize(
    ("url", "name", "value"),
    [
        ("s3://bucket/prefix", "AWS_ENDPOINT_URL", "hidden:9000"),
        ("s3://bucket/prefix", "AWS_ENDPOINT_URL", "http://hidden:9000\n"),
        ("s3://bucket/prefix", "AWS_ENDPOINT_URL", ""),
        ("s3://bucket/prefix", "AWS_ENDPOINT", "http://hid den"),
        ("az://container/prefix", "AZURE_STORAGE_ENDPOINT", "DefaultEndpointsProtocol=https;AccountKey=hidden;"),
        ("gs://bucket/prefix", "GOOGLE_BASE_URL", "ftp://hidden"),
    ],
)
def test_endpoint_that_is_no_url_is_named_and_not_repeated(
    monkeypatch: pytest.MonkeyPatch, deadline: Deadline, url: str, name: str, value: str
) -> None:
    error = refused(monkeypatch, deadline, url, {name: value})
    assert f"{name} is no endpoint" in error
    assert "hid" not in error


@pytest.mark.parametrize(
    "variables",
    [
        {"AWS_SECRET_ACCESS_KEY": "sécret "},
        {"AWS_DEFAULT_REGION": "elsewhere\n", "AWS_REGION": "here"},
        {"AWS_SESSION_TOKEN": ""},
        {"AWS_ENDPOINT_URL": "", "AWS_ENDPOINT_URL_S3": "http://HOST"},
        {"AWS_ENDPOINT_URL": "HTTP://HOST"},
        {"AZURE_STORAGE_ENDPOINT": "http://HOST\n"},
        {"AZURE_STORAGE_ENDPOINT": "http://HOST", "AZURE_STORAGE_SAS_KEY": "?sv=1&sig=abc%3D\n"},
    ],
    ids=str,
)
def test_what_works_is_not_refused(
    monkeypatch: pytest.MonkeyPatch, deadline: Deadline, host: str, variables: dict[str, str]
) -> None:
    url = "az://container/prefix" if "AZURE_STORAGE_ENDPOINT" in variables else "s3://bucket/prefix"
    usual = {} if "AWS_ENDPOINT_URL" in variables else {"AWS_ENDPOINT_URL": "http://HOST"}
    filled = {name: value.replace("HOST", host) for name, value in (usual | variables).items()}
    assert "answered 418" in refused(monkeypatch, deadline, url, filled)


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
    monkeypatch: pytest.MonkeyPatch, deadline: Deadline, host: str, url: str, name: str
) -> None:
    assert "answered 418" in refused(monkeypatch, deadline, url, {name: f"http://{host}"})


def test_request_that_is_not_even_sent_is_told_at_once(
    monkeypatch: pytest.MonkeyPatch, deadline: Deadline, host: str
) -> None:
    account = {"gcs_base_url": f"http://{host}", "disable_oauth": True, "client_email": "", "private_key": ""}
    variables = {"GOOGLE_SERVICE_ACCOUNT_KEY": json.dumps(account | {"private_key_id": ""})}
    assert "no request can be made" in refused(monkeypatch, deadline, "gs://bucket/prefix", variables)
    assert not is_repeatable(OSError(f"Error performing GET http://{host}/bucket in 9 µs - HTTP error: builder error"))
    assert is_repeatable(OSError(f"Error performing GET http://{host}/bucket in 9 µs - HTTP error: error sending"))


def test_panic_of_a_client_is_told_and_ends_nothing(
    monkeypatch: pytest.MonkeyPatch, deadline: Deadline, host: str
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{host}")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.delenv("AWS_REGION", raising=False)
    monkeypatch.setenv("AWS_DEFAULT_REGION", "here\n")  # not checked here, because it may not be read
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    with bucket_store("s3://bucket/prefix", deadline=deadline) as store:
        for _ in range(2):
            with pytest.raises(StoreError, match="its client gave up; check credentials, region and endpoint"):
                store.list("folder")


@pytest.fixture
def host() -> Iterator[str]:
    """Where something answers each request that it is a teapot, which no bucket is."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=answer_418, args=(listener,), daemon=True).start()
        yield f"127.0.0.1:{listener.getsockname()[1]}"
        listener.shutdown(socket.SHUT_RDWR)


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


def answer_418(listener: socket.socket) -> None:
    with suppress(OSError):  # closed
        while True:
            client, _address = listener.accept()
            with client:
                client.recv(65536)
                client.sendall(b"HTTP/1.1 418 I'm a teapot\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
