"""``b10-compile-cache recall``: what it shows before it marks packs."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from pathlib import Path

from b10_transfer.environment import detect
from tests.command import Publisher, command
from tests.conftest import IsolatedEnv

SINCE = "2020-01-01"


def on_a_terminal(answer: str) -> subprocess.CompletedProcess[str]:
    """Recall with a terminal as stdin, on which a person types ``answer``."""
    ours, theirs = pty.openpty()
    program = str(Path(sys.executable).with_name("b10-compile-cache"))
    try:
        os.write(ours, f"{answer}\n".encode())
        arguments = [program, "recall", "--since", SINCE]
        return subprocess.run(arguments, stdin=theirs, capture_output=True, text=True, timeout=60)
    finally:
        os.close(ours)
        os.close(theirs)


def marks(publisher: Publisher) -> int:
    return len(list(publisher.folder.glob("recalled/*")))


def test_dry_run_marks_nothing(isolated_env: IsolatedEnv) -> None:
    publisher = Publisher(isolated_env.store, detect())
    pack = publisher.publish().name.removesuffix(".tar.zst")
    shown = command("recall", "--since", SINCE, "--dry-run")
    assert shown.stdout == (f"{pack} of namespace default, environment {publisher.environment.id}: would be recalled\n")
    assert marks(publisher) == 0
    assert command("recall", "--since", SINCE).exit_code == 0
    assert marks(publisher) == 1
    assert "nothing to recall" in command("recall", "--since", SINCE, "--dry-run").stdout


def test_on_a_terminal_it_asks(isolated_env: IsolatedEnv) -> None:
    publisher = Publisher(isolated_env.store, detect())
    publisher.publish()
    declined = on_a_terminal("n")
    assert (declined.returncode, marks(publisher)) == (1, 0)
    assert ": to be recalled" in declined.stderr
    assert (on_a_terminal("y").returncode, marks(publisher)) == (0, 1)


def test_unique_beginning_of_an_id_is_enough(isolated_env: IsolatedEnv) -> None:
    publisher = Publisher(isolated_env.store, detect())
    first, second = (publisher.publish().name.removesuffix(".tar.zst") for _ in range(2))
    shared = first[: next(place for place, pair in enumerate(zip(first, second, strict=True)) if len(set(pair)) > 1)]
    ambiguous = command("recall", shared)
    assert ambiguous.exit_code == 1
    assert f"2 packs begin so, for example {first} and {second}" in ambiguous.stderr
    assert command("recall", shared[:3]).exit_code == command("recall", "ffff").exit_code == 1
    assert marks(publisher) == 0
    assert command("recall", first[: len(shared) + 1], "--json").json[0]["pack"] == first
    assert marks(publisher) == 1
    assert command("reinstate", first[: len(shared) + 1]).exit_code == 0
    assert marks(publisher) == 0


def test_terminal_that_wants_no_colours_gets_none(isolated_env: IsolatedEnv) -> None:
    def explained(**variables: str) -> bytes:
        ours, theirs = pty.openpty()
        program = str(Path(sys.executable).with_name("b10-compile-cache"))
        environ = {name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "TERM")}
        try:
            subprocess.run([program, "explain"], stdout=theirs, env=environ | variables, timeout=60)
            return os.read(ours, 1000)
        finally:
            os.close(ours)
            os.close(theirs)

    assert b"\x1b[" in explained(TERM="xterm")
    for variables in ({"TERM": "xterm", "NO_COLOR": "1"}, {"TERM": "dumb"}):
        assert b"\x1b[" not in explained(**variables)
