"""Messages that this process logs once, however often it meets their cause."""

from __future__ import annotations

import logging

from .errors import encodable

_MOST_REMEMBERED = 1000
"""A process that meets more causes than this logs the later ones each time."""


class Notices:
    """Remembers which messages were logged."""

    def __init__(self) -> None:
        self._logged: set[tuple[str, str]] = set()

    def log(self, logger: logging.Logger, level: int, message: str) -> None:
        """Log a message at ``level`` the first time, and at DEBUG every other time."""
        message = encodable(message)
        key = (logger.name, message)
        is_new = key not in self._logged
        if is_new and len(self._logged) < _MOST_REMEMBERED:
            self._logged.add(key)
        logger.log(level if is_new else logging.DEBUG, "%s", message)

    def forget(self) -> None:
        """Log every message again. For tests."""
        self._logged.clear()


notices = Notices()
"""The messages of this process."""
