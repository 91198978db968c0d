"""The installed obstore words its errors as ``classify`` reads them: each failure here is a real one."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import NamedTuple

import pytest

# In a process of its own: obstore's threads do not survive forks of this one.
_FAIL = """
import json, socket, sys, threading
from datetime import timedelta
import obstore
from obstore.exceptions import BaseError
from obstore.store import S3Store
from b10_transfer.errors import StoreError
from b10_transfer.stores.bucket.errors import Failure, Translation, classify

url, answer, request = sys.argv[1:]
with socket.create_server(("127.0.0.1", 0)) as server:
    def serve():
        while True:
            client, _address = server.accept()
            client.recv(65536)
            if answer != "silence":
                client.sendall(answer.encode())
                client.close()
            else:
                clients.append(client)

    clients = []
    threading.Thread(target=serve, daemon=True).start()
    store = S3Store(
        "bucket",
        endpoint=url.replace("HOST", f"127.0.0.1:{server.getsockname()[1]}"),
        access_key_id="key",
        secret_access_key="secret",
        region="here",
        client_options={"allow_http": True, "read_timeout": timedelta(seconds=1)},
        retry_config={"max_retries": 0, "retry_timeout": timedelta(0)},
    )
    try:
        with Translation("use", "s3://bucket/object"):
            if request == "create":
                obstore.put(store, "object", b"", mode="create")
            elif request == "list":
                obstore.list_with_delimiter(store, "folder")
            else:
                obstore.get(store, "object")
    except StoreError as error:
        failure = classify(error.__cause__)
        kinds = [name for name, value in vars(Failure).items() if isinstance(value, property)]
        true = [name for name in kinds if getattr(failure, name)]
        print(json.dumps([type(error.__cause__).__name__, type(error).__name__, true, error.detail]))
"""


class Case(NamedTuple):
    """A failure, and what is read from it."""

    raised: str
    meanings: set[str]
    detail: str
    answer: str = ""
    url: str = "http://HOST"
    request: str = "get"
    translated: str = "StoreError"


def answered(status: str, code: str = "") -> str:
    body = f'<?xml version="1.0"?><Error><Code>{code}</Code><Message>text</Message></Error>' if code else ""
    return f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n{body}"


LOST = {"is_lost", "is_repeatable"}
CASES = {
    "refused": Case("GenericError", {"is_unreached", *LOST}, "Connection refused", url="http://127.0.0.1:1"),
    "unknown name": Case(
        "GenericError", {"is_unreached", *LOST}, "failed to lookup address", url="http://nowhere.invalid"
    ),
    "silence": Case("GenericError", {"was_reached", *LOST}, "no answer in time (http://127.0.0.1:", "silence"),
    "closed": Case("GenericError", {"was_reached", *LOST}, "the connection failed (http://127.0.0.1:", ""),
    "no TLS": Case(
        "GenericError",
        {"is_mistrusted", *LOST},
        "does not speak TLS",
        answered("400 Bad Request"),
        url="https://HOST",
    ),
    "no object": Case(
        "FileNotFoundError",
        {"was_reached"},
        "no such object",
        answered("404 Not Found", "NoSuchKey"),
        translated="MissingError",
    ),
    "no bucket": Case(
        "GenericError", {"was_reached"}, "no such bucket", answered("404 Not Found", "NoSuchBucket"), request="list"
    ),
    "denied": Case(
        "PermissionDeniedError", {"was_reached"}, "access was refused", answered("403 Forbidden", "AccessDenied")
    ),
    "denied without a reason": Case(
        "PermissionDeniedError",
        {"was_reached"},
        "(403 Forbidden)",
        answered("403 Forbidden"),
    ),
    "empty object": Case(
        "GenericError",
        {"was_reached"},
        "it is empty",
        answered("416 Range Not Satisfiable", "InvalidRange"),
        translated="EmptyObjectError",
    ),
    "throttled": Case(
        "GenericError",
        {"was_reached", "is_throttled", "is_repeatable"},
        "throttled",
        answered("503 Slow Down", "SlowDown"),
    ),
    "broken": Case(
        "GenericError",
        {"was_reached", "is_repeatable"},
        "answered 500 Internal Server Error",
        answered("500 Internal Server Error"),
    ),
    "condition unknown": Case(
        "GenericError",
        {"was_reached", "is_unsupported", "is_repeatable"},
        "answered 501 Not Implemented (NotImplemented)",
        answered("501 Not Implemented", "NotImplemented"),
        request="create",
    ),
    "hostile text": Case(
        "GenericError",
        {"was_reached"},
        r"(Bad\x1b[2J\nINFO all is well)",
        answered("400 Bad Request", "Bad\x1b[2J\nINFO all is well"),
    ),
    "exists": Case(
        "AlreadyExistsError",
        {"was_reached"},
        "answered 412 Precondition Failed",
        answered("412 Precondition Failed", "PreconditionFailed"),
        request="create",
    ),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_error_of_obstore_is_classified(case: Case) -> None:
    arguments = [sys.executable, "-c", _FAIL, case.url, case.answer, case.request]
    done = subprocess.run(arguments, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    raised, translated, meanings, detail = json.loads(done.stdout)
    assert (raised, translated, set(meanings)) == (case.raised, case.translated, case.meanings)
    assert case.detail in detail
    assert "secret" not in detail
