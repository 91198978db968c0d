"""``b10-compile-cache recall``: what it shows before it marks packs."""

from __future__ import annotations

import os
import pty
import pwd
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from b10_transfer import load
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


def test_read_only_pod_may_only_do_a_dry_run(isolated_env: IsolatedEnv, monkeypatch: pytest.MonkeyPatch) -> None:
    publisher = Publisher(isolated_env.store, detect())
    pack = publisher.publish().name.removesuffix(".tar.zst")
    assert command("recall", pack).exit_code == 0
    before = sorted(isolated_env.store.rglob("*"))
    monkeypatch.setenv("B10_READ_ONLY", "1")
    for name in ("recall", "reinstate"):
        assert command(name, pack, "--dry-run").exit_code == 0
        answer = command(name, pack)
        assert (answer.exit_code, "this pod may not change the store" in answer.stderr) == (1, True)
    assert sorted(isolated_env.store.rglob("*")) == before


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


def test_reinstate_since_reverts_recall_since(isolated_env: IsolatedEnv) -> None:
    publisher = Publisher(isolated_env.store, detect())
    packs = [publisher.publish().name.removesuffix(".tar.zst") for _ in range(2)]
    pruned = publisher.folder / "quarantine" / f"{packs[0]}.pruned"
    pruned.parent.mkdir()
    pruned.write_text("{}")
    assert command("recall", "--since", SINCE).exit_code == 0
    assert marks(publisher) == 2
    assert command("reinstate", "--since", "2199-01-01").stdout.startswith("nothing to reinstate")
    shown = command("reinstate", "--since", SINCE, "--dry-run")
    assert [line.rpartition(": ")[2] for line in shown.stdout.splitlines()] == ["would be reinstated"] * 2
    assert marks(publisher) == 2
    assert {one["pack"] for one in command("reinstate", "--since", SINCE, "--json").json} == set(packs)
    assert (marks(publisher), pruned.exists()) == (0, True)
    assert command("reinstate").exit_code == 2


def test_who_when_and_why_are_shown_with_the_state(isolated_env: IsolatedEnv) -> None:
    publisher = Publisher(isolated_env.store, detect())
    publisher.publish()
    pack = publisher.publish({"triton/OTHER/": {"launcher.so": b""}}).name.removesuffix(".tar.zst")
    assert command("recall", pack, "--why", "canary failed").exit_code == 0
    who = f"{pwd.getpwuid(os.geteuid()).pw_name}@{socket.gethostname()}"
    [stored] = [one for one in command("ls", "--json").json["environments"][0]["packs"] if one["id"] == pack]
    assert (stored["state"], stored["why"], stored["marked_by"]) == ("recalled", "canary failed", who)
    assert 0 <= time.time() - stored["marked_s"] < 60
    assert f" ago by {who}: canary failed" in command("ls", "--packs").stdout
    today = time.strftime("%Y-%m-%d", time.gmtime(stored["marked_s"]))
    explained = command("explain").stdout
    assert f"pack {pack} was recalled {today} " in explained
    assert f" UTC by {who}: canary failed" in explained
    assert f" UTC by {who}: canary failed)" in " ".join(command("info").stdout.split())
    partial = load().partial
    assert partial.startswith(f"2 of 3 units; 1 was recalled ({today} ")
    assert partial.endswith(f" UTC by {who}: canary failed)")


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"[" * 4096,
        b"[1]",
        b'{"who": 7, "why": ["a"]}',
        b"x" * 10_000_000,
        b'{"why": "\\u001b[2Jgone", "who": "%s"}' % (b"a" * 3000),
    ],
)
def test_hostile_content_of_a_mark_is_bounded_text(isolated_env: IsolatedEnv, content: bytes) -> None:
    publisher = Publisher(isolated_env.store, detect())
    publisher.publish()
    pack = publisher.publish({"triton/OTHER/": {"launcher.so": b""}}).name.removesuffix(".tar.zst")
    assert command("recall", pack).exit_code == 0
    [mark] = publisher.folder.glob("recalled/*")
    mark.chmod(0o600)
    mark.write_bytes(content)
    os.utime(mark, (2**40, 2**40))  # a time that no calendar has
    for shown in (command("ls", "--packs"), command("explain"), command("info")):
        assert (shown.exit_code, "\x1b" in shown.stdout) == (0, False)
        assert max(map(len, shown.stdout.splitlines())) < 1000
    assert len(load().partial) < 1000


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
