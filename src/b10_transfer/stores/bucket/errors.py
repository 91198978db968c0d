"""Maps obstore's errors to this package's errors, with the cause and the advice.

Messages name the object and the cause. They never contain a whole address, because its query may contain a signature.
Nor do they contain the structures that obstore prints below its first line.
"""

from __future__ import annotations

import re

from obstore.exceptions import BaseError, PermissionDeniedError, UnauthenticatedError

from ...errors import ReadOnlyStoreError, StoreError

_ADVICE = {
    "NoSuchBucket": "there is no such bucket; create it, or correct B10_STORE",
    "ContainerNotFound": "there is no such container; create it, or correct B10_STORE",
    "InvalidAccessKeyId": "the access key is not known; check the credentials",
    "SignatureDoesNotMatch": "the secret key is wrong, or region and endpoint do not belong together",
    "AuthenticationFailed": "the credentials are wrong, or this machine's clock is",
    "ExpiredToken": "the credentials have expired",
    "AccessDenied": "access was refused; the credentials lack a permission (needed: list, get, put, delete)",
    "AuthorizationPermissionMismatch": "access was refused; the credentials lack a permission",
    "RequestTimeTooSkewed": "this machine's clock is too far off for the signature to be accepted; set it",
    "AuthorizationHeaderMalformed": "the bucket is in another region; set AWS_REGION",
    "PermanentRedirect": "the bucket is in another region or at another endpoint; set AWS_REGION",
    "QuotaExceeded": "the bucket's quota is used up",
    "SlowDown": "the bucket throttled the request and all retries; raise B10_DEADLINE_SECONDS",
    "ServiceUnavailable": "the service is overloaded, and stayed so; raise B10_DEADLINE_SECONDS",
}
"""The advice for each error code of a bucket."""
_NO_PERMISSION = ("", "AccessDenied", "AuthorizationPermissionMismatch")
_REFUSED = "access was refused; check the credentials and what they may do (needed: list, get, put, delete)"
_IDENTITY = re.compile(
    r"//169\.254\.(?:169|170)\.|//metadata\.google\.internal"
    r"|//[^/ ]+/(?:computeMetadata/|latest/api/token|latest/meta-data/)"
)
"""In addresses of metadata services."""
_LOST = "HTTP error"
_UNSENT = "builder error"
"""In the text of a request that obstore does not even send."""
_CONNECTING = re.compile(r"Error\(\s*Connect,")
"""In the structure that obstore prints: what failed happened before there was a connection."""
_DROPPED = re.compile(r"Error\(\s*Connect,\s*(?:TimedOut|ConnectError\(.*?TimedOut)", re.DOTALL)
_NOBODY = ("ConnectionRefused", "dns error")
_UNTRUSTED = re.compile(r"InvalidCertificate\(\s*(?:Other\(\s*OtherError\(\s*)?(\w+)")
"""The fault of a certificate, in the structure that obstore prints."""
_UNUSABLE = re.compile(
    r'object with invalid path: (?:Error parsing )?Path "(.*?)"(?: contained|: Encountered)', re.DOTALL
)
_NOT_TLS = re.compile(r"InvalidMessage\(\s*InvalidContentType")


class MissingError(StoreError):
    """There is no such object, or no such bucket."""


class UnusableNameError(StoreError):
    """A listing holds a key that is no path, and the client refuses the whole listing."""


class EmptyObjectError(StoreError):
    """An object without content, of which no range can be had."""


class Translation:
    """A context in which obstore's errors become ours."""

    def __init__(self, operation: str, target: str) -> None:
        self._operation = operation
        self._target = target

    def __enter__(self) -> None:
        pass

    def __exit__(self, _type: object, error: BaseException | None, _traceback: object) -> None:
        if error is None or isinstance(error, StoreError) or not isinstance(error, BaseError | OSError | ValueError):
            return
        kind, detail = _meaning(error)
        if self._operation == "write" and kind is StoreError and _lacks_permission(error):
            kind = ReadOnlyStoreError
        raise kind(self._operation, self._target, detail) from error


class Failure:
    """The properties of a failed request. Only this class reads the text of obstore's error."""

    __slots__ = ("_error", "_line", "_status", "_text")

    def __init__(self, error: BaseException) -> None:
        self._error = error
        self._text = str(error)
        self._line = _first_line(error)
        self._status = _status(error)

    @property
    def is_lost(self) -> bool:
        """Whether a connection failed, so that the outcome of the request is unknown."""
        return _LOST in self._line and _UNSENT not in self._line

    @property
    def was_reached(self) -> bool:
        """Whether a server answered, even if the connection failed afterwards."""
        if self.is_identity or _UNSENT in self._line:
            return False
        return not (self.is_lost and _CONNECTING.search(self._text))

    @property
    def is_unreached(self) -> bool:
        """Whether nothing accepts connections there: the port is closed, or the name of the host unknown."""
        return self.is_lost and any(mark in self._text for mark in _NOBODY)

    @property
    def is_dropped(self) -> bool:
        """Whether a connection attempt got no answer, as when a firewall drops its packets."""
        return self.is_lost and _DROPPED.search(self._text) is not None

    @property
    def is_mistrusted(self) -> bool:
        """Whether the server's certificate is not trusted, or the server does not speak TLS."""
        return self.is_lost and any(mark.search(self._text) for mark in (_UNTRUSTED, _NOT_TLS))

    @property
    def is_identity(self) -> bool:
        """Whether the request went to the metadata service, not to the bucket."""
        return _IDENTITY.search(self._line) is not None

    @property
    def is_throttled(self) -> bool:
        """Whether the bucket refuses requests because there are too many."""
        return self._status.startswith(("503", "429"))

    @property
    def is_repeatable(self) -> bool:
        """Whether the same request may succeed later: no answer, or that of a server in trouble or under load."""
        return self.is_lost or self._status[:1] == "5" or self._status.startswith(("429", "408", "409"))

    @property
    def is_unsupported(self) -> bool:
        """Whether the bucket does not know a condition of the request."""
        return _code(self._error) == "NotImplemented"


def classify(error: BaseException) -> Failure:
    """Classify an error of obstore."""
    return Failure(error)


def _meaning(error: BaseException) -> tuple[type[StoreError], str]:
    code = _code(error)
    if found := _UNUSABLE.search(str(error)):
        advice = "delete this object: no name in a store has an empty component, '.', '..' or a control character"
        return UnusableNameError, f"the bucket holds an object named {found[1]!a:.300}; {advice}"
    if code in _ADVICE:
        return StoreError, f"{_ADVICE[code]} ({code})"
    if classify(error).is_identity:
        return StoreError, "there are no credentials: neither in the environment nor as this machine's identity"
    if isinstance(error, FileNotFoundError):
        return MissingError, "there is no such object"
    if code == "InvalidRange":
        return EmptyObjectError, "it is empty"
    answered = _status(error).rstrip(": ")
    if isinstance(error, PermissionDeniedError | UnauthenticatedError):
        return StoreError, f"{_REFUSED} ({code or answered or 'no reason was given'})"
    if answered:
        return StoreError, f"the bucket answered {answered}" + (f" ({code})" if code else "")
    return StoreError, _unanswered(error)


def _lacks_permission(error: BaseException) -> bool:
    """Whether valid credentials do not allow a request."""
    return isinstance(error, PermissionDeniedError) and _code(error) in _NO_PERMISSION


def _unanswered(error: BaseException) -> str:
    """The message for a request without an answer."""
    line = _first_line(error)
    if _UNSENT in line:
        return f"no request can be made{_endpoint(line)}; check endpoint and credentials, and SSL_CERT_FILE if set"
    if wrong := _UNTRUSTED.search(str(error)):
        advice = (
            "for an authority of your own have SSL_CERT_FILE name a bundle of the system's certificates and that one's"
        )
        return f"the certificate of the endpoint{_endpoint(line)} is not trusted ({wrong[1]}); {advice}"
    if _NOT_TLS.search(str(error)):
        return f"the endpoint{_endpoint(line)} does not speak TLS; if it is meant to be plain, it begins with http://"
    if _LOST in line:
        return f"{_failure(error)}{_endpoint(line)}; check the endpoint, the network and the service"
    if "redirect" in line:
        return _ADVICE["PermanentRedirect"]
    return _without_addresses(line)


def _status(error: BaseException) -> str:
    """The HTTP status that was answered, as obstore words it; empty if there is none."""
    return _first_line(error).partition("non-2xx status code: ")[2]


def _code(error: BaseException) -> str:
    """The error code in a bucket's answer (S3, Azure); empty if there is none."""
    _before, _tag, rest = str(error).partition("<Code>")
    return rest.partition("</Code>")[0][:100]


def _first_line(error: BaseException) -> str:
    """The first line of an error, without the answer's body and the structure below it."""
    return str(error).partition("\n")[0].partition("<?xml")[0][:1000].rstrip(": ")


def _failure(error: BaseException) -> str:
    """The failure of a connection, in the operating system's words if obstore has them."""
    structure = str(error).partition("Debug source")[2]
    for mark in ('message: "', 'error: "'):
        said = structure.rpartition(mark)[2].partition('"')[0] if mark in structure else ""
        if said:
            return said
    return "no answer in time" if "TimedOut" in structure else "the connection failed"


def _endpoint(line: str) -> str:
    """The address that a message names, in brackets: no more of it than the host."""
    scheme, separator, rest = line.partition("://")
    if not separator:
        return ""
    host = rest.partition("/")[0].partition("?")[0].partition(" ")[0].rpartition("@")[2]
    return f" ({scheme.rpartition(' ')[2]}://{host})"


def _without_addresses(line: str) -> str:
    """The first line of an error without quoted values and addresses: they may contain a key."""
    line = re.sub(r'"[^"]*"', '"…"', line)
    return " ".join("(address)" if "://" in word else word for word in line.split())[:300]
