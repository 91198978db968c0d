"""What of a bucket can be tested without one: obstore's own store in memory stands for it."""

from __future__ import annotations

import datetime
import json
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from b10_transfer.concurrency.deadline import Deadline
from b10_transfer.errors import StoreError
from b10_transfer.stores.bucket.errors import classify
from b10_transfer.stores.worker.client import bucket_store

# In a process of its own: obstore's threads do not survive forks of this one.
_ENDS = """
import os, sys
import obstore
from obstore.store import MemoryStore
from b10_transfer.stores.bucket.store import BucketStore
from b10_transfer.stores.bucket.ranges import TAIL_BYTES

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


_FLOOD = """
import sys
from datetime import datetime
import obstore
from obstore.store import MemoryStore
from b10_transfer.stores import base
from b10_transfer.stores.bucket.store import BucketStore

store = BucketStore("s3://bucket/prefix", 10)
store._store = MemoryStore()
base.MOST_LISTED = 100
for number in range(101):
    obstore.put(store._store, f"a/foreign/{number}", b"")
obstore.put(store._store, "a/packs/one", b"")
packs, marks = store.list_each(["a/packs", "a/marks"])
assert ([info.name for info in packs], list(marks)) == (["a/packs/one"], [])
try:
    store.list("a/foreign")
except base.TooManyObjectsError as error:
    assert "s3://bucket/prefix/a/foreign" in str(error), error
else:
    raise AssertionError("it was listed")

def endless(*_, **__):
    while True:
        yield [{"path": "a/packs/one", "size": 0, "last_modified": datetime.now()}] * 50

obstore.list = endless
try:
    store.list("a/packs")
except base.TooManyObjectsError:
    sys.exit(0)
sys.exit(1)
"""


def test_flood_beside_the_packs_does_not_matter_and_a_flood_of_packs_is_named() -> None:
    done = subprocess.run([sys.executable, "-c", _FLOOD], capture_output=True, text=True, timeout=60, check=False)
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
    assert not classify(
        OSError(f"Error performing GET http://{host}/bucket in 9 µs - HTTP error: builder error")
    ).is_repeatable
    assert classify(
        OSError(f"Error performing GET http://{host}/bucket in 9 µs - HTTP error: error sending")
    ).is_repeatable


@pytest.mark.timeout(60)
def test_where_connections_vanish_a_start_does_not_wait_for_most_of_its_deadline(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=0) as listener, ExitStack() as full:
        for _ in range(3):
            client = full.enter_context(socket.socket())
            client.setblocking(False)
            client.connect_ex(listener.getsockname())
        variables = {"AWS_ENDPOINT_URL": f"http://localhost:{listener.getsockname()[1]}"}
        assert "no answer in time" in refused(monkeypatch, Deadline("load", 600), "s3://bucket/prefix", variables)


VANISHED = "Error(Connect, TimedOut)", 'Error(Connect, ConnectError("tcp connect error", Custom { kind: TimedOut }))'
MISTRUSTED = "Error(Connect, Custom { error: InvalidCertificate(UnknownIssuer) })"
REFUSED = "Error(Connect, ConnectError(Os { kind: ConnectionRefused }))"
HANGING, RESET = "TimedOut", "Error(SendRequest, Os { kind: ConnectionReset })"
BUCKET, IDENTITY = "https://bucket.example.com/object", "http://169.254.169.254/latest/api/token"


def lost(structure: str, address: str = BUCKET) -> OSError:
    """As obstore words it."""
    said = f"Generic S3 error: Error performing GET {address} in 5.0s - HTTP error: error sending request"
    return OSError(f"{said}\n\nDebug source:\n{structure.replace('(', '(   ')}")


@pytest.mark.parametrize(
    ("error", "meanings"),
    [
        (lost(VANISHED[0]), {"is_dropped"}),
        (lost(VANISHED[1]), {"is_dropped"}),
        (lost(MISTRUSTED), {"is_mistrusted"}),
        (lost(REFUSED), {"is_unreached"}),
        (lost(HANGING), {"was_reached"}),
        (lost(RESET), {"was_reached"}),
        (lost(HANGING, IDENTITY), {"is_identity"}),
        (lost(REFUSED, IDENTITY), {"is_identity", "is_unreached"}),
        (
            OSError("Error performing GET x in 9ms - Server returned non-2xx status code: 503 Slow Down: "),
            {"was_reached"},
        ),
        (OSError("Error performing GET x in 9ms - HTTP error: builder error"), set()),
    ],
    ids=[
        "vanished",
        "vanished later",
        "certificate",
        "refused",
        "hangs",
        "reset",
        "identity hangs",
        "identity refused",
        "busy",
        "not sent",
    ],
)
def test_what_a_failure_means(error: OSError, meanings: set[str]) -> None:
    kinds = ("is_dropped", "is_mistrusted", "is_unreached", "is_identity", "was_reached")
    failure = classify(error)
    assert {kind for kind in kinds if getattr(failure, kind)} == meanings


_FAILURES = """
import sys, time
import obstore
from b10_transfer.errors import StoreError
from b10_transfer.stores.bucket import retry as patience
from b10_transfer.stores.bucket.store import BucketStore

patience.chance = lambda: 0.5
clock = [0.0]
time.monotonic = lambda: clock[0]
def sleep(seconds):
    clock[0] += seconds
time.sleep = sleep
failures = [eval(failure) for failure in sys.argv[1:]]

def fail(*_, **__):
    took_s, failure = failures.pop(0) if len(failures) > 1 else failures[0]
    clock[0] += took_s
    if failure:
        raise OSError(failure)
    return []

obstore.list = fail
store = BucketStore("s3://bucket/prefix", 60)
try:
    while failures[0][1] or len(failures) > 1:
        store.list("folder")
    print("answered", int(clock[0]))
except StoreError:
    print("gave up", int(clock[0]))
"""


@pytest.mark.parametrize(
    ("failures", "outcome", "seconds"),
    [
        ([(5, lost(VANISHED[0]))], "gave up", (10, 21)),
        ([(0, lost(REFUSED))], "gave up", (2, 4)),
        ([(0, lost(MISTRUSTED))], "gave up", (0, 0)),
        # Whoever was there and restarts, or shows a wrong certificate for a moment, is waited for.
        ([(20, lost(RESET)), (5, lost(VANISHED[0]))], "gave up", (35, 43)),
        ([(0, None), (0, lost(REFUSED))], "gave up", (35, 43)),
        ([(0, None), (0, lost(MISTRUSTED)), (1, None)], "answered", (1, 5)),
        # An identity that hangs once is asked again.
        ([(20, lost(HANGING, IDENTITY)), (0, None)], "answered", (20, 22)),
        ([(20, lost(HANGING, IDENTITY))], "gave up", (40, 41)),
        ([(0, lost(RESET))], "gave up", (35, 43)),
    ],
    ids=[
        "vanished",
        "refused",
        "certificate",
        "vanished later",
        "refused later",
        "certificate for a moment",
        "identity hangs once",
        "identity hangs",
        "reset",
    ],
)
def test_how_long_a_request_is_repeated(
    failures: list[tuple[int, OSError | None]], outcome: str, seconds: tuple[int, int]
) -> None:
    """By a clock that stands still meanwhile, and with pauses that are not left to chance."""
    told = [repr((took_s, failure and str(failure))) for took_s, failure in failures]
    done = subprocess.run([sys.executable, "-c", _FAILURES, *told], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    said, _, took = done.stdout.strip().rpartition(" ")
    assert said == outcome
    assert seconds[0] <= int(took) <= seconds[1]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("GOOGLE_SERVICE_ACCOUNT", '{"private_key": "hidden"}'),
        ("GOOGLE_APPLICATION_CREDENTIALS", '{"private_key": "hidden"}'),
        ("GOOGLE_SERVICE_ACCOUNT_KEY", '"hidden"'),
    ],
)
def test_google_key_in_a_wrong_place_is_not_repeated(
    monkeypatch: pytest.MonkeyPatch, deadline: Deadline, name: str, value: str
) -> None:
    monkeypatch.delenv("GOOGLE_BEARER_TOKEN", raising=False)
    error = refused(monkeypatch, deadline, "gs://bucket/prefix", {name: value, "GOOGLE_SKIP_SIGNATURE": ""})
    assert "hidden" not in error


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("http://169.254.169.254/latest/api/token", True),
        ("http://169.254.170.23/v1/credentials", True),
        ("http://metadata.google.internal/computeMetadata/v1/instance/service-accounts/default/token", True),
        ("http://169.254.169.254/metadata/identity/oauth2/token?api-version=2019-08-01", True),
        ("https://oauth2.googleapis.com/token", False),
        ("https://bucket.s3.amazonaws.com/latest/object", False),
        ("https://s3.amazonaws.com/bucket/latest/meta-data/", False),
    ],
)
def test_whose_failure_it_was_is_told_by_the_address(address: str, expected: bool) -> None:
    error = OSError(f"Generic error: Error performing GET {address} in 1.0s - HTTP error: error sending request")
    assert classify(error).is_identity is expected


@pytest.mark.timeout(60)
def test_endpoint_whose_certificate_is_not_trusted_is_told_at_once(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """As of a store in a company's own network. With the authority's certificate it is spoken to."""
    authority = make_certificates(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "server.pem")
    with socket.create_server(("127.0.0.1", 0)) as plain, context.wrap_socket(plain, server_side=True) as listener:
        threading.Thread(target=answer_418, args=(listener,), daemon=True).start()
        variables = {"AWS_ENDPOINT_URL": f"https://localhost:{listener.getsockname()[1]}"}
        patient = Deadline("load", 600)
        error = refused(monkeypatch, patient, "s3://bucket/prefix", variables)
        assert "is not trusted (UnknownIssuer)" in error
        assert "SSL_CERT_FILE" in error
        variables["SSL_CERT_FILE"] = str(authority)
        assert "answered 418" in refused(monkeypatch, patient, "s3://bucket/prefix", variables)


@pytest.mark.timeout(60)
def test_endpoint_that_does_not_speak_tls_is_told_at_once(monkeypatch: pytest.MonkeyPatch, host: str) -> None:
    variables = {"AWS_ENDPOINT_URL": f"https://{host}"}
    error = refused(monkeypatch, Deadline("load", 600), "s3://bucket/prefix", variables)
    assert f"(https://{host}) does not speak TLS" in error


def make_certificates(folder: Path) -> Path:
    """A certificate of localhost with its key, ``server.pem``, and that of the authority which has signed it."""
    begins = datetime.datetime.now(datetime.timezone.utc) - datetime.timedelta(hours=1)
    ends = begins + datetime.timedelta(days=1)
    keys = [ec.generate_private_key(ec.SECP256R1()) for _ in range(2)]
    names = [x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]) for name in ("authority", "localhost")]
    extensions: list[x509.ExtensionType] = [
        x509.BasicConstraints(ca=True, path_length=None),
        x509.SubjectAlternativeName([x509.DNSName("localhost")]),
    ]
    made = [
        x509.CertificateBuilder(names[0], name, key.public_key(), x509.random_serial_number(), begins, ends)
        .add_extension(extension, critical=True)
        .sign(keys[0], hashes.SHA256())
        .public_bytes(Encoding.PEM)
        for name, key, extension in zip(names, keys, extensions, strict=True)
    ]
    private = keys[1].private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    (folder / "server.pem").write_bytes(private + made[1])
    (folder / "authority.pem").write_bytes(made[0])
    return folder / "authority.pem"


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
    while listener.fileno() >= 0:
        with suppress(OSError):  # closed, or a client that does not trust this
            client, _address = listener.accept()
            with client:
                client.recv(65536)
                client.sendall(b"HTTP/1.1 418 I'm a teapot\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
