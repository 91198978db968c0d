"""The setting that says where the store is."""

from __future__ import annotations

import logging
import os
import re
from pathlib import Path

from ..concurrency.forks import no_fork
from ..errors import ConfigurationError
from ..notices import notices
from .plugins import STORES, Plugin, installed
from .reader import EnvReader, from_working_directory, is_below, real_path, temporary_directory

logger = logging.getLogger(__name__)

MOUNT = Path("/cache/model")
"""Where a shared volume is expected when no store is configured."""


_BUCKETS = ("s3", "s3a", "gs", "az", "abfs", "abfss")
"""Schemes that obstore handles."""
_SCHEME = re.compile(r"[a-z][a-z0-9+.-]*", re.ASCII)


class BucketUrl(str):
    """The URL of a store in a bucket: ``s3://bucket/prefix``."""

    __slots__ = ()


class PluginUrl(str):
    """The URL of a store that another package adds: ``myscheme://…``."""

    plugin: Plugin

    @classmethod
    def of(cls, url: str, plugin: Plugin) -> PluginUrl:
        """The URL of a store that a plugin opens."""
        found = cls(url)
        found.plugin = plugin
        return found


def locate(env: EnvReader, override: str | os.PathLike[str] | None) -> tuple[Path | BucketUrl | PluginUrl, bool]:
    """Find the store that the settings choose. Touches no mount, because it may hang.

    Args:
        env: The variables.
        override: A directory or URL, instead of the variables.

    Returns:
        The store's absolute path or its URL, and whether the first save may create missing parents of the path.

    Raises:
        ConfigurationError: The setting is not usable.
    """
    text = os.fspath(override) if override is not None else env.text("B10_STORE")
    if text is not None:
        name = "B10_STORE" if override is None else "store"
        if (url := _bucket_url(name, text) or _plugin_url(name, text)) is not None:
            return url, False
    if override is not None:
        path = _store_path("store", os.fspath(override))
    elif (text := env.text("B10_STORE")) is not None:
        if "://" not in text and not os.path.isabs(os.path.expanduser(text)):
            # Processes with another working directory would use another store.
            raise ConfigurationError("B10_STORE", text, "it must be an absolute path or a URL")
        path = _store_path("B10_STORE", text)
    elif (text := env.text("B10FS_CACHE_DIR")) is not None:
        path = _store_path("B10FS_CACHE_DIR", text)
    elif _has_mount():
        path = MOUNT / "compile_cache"
    else:
        return _embedded_store(), True
    return path, MOUNT in path.parents


def expects_mount(env: EnvReader, store: Path | BucketUrl | PluginUrl) -> bool:
    """Whether a shared volume is expected at the place of a store.

    It is below ``/cache/model``. In Kubernetes it is anywhere but in a home or a directory for temporary files: what a
    demo or a single pod uses there is meant to be local.
    """
    if not isinstance(store, Path):
        return False
    if MOUNT in store.parents:
        return True
    local = [Path(temporary_directory()), Path("/tmp"), Path("/var/tmp"), Path(os.path.expanduser("~"))]
    return env.text("KUBERNETES_SERVICE_HOST") is not None and not is_below(store, local)


def origin(env: EnvReader, override: str | os.PathLike[str] | None) -> str:
    """The setting that chose the store, in words."""
    if override is not None:
        return "given to this command"
    for name in ("B10_STORE", "B10FS_CACHE_DIR"):
        if env.text(name) is not None:
            return name
    return f"the volume at {MOUNT}" if _has_mount() else "the default; it is not shared between machines"


def _store_path(name: str, text: str) -> Path:
    path = _path_of_url(name, text) if re.match(r"[A-Za-z][A-Za-z0-9+.-]*://", text) else text
    if not path or re.search(r"[\0-\x1f]", path):  # a value from a file that ends in a line break, say
        raise ConfigurationError(name, text, "it must be a directory or a file:// URL, without control characters")
    return Path(os.path.normpath(from_working_directory(name, os.path.expanduser(path))))


def _bucket_url(name: str, text: str) -> BucketUrl | None:
    """Parse the URL of a bucket; None if the text is not one. Raises ConfigurationError for an unusable bucket URL."""
    scheme, separator, rest = text.partition("://")
    scheme = scheme.lower()
    if not separator or scheme not in _BUCKETS:
        return None
    bucket, _, prefix = rest.rstrip("/").partition("/")
    plain = re.compile(r"[A-Za-z0-9._][A-Za-z0-9._-]*", re.ASCII)
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._@-]*", bucket, re.ASCII) or not all(
        plain.fullmatch(part) and part not in (".", "..") for part in prefix.split("/") if prefix
    ):
        rule = f"it must be {scheme}://bucket/prefix, of letters, digits, '.', '_' and '-'"
        raise ConfigurationError(name, _without_secret(text), rule)
    return BucketUrl(f"{scheme}://{bucket}/{prefix}".rstrip("/"))


def _plugin_url(name: str, text: str) -> PluginUrl | None:
    """Parse the URL of a plugin's store; None if no plugin has its scheme. Raises ConfigurationError if unusable."""
    scheme, separator, rest = text.partition("://")
    scheme = scheme.lower()
    if not separator or scheme == "file" or not _SCHEME.fullmatch(scheme):
        return None
    plugins = store_plugins()
    for left_out, problem in plugins:
        if problem:
            message = f"the package {left_out.package} adds stores at {left_out.name}://, which is ignored: {problem}"
            notices.log(logger, logging.WARNING, message)
    plugin = next((plugin for plugin, problem in plugins if plugin.name == scheme and not problem), None)
    if plugin is None:
        return None
    if not re.fullmatch(r"[!-~]+", rest) or "@" in rest.partition("/")[0]:
        rule = "after the scheme it must be printable ASCII without blanks, and without credentials before the host"
        raise ConfigurationError(name, _without_secret(text), rule)
    return PluginUrl.of(f"{scheme}://{rest}", plugin)


def store_plugins() -> list[tuple[Plugin, str]]:
    """Find the stores of other packages.

    Returns:
        Each plugin, and why it is ignored; empty if it is not.
    """
    found: list[tuple[Plugin, str]] = []
    for plugin in installed.of(STORES):
        owner = next((other for other, problem in found if other.name == plugin.name and not problem), None)
        if not _SCHEME.fullmatch(plugin.name):
            problem = "a scheme consists of lower-case letters, digits, '+', '.' and '-'"
        elif plugin.name in (*_BUCKETS, "file"):
            problem = "b10-transfer itself has such stores"
        else:
            problem = f"{owner.package} adds them as well" if owner else ""
        found.append((plugin, problem))
    return found


def _without_secret(url: str) -> str:
    """A URL for a message, without credentials before the host."""
    return re.sub(r"//.*@", "//…@", url)


def _path_of_url(name: str, text: str) -> str:
    with no_fork:
        from urllib.parse import unquote, urlsplit  # takes 3 ms, and few programs need it

    try:
        url = urlsplit(text)
    except ValueError as error:
        raise ConfigurationError(name, text, f"it is not a URL ({error})") from error
    if url.scheme != "file":
        raise ConfigurationError(
            name,
            _without_secret(text),
            f"{url.scheme}:// stores are not supported: use a directory, file://, s3://, gs:// or az://, or install "
            f"the package that adds {url.scheme}:// stores",
        )
    if url.netloc not in ("", "localhost"):
        raise ConfigurationError(name, text, "a file:// URL must not name a host (three slashes: file:///mnt/store)")
    if url.query or url.fragment or text.endswith(("?", "#")):
        raise ConfigurationError(name, text, "it must have no query or fragment; in a folder's name write %3F and %23")
    return unquote(url.path)


def _has_mount() -> bool:
    """Whether a volume is mounted at ``/cache/model``. It lists the parent, so that a hung volume is not touched."""
    try:
        return MOUNT.name in os.listdir(MOUNT.parent)
    except OSError:
        return False


def _embedded_store() -> Path:
    path = real_path("~/.cache") / "b10-transfer" / "store"
    notices.log(
        logger,
        logging.INFO,
        f"no store is configured and {MOUNT} does not exist: using {path}, which is not shared between machines "
        "(set B10_STORE to a directory on a shared volume)",
    )
    return path
