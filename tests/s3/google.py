"""Google's protocol on loopback, as far as obstore speaks it: that of S3, but for who may, and the name of a condition.

A proxy translates the name and drops the token: whoever asks is nobody in particular. What Google's own service says
where it refuses something cannot be had here.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from .proxy import Pass, Proxy, Request

_CONDITION = "x-goog-if-generation-match"


@contextmanager
def google(port: int) -> Iterator[dict[str, str]]:
    """The environment in which ``gs://`` is the gateway at a port, whose buckets must be open to everybody."""
    with Proxy(port) as proxy:
        proxy.rule = _as_s3
        yield {"GOOGLE_BASE_URL": proxy.endpoint, "GOOGLE_BEARER_TOKEN": "anybody"}


def _as_s3(request: Request) -> Pass:
    """Generation 0 is that of an object that does not exist."""
    is_creation = f"{_CONDITION}: 0" in request.headers
    return Pass(
        without_headers=("authorization", _CONDITION),
        with_headers=("If-None-Match: *",) if is_creation else (),
    )
