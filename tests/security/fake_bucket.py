"""A bucket of S3's protocol in this process, as far as the product asks for it, in which a test can put anything."""

from __future__ import annotations

import http.server
import re
import threading
import urllib.parse
from bisect import bisect_left, bisect_right
from datetime import datetime, timezone
from typing import ClassVar
from xml.sax.saxutils import escape, unescape


def now() -> str:
    return datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z"


class FakeBucket:
    """Objects by key: content and time. ``may_delete`` False refuses deletions, ``requests`` counts what was asked.

    So many of the next reads are refused as ``throttled``.
    """

    def __init__(self) -> None:
        self.objects: dict[str, tuple[bytes, str]] = {}
        self.may_delete = True
        self.requests = 0
        self.throttled = 0
        handler = type("Handler", (_Handler,), {"bucket": self})
        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def variables(self, deadline_s: int) -> dict[str, str]:
        """The variables of a pod whose store is this bucket."""
        return {
            "AWS_ENDPOINT_URL": self.url,
            "AWS_ACCESS_KEY_ID": "id",
            "AWS_SECRET_ACCESS_KEY": "secret",
            "AWS_REGION": "us-east-1",
            "B10_STORE": "s3://bucket/prefix",
            "B10_CACHES": "triton",
            "B10_DEADLINE_SECONDS": str(deadline_s),
        }

    def put(self, key: str, content: bytes = b"", modified: str = "") -> None:
        self.objects[key] = (content, modified or now())

    def keys(self, part: str) -> list[str]:
        return [key for key in self.objects if part in key]

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    bucket: ClassVar[FakeBucket]

    def log_message(self, *_: object) -> None:
        """Silence."""

    def do_GET(self) -> None:
        key, query = self._asked()
        if self.bucket.throttled:
            self.bucket.throttled -= 1
            return self._refuse(503, "SlowDown")
        if "list-type" in query:
            return self._list(query)
        if key not in self.bucket.objects:
            return self._refuse(404, "NoSuchKey")
        content, _time = self.bucket.objects[key]
        wanted = self.headers.get("Range")
        if wanted is None:
            return self._answer(200, content, {"ETag": '"x"', "Last-Modified": _http_date()})
        first, last = wanted.removeprefix("bytes=").split("-")
        start = int(first) if first else max(len(content) - int(last), 0)
        end = min(int(last) + 1 if first else len(content), len(content))
        if start >= len(content):
            return self._refuse(416, "InvalidRange")
        headers = {
            "Content-Range": f"bytes {start}-{end - 1}/{len(content)}",
            "ETag": '"x"',
            "Last-Modified": _http_date(),
        }
        return self._answer(206, content[start:end], headers)

    do_HEAD = do_GET  # noqa: N815 - http.server's names

    def do_PUT(self) -> None:
        key, _query = self._asked()
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.headers.get("If-None-Match") == "*" and key in self.bucket.objects:
            return self._refuse(412, "PreconditionFailed")
        self.bucket.put(key, body)
        return self._answer(200, b"", {"ETag": '"x"'})

    def do_DELETE(self) -> None:
        key, _query = self._asked()
        if not self.bucket.may_delete:
            return self._refuse(403, "AccessDenied")
        self.bucket.objects.pop(key, None)
        return self._answer(204, b"", {})

    def do_POST(self) -> None:
        """Delete several objects."""
        self._asked()
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0)).decode()
        result = ""
        for key in map(unescape, re.findall(r"<Key>(.*?)</Key>", body, re.DOTALL)):
            if self.bucket.may_delete:
                self.bucket.objects.pop(key, None)
                result += f"<Deleted><Key>{escape(key)}</Key></Deleted>"
            else:
                result += f"<Error><Key>{escape(key)}</Key><Code>AccessDenied</Code><Message>no</Message></Error>"
        return self._answer(200, f"<DeleteResult>{result}</DeleteResult>".encode(), {})

    def _asked(self) -> tuple[str, dict[str, str]]:
        self.bucket.requests += 1
        address = urllib.parse.urlsplit(self.path)
        key = urllib.parse.unquote(address.path.lstrip("/").partition("/")[2])
        return key, dict(urllib.parse.parse_qsl(address.query, keep_blank_values=True))

    def _list(self, query: dict[str, str]) -> None:
        prefix, delimiter = query.get("prefix", ""), query.get("delimiter")
        start = query.get("continuation-token") or query.get("start-after", "")
        names: list[str] = []
        folders: set[str] = set()
        keys = sorted(self.bucket.objects.copy())
        for key in keys[max(bisect_left(keys, prefix), bisect_right(keys, start)) :]:
            rest = key[len(prefix) :]
            if not key.startswith(prefix) or len(names) > 1000:
                break
            if delimiter and delimiter in rest:
                folders.add(prefix + rest.partition(delimiter)[0] + delimiter)
            else:
                names.append(key)
        page = names[:1000]
        items = "".join(
            f"<Contents><Key>{escape(key)}</Key><LastModified>{self.bucket.objects[key][1]}</LastModified>"
            f'<ETag>"x"</ETag><Size>{len(self.bucket.objects[key][0])}</Size></Contents>'
            for key in page
            if key in self.bucket.objects
        )
        items += "".join(f"<CommonPrefixes><Prefix>{escape(key)}</Prefix></CommonPrefixes>" for key in sorted(folders))
        more = f"<NextContinuationToken>{escape(page[-1])}</NextContinuationToken>" if len(names) > 1000 else ""
        truncated = f"<IsTruncated>{'true' if more else 'false'}</IsTruncated>"
        self._answer(200, f"<ListBucketResult>{truncated}{more}{items}</ListBucketResult>".encode(), {})

    def _refuse(self, status: int, code: str) -> None:
        self._answer(status, f"<Error><Code>{code}</Code><Message>no</Message></Error>".encode(), {})

    def _answer(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


def _http_date() -> str:
    return datetime.now(timezone.utc).strftime("%a, %d %b %Y %H:%M:%S GMT")
