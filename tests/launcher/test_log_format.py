"""The command's log, for people and for programs."""

from __future__ import annotations

import json
import re
import signal
from pathlib import Path
from typing import Any

from tests.launcher.pod import Pod

PAGE = Path(__file__).parents[2] / "docs" / "cli.md"


def documented() -> dict[str, set[str]]:
    """The fields of each event, as docs/cli.md names them."""
    table = PAGE.read_text().partition("## Log events")[2].partition("\n## ")[0]
    rows = [line.split("|") for line in table.splitlines() if line.startswith("| `")]
    return {event: set(re.findall(r"`(\w+)`", row[3])) for row in rows for event in re.findall(r"`(\w+)`", row[1])}


def test_json_has_one_object_a_line_with_the_documented_fields(pod: Pod) -> None:
    started = pod.run(B10_LOG_FORMAT="json")
    pod.waits_for("serves")
    started.says('"event": "save"')
    started.send(signal.SIGTERM)
    assert started.wait() == 0
    lines: list[dict[str, Any]] = [json.loads(line) for line in started.log.splitlines()]
    by_event = {line["event"]: line for line in lines}
    assert {"load", "server_ready", "usage", "save", "server_ended"} <= by_event.keys()
    fields = documented()
    for event, line in by_event.items():
        extra = line.keys() - {"time", "level", "event", "message"}
        of_a_save = {"left_for_next_save"}
        of_a_load = {"ignored_packs", "group", "pack_states", "already_present", "partial", "rest_units", "rest_bytes"}
        assert extra <= fields[event]
        assert fields[event] - extra <= (of_a_save if event == "load" else of_a_load if event == "save" else set())
    assert all(re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", line["time"]) for line in lines)
    assert (by_event["usage"]["verdict"], by_event["save"]["units"]) == ("MISS", 2)
    assert by_event["server_ended"]["exit_code"] == 0


def test_text_has_the_time_zone(pod: Pod) -> None:
    started = pod.run(["true"], TZ="Asia/Kolkata")
    started.wait()
    stamp = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3}\+05:30 b10-compile-cache [A-Z]+: "
    assert all(re.match(stamp, line) for line in started.log.splitlines())
