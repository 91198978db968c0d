"""Settings of the command ``b10-compile-cache``.

A wrong value is logged and the default is used, so that the server starts in any case.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass

from ..errors import ConfigurationError
from .reader import EnvReader, Variable

logger = logging.getLogger(__name__)

LAUNCHER_VARIABLES: tuple[Variable, ...] = (
    Variable(
        "B10_TRANSFER_VLLM_URL",
        "`/v1/models` at the server's `--host` and `--port`",
        "an `http://` or `https://` URL",
        "The URL that answers when the server is ready. Set it if the server's arguments do not show its address.",
    ),
    Variable(
        "B10_TRANSFER_TIMEOUT_S",
        "`1800`",
        "a positive number of seconds",
        "How long the command waits until the server is ready. Then it saves as soon as the caches are quiet "
        "(`B10_QUIET_SECONDS`).",
    ),
    Variable(
        "B10_TRANSFER_INTERVAL_S",
        "`2`",
        "a positive number of seconds",
        "How often the command checks whether the server is ready.",
    ),
    Variable(
        "B10_TRANSFER_CLI_LOGLEVEL",
        "`INFO`",
        "`DEBUG`, `INFO`, `WARNING` or `ERROR`",
        "The lowest level of messages that the command writes to stderr.",
    ),
    Variable(
        "B10_LOG_FORMAT",
        "`text`",
        "`text` or `json`",
        "The format of these messages. `json` writes one object a line ([events](cli.md#log-events)).",
    ),
    Variable(
        "B10_QUIET_SECONDS",
        "`15`",
        "a positive number of seconds",
        "After nothing was written to the caches for this long, the command saves what the server compiled later.",
    ),
    Variable(
        "B10_START_WITHIN_SECONDS",
        "`15`",
        "a positive number of seconds",
        "`run` starts the server when the load has ended, but no later than this; a slow load then goes on while the "
        "server starts. vLLM reads its caches 8 s or more after its start. `B10_WAIT_FOR_COMPILE_SECONDS` is added.",
    ),
    Variable(
        "B10_LOADED_FILE",
        "unset",
        "a path",
        "A file that the command creates when the load has ended, with any result. A probe of a sidecar container can "
        "check for it.",
    ),
    Variable(
        "B10_SERVER_DIES_WITH_RUN",
        "`0`",
        "`0` or `1`",
        "With `1` the kernel sends SIGTERM to the server if `run` dies, even by SIGKILL (Linux, `PR_SET_PDEATHSIG`). "
        "With `0` the server goes on if SIGKILL ends `run`.",
    ),
    Variable(
        "B10_LAST_SAVE_SECONDS",
        "`10`",
        "a positive number of seconds",
        "The time limit of the save after the server has ended. Kubernetes kills a pod 30 s after "
        "SIGTERM, and the server uses some of that time.",
    ),
)
"""The variables that only the command reads."""

_LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR")


@dataclass(frozen=True)
class LauncherConfig:
    """Checked settings of the command. Times are in seconds."""

    url: str | None
    timeout_s: float
    interval_s: float
    quiet_s: float
    start_within_s: float
    last_save_s: float
    loaded_file: str | None = None
    server_dies_with_run: bool = False

    @classmethod
    def from_environment(cls, environ: Mapping[str, str] | None = None) -> LauncherConfig:
        """Read every setting. Never raises: a wrong value is logged, and its default is used.

        Args:
            environ: The variables. Default: those of this process.

        Returns:
            The settings. The wait for another replica's compilation is part of ``start_within_s``.
        """
        env = EnvReader(os.environ if environ is None else environ)
        return cls(
            url=_url(env),
            timeout_s=_seconds(env, "B10_TRANSFER_TIMEOUT_S", 1800),
            interval_s=_seconds(env, "B10_TRANSFER_INTERVAL_S", 2),
            quiet_s=_seconds(env, "B10_QUIET_SECONDS", 15),
            # A server that started earlier would compile during the wait.
            start_within_s=_seconds(env, "B10_START_WITHIN_SECONDS", 15) + _wait(env),
            last_save_s=_seconds(env, "B10_LAST_SAVE_SECONDS", 10),
            loaded_file=env.text("B10_LOADED_FILE"),
            server_dies_with_run=_flag(env, "B10_SERVER_DIES_WITH_RUN"),
        )


def _flag(env: EnvReader, name: str) -> bool:
    try:
        return env.flag(name, default=False)
    except ConfigurationError as error:
        _log(error, "0")
        return False


def read_log_level(environ: Mapping[str, str] | None = None) -> str:
    """Read the log level of the command. Never raises: a wrong value is logged, and the result is ``INFO``."""
    name = "B10_TRANSFER_CLI_LOGLEVEL"
    text = EnvReader(os.environ if environ is None else environ).text(name) or "INFO"
    if text.upper() not in _LEVELS:
        _log(ConfigurationError(name, text, f"it must be {', '.join(_LEVELS[:-1])} or {_LEVELS[-1]}"), "INFO")
        return "INFO"
    return text.upper()


def read_log_format(environ: Mapping[str, str] | None = None) -> str:
    """Read the format of the command's log. Never raises: a wrong value is logged, and the result is ``text``."""
    name = "B10_LOG_FORMAT"
    text = EnvReader(os.environ if environ is None else environ).text(name) or "text"
    if text not in ("text", "json"):
        _log(ConfigurationError(name, text, "it must be text or json"), "text")
        return "text"
    return text


def _url(env: EnvReader) -> str | None:
    name = "B10_TRANSFER_VLLM_URL"
    text = env.text(name)
    if text is not None and not text.startswith(("http://", "https://")):
        _log(ConfigurationError(name, text, "it must be an http:// or https:// URL"), "the server's own address")
        return None
    return text


def _seconds(env: EnvReader, name: str, default: float) -> float:
    try:
        return env.seconds(name, default)
    except ConfigurationError as error:
        _log(error, str(default))
        return default


def _wait(env: EnvReader) -> float:
    try:
        return env.seconds_or_zero("B10_WAIT_FOR_COMPILE_SECONDS")
    except ConfigurationError:  # the load logs it
        return 0.0


def _log(error: ConfigurationError, instead: str) -> None:
    logger.error("%s; %s is used instead", error, instead)
