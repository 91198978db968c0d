"""Messages that this process logs once, however often it meets their cause."""

from __future__ import annotations

import logging

from .errors import printable

_MOST_REMEMBERED = 1000
"""A process that meets more causes than this logs the later ones each time."""


class Notices:
    """Remembers which messages were logged."""

    def __init__(self) -> None:
        self._logged: set[tuple[str, str]] = set()

    def log(self, logger: logging.Logger, level: int, message: str, cause: str = "") -> None:
        """Log a message at ``level`` the first time, and at DEBUG every other time.

        Args:
            logger: Where to log.
            level: The level of the first message.
            message: The message.
            cause: What messages of several modules have in common. Default: each message is about a cause of its own.
        """
        message = printable(message)
        is_new = self.remember(cause) if cause else self._remember(logger.name, message)
        logger.log(level if is_new else logging.DEBUG, "%s", message)

    def remember(self, cause: str) -> bool:
        """Note that a cause was logged, for example in the result of an operation; False if it was noted before."""
        return self._remember("", cause)

    def forget(self) -> None:
        """Log every message again. For tests."""
        self._logged.clear()

    def _remember(self, module: str, text: str) -> bool:
        is_new = (module, text) not in self._logged
        if is_new and len(self._logged) < _MOST_REMEMBERED:
            self._logged.add((module, text))
        return is_new


notices = Notices()
"""The messages of this process."""
