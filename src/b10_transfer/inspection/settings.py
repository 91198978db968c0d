"""Checks all settings. An operation stops at the first wrong one."""

from __future__ import annotations

import difflib
import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from ..adapters import all_adapters, locate_caches
from ..config import VARIABLES, Config, read_deadline
from ..config.launcher import LAUNCHER_VARIABLES, LauncherConfig, read_log_format, read_log_level
from ..errors import ConfigurationError
from ..repository.signing import signing_key, trusted_keys
from .checks import Check, ok, problem, warning

_NAME = "settings"
_OF_THE_STORE = {"B10_STORE", "B10FS_CACHE_DIR", "B10_NAMESPACE"}
_OURS = ("B10_", "B10FS_")


def check_settings(
    environ: Mapping[str, str], namespace: str | None, store: str | os.PathLike[str] | None
) -> tuple[Config | None, list[Check]]:
    """Check every setting.

    Args:
        environ: The variables.
        namespace: Overrides ``B10_NAMESPACE``.
        store: Overrides ``B10_STORE``.

    Returns:
        The settings, with defaults in place of wrong values, and the checks. The settings are None if the default would
        mean another store or namespace.

    Raises:
        ConfigurationError: ``namespace`` or ``store`` is not usable.
    """
    usable = dict(environ)
    checks: list[Check] = []
    with _logged() as messages:
        while True:
            try:
                config = Config.from_environment(usable, namespace=namespace, store=store)
                refused = locate_caches(config).refused
                read_deadline(None, usable)
                signing_key(config)
                trusted_keys(config)
                break
            except ConfigurationError as error:
                if error.variable not in usable:
                    raise
                checks.append(problem(_NAME, str(error), f"correct {error.variable}, or unset it"))
                del usable[error.variable]
        messages.clear()  # messages of the failed attempts
        locate_caches(Config.from_environment(usable, namespace=namespace, store=store))
        LauncherConfig.from_environment(usable)
        read_log_level(usable)
        read_log_format(usable)
    checks += [warning(_NAME, message, "correct it, or unset it") for message in dict.fromkeys(messages)]
    by_text = {str(error): error for error in refused.values()}  # several caches may follow one variable
    checks += [problem(_NAME, text, _correction(error, environ)) for text, error in by_text.items()]
    checks += _misspelt(environ)
    if not checks:
        checks.append(ok(_NAME, "every setting is usable"))
    is_another_store = any(name in environ and name not in usable for name in _OF_THE_STORE)
    return (None if is_another_store else config), checks


def _correction(error: ConfigurationError, environ: Mapping[str, str]) -> str:
    if error.variable in environ:
        return f"correct {error.variable}, or unset it"
    return f"remove what is there, or set {error.variable}"


def _misspelt(environ: Mapping[str, str]) -> Iterator[Check]:
    """Variables whose names nearly are names of settings: nothing else would report them."""
    variables = [
        *VARIABLES,
        *LAUNCHER_VARIABLES,
        *(variable for adapter in all_adapters() for variable in adapter.variables),
    ]
    known = {variable.name for variable in variables}
    for name in sorted(environ):
        if name.startswith(_OURS) and name not in known and (meant := difflib.get_close_matches(name, known, 1, 0.8)):
            yield warning(_NAME, f"{name} is set, but no such setting exists", f"did you mean {meant[0]}?")


@contextmanager
def _logged() -> Iterator[list[str]]:
    """Collect warnings and errors that reading the settings logs, instead of logging them."""
    messages: list[str] = []

    class Collector(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            messages.append(record.getMessage())

    logger = logging.getLogger("b10_transfer.config")
    handler, propagates = Collector(logging.WARNING), logger.propagate
    logger.addHandler(handler)
    logger.propagate = False
    try:
        yield messages
    finally:
        logger.removeHandler(handler)
        logger.propagate = propagates
