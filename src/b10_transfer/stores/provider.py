"""The provider's own variables, where obstore would stumble over what is in them: it panics, or says nothing useful."""

from __future__ import annotations

import re

from ..errors import StoreError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

_PREFIXES = {"s3": "AWS_", "s3a": "AWS_", "gs": "GOOGLE_", "az": "AZURE_", "abfs": "AZURE_", "abfss": "AZURE_"}
"""Of the variables that are read for a URL of this scheme."""
_ENDPOINTS = (
    "AWS_ENDPOINT",
    "AWS_ENDPOINT_URL",
    "AWS_ENDPOINT_URL_S3",
    "AZURE_ENDPOINT",
    "AZURE_STORAGE_ENDPOINT",
    "GOOGLE_BASE_URL",
)
_IN_REQUESTS = (
    "AWS_ACCESS_KEY_ID",
    "AWS_DEFAULT_REGION",
    "AWS_REGION",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "AZURE_CLIENT_ID",
    "AZURE_CLIENT_SECRET",
    "AZURE_STORAGE_ACCOUNT_KEY",
    "AZURE_STORAGE_ACCOUNT_NAME",
    "AZURE_STORAGE_SAS_KEY",
    "AZURE_TENANT_ID",
    "GOOGLE_BEARER_TOKEN",
)
"""What becomes part of a request, or of what it is signed with."""
_PLAIN = re.compile(r"[!-~]([ -~]*[!-~])?")
_URL = re.compile(r"https?://[!-~]+")


def check_variables(url: str, environ: Mapping[str, str]) -> None:
    """Raise StoreError, which names the variable, if one for this URL cannot be meant. No secret is repeated."""
    for name in _IN_REQUESTS:
        if _concerns(name, url) and (value := environ.get(name)) and not _PLAIN.fullmatch(value):
            raise StoreError(
                "reach",
                url,
                f"{name} has a line break or a blank at an end, or a character that no request can hold; set it to the "
                "value alone (a secret that was made with echo ends in a line break)",
            )
    for name in _ENDPOINTS:
        if _concerns(name, url) and (value := environ.get(name)) and not _URL.fullmatch(value):
            shown = repr(value.rpartition("@")[2])
            raise StoreError("reach", url, f"{name} is {shown}; it must be a URL: https://host or http://host:port")


def is_plain_http(url: str, environ: Mapping[str, str]) -> bool:
    """Whether an endpoint is asked for that is to be spoken to without encryption."""
    return any(_concerns(name, url) and environ.get(name, "").startswith("http://") for name in _ENDPOINTS)


def _concerns(name: str, url: str) -> bool:
    return name.startswith(_PREFIXES[url.partition("://")[0]])
