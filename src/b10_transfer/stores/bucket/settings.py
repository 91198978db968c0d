"""The provider's own variables, where obstore would panic at what is in them, or say nothing that helps.

What cannot work is refused, or works by chance: which of two variables for one thing is read depends on their order in
the environment. No value is repeated: it may be a secret, or hold one.
"""

from __future__ import annotations

import re

from ...errors import StoreError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_PREFIXES = {"s3": "AWS_", "s3a": "AWS_", "gs": "GOOGLE_", "az": "AZURE_", "abfs": "AZURE_", "abfss": "AZURE_"}
"""Of the variables that are read for a URL of this scheme."""
_IN_REQUESTS = (
    "AWS_ACCESS_KEY_ID",
    "AWS_REGION",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "AWS_TOKEN",
    "AZURE_AUTHORITY_ID",
    "AZURE_CLIENT_SECRET",
    "AZURE_STORAGE_ACCESS_KEY",
    "AZURE_STORAGE_ACCOUNT_KEY",
    "AZURE_STORAGE_AUTHORITY_ID",
    "AZURE_STORAGE_MASTER_KEY",
    "AZURE_STORAGE_TENANT_ID",
    "AZURE_STORAGE_TOKEN",
    "AZURE_TENANT_ID",
    "GOOGLE_BEARER_TOKEN",
)
"""Variables that become part of a request or sign it."""
_ENDPOINTS = (
    "AWS_ENDPOINT_URL_S3",
    "AWS_ENDPOINT_URL",
    "AWS_ENDPOINT",
    "AZURE_STORAGE_ENDPOINT",
    "AZURE_ENDPOINT",
    "GOOGLE_BASE_URL",
)
_PATHS = ("GOOGLE_APPLICATION_CREDENTIALS", "GOOGLE_SERVICE_ACCOUNT")
_CONTROL = re.compile(r"[\0-\x1f\x7f]")
_URL = re.compile(r"https?://[!-~]+", re.IGNORECASE)


def check_variables(url: str, environ: Mapping[str, str]) -> None:
    """Raise StoreError, which names the variable, if one that is read for this URL cannot be meant."""
    read = _read_for(url, environ)
    for name in _IN_REQUESTS:
        if _CONTROL.search(read.get(name, "")):
            raise StoreError(
                "reach",
                url,
                f"{name} has a line break or another control character, which no request can carry; set it to the "
                "value alone (a file that echo has written ends in a line break)",
            )
    for name in _PATHS:
        if "{" in read.get(name, ""):
            rule = "it must be the path of a file; what that holds goes into GOOGLE_SERVICE_ACCOUNT_KEY"
            raise StoreError("reach", url, f"{name} is no path; {rule}")
    for name, endpoint in _endpoints(read):
        if not _URL.fullmatch(endpoint):
            rule = "it must be a URL and nothing else, https://host or http://host:port, or not be set"
            raise StoreError("reach", url, f"{name} is no endpoint; {rule}")


def is_plain_http(url: str, environ: Mapping[str, str]) -> bool:
    """Whether the configured endpoint is plain HTTP."""
    return any(endpoint.lower().startswith("http://") for _name, endpoint in _endpoints(_read_for(url, environ)))


def _read_for(url: str, environ: Mapping[str, str]) -> dict[str, str]:
    """The variables of the provider of a URL."""
    prefix = _PREFIXES[url.partition("://")[0]]
    return {name: value for name, value in environ.items() if name.startswith(prefix)}


def _endpoints(read: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """The variables that are set, and what they name."""
    for name in _ENDPOINTS:
        if name in read:
            # Azure's client takes no notice of a line break here.
            yield name, read[name].strip() if name.startswith("AZURE_") else read[name]
            if name == "AWS_ENDPOINT_URL_S3":
                return  # where it is set the others are not looked at
