"""The two formats of log lines: text for people, JSON for programs."""

from __future__ import annotations

import json
import logging
from datetime import datetime, timezone

from ..errors import printable


class TextFormatter(logging.Formatter):
    """One line with the local time and its distance from UTC. Only a traceback takes more lines."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s b10-compile-cache %(levelname)s: %(message)s")

    def formatTime(self, record: logging.LogRecord, datefmt: str | None = None) -> str:  # noqa: N802
        moment = datetime.fromtimestamp(record.created, timezone.utc).astimezone()
        return moment.isoformat(sep=" ", timespec="milliseconds")


class JsonFormatter(logging.Formatter):
    """One JSON object a line: ``time`` (RFC 3339, UTC), ``level``, ``event``, ``message``, and the event's fields.

    The fields are in docs/cli.md.
    """

    def format(self, record: logging.LogRecord) -> str:
        moment = datetime.fromtimestamp(record.created, timezone.utc).isoformat(timespec="milliseconds")
        line = {
            "time": moment.replace("+00:00", "Z"),
            "level": record.levelname,
            "event": getattr(record, "event", "message"),
            "message": printable(record.getMessage()),
            **getattr(record, "fields", {}),
        }
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line)
