"""Settings of the command ``b10-compile-cache``. A wrong value never keeps a server from starting: it is said, and the
default is used."""

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
        "found by itself",
        "an `http://` or `https://` URL",
        "What answers once the server serves. Without it the server's own `--host` and `--port` are used.",
    ),
    Variable(
        "B10_TRANSFER_TIMEOUT_S",
        "`1800`",
        "a positive number of seconds",
        "How long the command waits for a server to serve; after that it goes by the quiet of the caches alone.",
    ),
    Variable(
        "B10_TRANSFER_INTERVAL_S",
        "`2`",
        "a positive number of seconds",
        "How often the command looks whether the server serves.",
    ),
    Variable(
        "B10_TRANSFER_CLI_LOGLEVEL",
        "`INFO`",
        "`DEBUG`, `INFO`, `WARNING` or `ERROR`",
        "What the command writes to stderr.",
    ),
    Variable(
        "B10_QUIET_SECONDS",
        "`15`",
        "a positive number of seconds",
        "Late compiles are saved once nothing has been written to the caches for so long.",
    ),
    Variable(
        "B10_START_WITHIN_SECONDS",
        "`15`",
        "a positive number of seconds",
        "`run` starts the server when the load is over, but no later than this: a slow load goes on beside it. vLLM "
        "first looks at its caches 8 s or more after its start. `B10_WAIT_FOR_COMPILE_SECONDS` comes on top.",
    ),
    Variable(
        "B10_LOADED_FILE",
        "unset",
        "a path",
        "A file that is made once the load is over, whatever came of it: a sidecar container's probe can look for it.",
    ),
    Variable(
        "B10_SERVER_DIES_WITH_RUN",
        "`0`",
        "`0` or `1`",
        "With `1` the kernel sends the server of `run` SIGTERM when `run` dies, by SIGKILL too (Linux, "
        "`PR_SET_PDEATHSIG`). With `0` a server outlives a `run` that SIGKILL ended.",
    ),
    Variable(
        "B10_LAST_SAVE_SECONDS",
        "`10`",
        "a positive number of seconds",
        "Bounds the save after the server has ended. Kubernetes kills a pod 30 s after it asked it to stop, and the "
        "server needs some of them.",
    ),
)
"""What the command reads beside what every load and save reads."""

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
        """Read every setting; what cannot be used is said, and replaced by its default. Never raises."""
        env = EnvReader(os.environ if environ is None else environ)
        return cls(
            url=_url(env),
            timeout_s=_seconds(env, "B10_TRANSFER_TIMEOUT_S", 1800),
            interval_s=_seconds(env, "B10_TRANSFER_INTERVAL_S", 2),
            quiet_s=_seconds(env, "B10_QUIET_SECONDS", 15),
            # A server that started earlier would compile what it was asked to wait for.
            start_within_s=_seconds(env, "B10_START_WITHIN_SECONDS", 15) + _wait(env),
            last_save_s=_seconds(env, "B10_LAST_SAVE_SECONDS", 10),
            loaded_file=env.text("B10_LOADED_FILE"),
            server_dies_with_run=_flag(env, "B10_SERVER_DIES_WITH_RUN"),
        )


def _flag(env: EnvReader, name: str) -> bool:
    try:
        return env.flag(name, default=False)
    except ConfigurationError as error:
        _say(error, "0")
        return False


def read_log_level(environ: Mapping[str, str] | None = None) -> str:
    """The level's name. Never raises."""
    name = "B10_TRANSFER_CLI_LOGLEVEL"
    text = EnvReader(os.environ if environ is None else environ).text(name) or "INFO"
    if text.upper() not in _LEVELS:
        _say(ConfigurationError(name, text, f"it must be {', '.join(_LEVELS[:-1])} or {_LEVELS[-1]}"), "INFO")
        return "INFO"
    return text.upper()


def _url(env: EnvReader) -> str | None:
    name = "B10_TRANSFER_VLLM_URL"
    text = env.text(name)
    if text is not None and not text.startswith(("http://", "https://")):
        _say(ConfigurationError(name, text, "it must be an http:// or https:// URL"), "the server's own address")
        return None
    return text


def _seconds(env: EnvReader, name: str, default: float) -> float:
    try:
        return env.seconds(name, default)
    except ConfigurationError as error:
        _say(error, str(default))
        return default


def _wait(env: EnvReader) -> float:
    try:
        return env.seconds_or_zero("B10_WAIT_FOR_COMPILE_SECONDS")
    except ConfigurationError:  # the load says so
        return 0.0


def _say(error: ConfigurationError, instead: str) -> None:
    logger.error("%s; %s is used instead", error, instead)
