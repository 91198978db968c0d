"""The names of the published b10-transfer 0.4.1 that programs may use, each as it is documented there.

A new program uses :func:`~b10_transfer.load` and :func:`~b10_transfer.save`, whose reports say more, and the command
``b10-compile-cache``. Differences to 0.4.1: the environment key holds more than the name of the GPU, a store holds any
number of archives (packs) for each environment, ``B10_NAMESPACE`` is one more level, and ``BASETEN_FS_ENABLED`` has no
effect.
"""

from __future__ import annotations

import logging
import os
import secrets
import shutil
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

from .concurrency.deadline import Deadline
from .config import MB, Config
from .config.launcher import LauncherConfig
from .environment import detect
from .errors import CacheError, CacheOperationInterrupted, CacheValidationError, LocalCacheError
from .inspection.bounded import bounded, open_store
from .inspection.info import inspect_pod
from .launcher.server import address_of, find_external_server, serves
from .maintenance.clear import clear_caches
from .operations.public import load, save
from .repository.catalogue import Catalogue
from .repository.layout import VERSION
from .status import OperationStatus

__all__ = [
    "CacheError",
    "CacheOperationInterrupted",
    "CacheValidationError",
    "clear_local_cache",
    "get_b10_logger",
    "get_cache_info",
    "list_available_caches",
    "save_vllm_compile_cache",
    "transfer",
]

logger = logging.getLogger(__name__)

T = TypeVar("T")
_COPY_BYTES = 4 * 1024 * 1024
_DEFAULT_URL = "http://127.0.0.1:8000/v1/models"
_COLOURS = {logging.WARNING: "\033[33m", logging.ERROR: "\033[31m", logging.CRITICAL: "\033[31m"}


def get_cache_info() -> dict[str, Any]:
    """Describe the caches of this pod and of the store.

    Returns:
        ``environment_key``; ``local_cache_exists``; ``local_cache_size_mb`` (in MiB, only if a local cache exists);
        ``b10fs_enabled`` (whether the store can be read); ``b10fs_cache_exists`` (whether it has usable packs for this
        pod); ``b10fs_cache_size_mb`` (their size in the store in MiB, only if they exist).

    Raises:
        KeyboardInterrupt, SystemExit: The program is to stop. No other exception leaves this function.

    Example:
        >>> from b10_transfer import get_cache_info
        >>> get_cache_info()["b10fs_cache_exists"]
        True
    """
    found: dict[str, Any] = {
        "environment_key": _or("", lambda: detect().id),
        "local_cache_exists": False,
        "b10fs_enabled": False,
        "b10fs_cache_exists": False,
    }
    info = _or(None, inspect_pod)
    if info is None:
        return found
    if info.store_error:
        logger.error("get_cache_info: %s", info.store_error)
    found["local_cache_exists"] = any(cache.in_use for cache in info.caches)
    found["b10fs_enabled"] = not info.store_error
    found["b10fs_cache_exists"] = bool(info.packs)
    if found["local_cache_exists"]:
        found["local_cache_size_mb"] = sum(cache.bytes for cache in info.caches) / MB
    if found["b10fs_cache_exists"]:
        listed = list_available_caches()["caches"]
        found["b10fs_cache_size_mb"] = sum(cache["size_mb"] for cache in listed if cache["is_current_environment"])
    return found


def list_available_caches() -> dict[str, Any]:
    """List the packs of this namespace.

    Returns:
        ``caches``: for each pack, newest first, its ``filename``, ``environment_key``, ``size_mb`` (in MiB),
        ``is_current_environment`` and ``created_time`` (seconds since 1970). Also ``current_environment``,
        ``total_caches``, ``current_cache_exists``, ``b10fs_enabled`` (whether the store can be read) and, if not,
        ``error``.

    Raises:
        KeyboardInterrupt, SystemExit: The program is to stop. No other exception leaves this function.

    Example:
        >>> from b10_transfer import list_available_caches
        >>> list_available_caches()["total_caches"]
        1
    """
    environment_id = _or("", lambda: detect().id)
    caches: list[dict[str, Any]] = []
    error = ""
    try:
        caches = bounded("list_available_caches", lambda deadline: _packs(environment_id, deadline))
    except Exception as failure:  # noqa: BLE001 - an edge
        logger.error("list_available_caches: %s", failure)
        error = str(failure)
    found: dict[str, Any] = {
        "caches": sorted(caches, key=lambda cache: cache["created_time"], reverse=True),
        "current_environment": environment_id,
        "total_caches": len(caches),
        "current_cache_exists": any(cache["is_current_environment"] for cache in caches),
        "b10fs_enabled": not error,
    }
    return found | {"error": error} if error else found


def _packs(current: str, deadline: Deadline) -> list[dict[str, Any]]:
    """The packs of every environment in the namespace, from listings only."""
    config = Config.from_environment()
    found = []
    with open_store(config, deadline) as store:
        catalogue = Catalogue(store, config, deadline)
        store.list(VERSION)  # raises if the store cannot be reached, where a namespace that is not there would not
        for environment_id in catalogue.environments(config.namespace):
            repository = catalogue.repository(config.namespace, environment_id)
            found += [
                {
                    "filename": info.name.rpartition("/")[2],
                    "environment_key": environment_id,
                    "size_mb": info.size_bytes / MB,
                    "is_current_environment": environment_id == current,
                    "created_time": info.modified_s,
                }
                for info in repository.look().usable.values()
            ]
    return found


def clear_local_cache() -> bool:
    """Remove the artifacts of this pod's caches. Directories, locks and files that no compiler wrote stay.

    Returns:
        Whether no artifact is left. The log names those that could not be removed.

    Raises:
        KeyboardInterrupt, SystemExit: The program is to stop. No other exception leaves this function.

    Example:
        >>> from b10_transfer import clear_local_cache
        >>> clear_local_cache()
        True
    """
    cleared = _or(None, clear_caches)
    if cleared is None:
        return False
    for error in (error for cache in cleared for error in cache.errors):
        logger.error("clear_local_cache: %s", error)
    return not any(cache.errors for cache in cleared)


def transfer(source: str, dest: str) -> OperationStatus:
    """Copy a file, with its times and mode. ``dest`` is replaced whole or not at all.

    Args:
        source: The file.
        dest: The copy, or the directory that it goes into. Missing directories are created.

    Returns:
        SUCCESS, or ERROR: there is no such file, too little space, or no time (``B10_DEADLINE_SECONDS``, 60 by
        default). A file system that hangs may delay the exit of the process.

    Raises:
        KeyboardInterrupt, SystemExit: The program is to stop. No other exception leaves this function.

    Example:
        >>> import pathlib
        >>> from b10_transfer import transfer
        >>> _ = pathlib.Path("weights.bin").write_bytes(b"weights")
        >>> transfer("weights.bin", "copy/weights.bin").name
        'SUCCESS'
    """

    def work(deadline: Deadline) -> OperationStatus:
        try:
            _copy(Path(source), Path(dest), deadline)
        except OSError as error:
            raise LocalCacheError("copy", f"{source} to {dest}", error.strerror or str(error)) from error
        return OperationStatus.SUCCESS

    return _or(OperationStatus.ERROR, lambda: bounded("transfer", work))


def _copy(source: Path, dest: Path, deadline: Deadline) -> None:
    deadline.check(f"copying {source} to {dest}")
    with open(source, "rb") as original:
        target = dest / source.name if dest.is_dir() else dest
        target.parent.mkdir(parents=True, exist_ok=True)
        needed, free = os.fstat(original.fileno()).st_size, shutil.disk_usage(target.parent).free
        if needed > free:
            raise CacheOperationInterrupted(f"{target.parent} has {free} bytes free, and {source} has {needed}")
        staged = target.parent / f".{target.name}.b10-{secrets.token_hex(8)}"
        try:
            with open(staged, "xb") as copy:
                _copy_content(original, copy, deadline)
            shutil.copystat(source, staged)
            os.replace(staged, target)
        finally:
            with suppress(FileNotFoundError):
                os.unlink(staged)


def _copy_content(original: BinaryIO, copy: BinaryIO, deadline: Deadline) -> None:
    while part := original.read(_COPY_BYTES):
        deadline.check()
        copy.write(part)


def save_vllm_compile_cache() -> None:
    """Load, wait until the vLLM server on this machine is ready, and save.

    ``b10-compile-cache run`` does more: it restores before the server starts, and saves late compilations too.

    Settings: ``B10_TRANSFER_VLLM_URL`` (by default the server that is found, else port 8000),
    ``B10_TRANSFER_TIMEOUT_S`` (seconds to wait, 1800 by default; after them, finished artifacts are saved) and
    ``B10_TRANSFER_INTERVAL_S`` (seconds between two requests, 2 by default).

    Raises:
        KeyboardInterrupt, SystemExit: The program is to stop. No other exception leaves this function.
    """
    config = LauncherConfig.from_environment()
    # merge=True: the server may already have written to its caches.
    load(merge=True)
    until = time.monotonic() + config.timeout_s
    while not serves(config.url or _url_of_the_server_beside()):
        if time.monotonic() >= until:
            logger.error("no server answered within B10_TRANSFER_TIMEOUT_S, %g s", config.timeout_s)
            break
        time.sleep(config.interval_s)
    save()


def _url_of_the_server_beside() -> str:
    server = find_external_server()
    return (server and address_of(server.arguments)) or _DEFAULT_URL


def get_b10_logger(name: str) -> logging.Logger:
    """Create a logger that writes to stderr.

    Args:
        name: Name of the logger.

    Returns:
        The logger, at level INFO. It marks each line with ``[b10-transfer]``, in colour on a terminal. A second call
        with the same name returns the same logger, which still writes each line once.

    Example:
        >>> from b10_transfer import get_b10_logger
        >>> get_b10_logger("my-program").getEffectiveLevel()
        20
    """
    found = logging.getLogger(name)
    if not any(isinstance(handler.formatter, _Formatter) for handler in found.handlers):
        handler = logging.StreamHandler()
        handler.setFormatter(_Formatter("%(levelname)s - [b10-transfer] %(message)s"))
        found.addHandler(handler)
        found.setLevel(logging.INFO)
        found.propagate = False
    return found


class _Formatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        text = super().format(record)
        colour = _COLOURS.get(record.levelno, "\033[36m")
        return f"{colour}{text}\033[0m" if sys.stderr.isatty() else text


def _or(default: T, function: Callable[[], T]) -> T:
    """Call a function; if it raises, log an ERROR and return the default."""
    try:
        return function()
    except Exception as error:
        logger.error("%s", error, exc_info=None if isinstance(error, CacheError) else error)
        return default
