"""Tables fit the terminal, whatever its width, and show whole ids."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from pathlib import Path

import pytest

from b10_transfer.environment import detect
from tests.command import Publisher, command, pod_like_this
from tests.conftest import IsolatedEnv

LONG = "llama-3-70b-instruct"
H100 = {"torch": "2.12.0+cu130", "device": "NVIDIA H100 80GB HBM3", "accelerator": "cuda", "toolkit": "13.0"}


def shown(columns: int, *arguments: str) -> list[str]:
    """The lines on a terminal with so many columns."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 50, columns, 0, 0))
    program = str(Path(sys.executable).with_name("b10-compile-cache"))
    environ = os.environ | {"TERM": "xterm"}
    environ.pop("COLUMNS", None)
    process = subprocess.Popen([program, *arguments], stdin=theirs, stdout=theirs, stderr=theirs, env=environ)
    os.close(theirs)
    data = b""
    try:
        while part := os.read(ours, 65536):
            data += part
    except OSError:  # the other end is closed
        pass
    finally:
        os.close(ours)
    assert process.wait(timeout=60) in (0, 1, 3)
    return [line.rstrip() for line in re.sub(r"\x1b\[[0-9;]*m", "", data.decode()).splitlines()]


@pytest.mark.parametrize("columns", [80, 120, 200])
def test_table_fits_the_terminal_and_shows_whole_ids(isolated_env: IsolatedEnv, columns: int) -> None:
    publishers = [
        Publisher(isolated_env.store, detect(), LONG),
        Publisher(isolated_env.store, pod_like_this(**H100), "default"),
    ]
    packs = [publisher.publish().name.removesuffix(".tar.zst") for publisher in publishers]
    assert command("recall", packs[0], "--why", "canary failed: wrong results on long prompts").exit_code == 0
    for arguments in (["ls"], ["ls", "--packs"], ["prune", "--keep", "0", "--dry-run"], ["verify"], ["info"]):
        lines = shown(columns, *arguments)
        of_table = [line for line in lines if str(isolated_env.home.parent) not in line]  # no path is broken
        assert max(map(len, of_table), default=0) <= columns, arguments
        words = " ".join(lines).split()
        if arguments[0] == "ls":
            assert {publisher.environment.id for publisher in publishers} <= set(words)
            assert LONG in words
        if "--packs" in arguments:
            assert set(packs) <= set(words)
        assert not any(len(line.split()) == 1 and len(line.strip()) < 3 for line in of_table), arguments


@pytest.mark.parametrize("columns", [80, 120])
@pytest.mark.parametrize("name", ["info", "explain", "doctor"])
def test_sentences_are_broken_between_words(isolated_env: IsolatedEnv, name: str, columns: int) -> None:
    Publisher(isolated_env.store, detect()).publish()
    lines = shown(columns, name)
    fitting = [line for line in lines if len(max(line.split(), key=len, default="")) < 40]
    assert max(map(len, fitting)) <= columns
    # In capitals are the headings of tables, which a narrow terminal does not have.
    words = {word for word in command(name).stdout.split() if word.isalpha() and word.islower()}
    assert words <= set(" ".join(lines).split())


def test_wide_terminal_shows_a_table_and_a_narrow_one_paragraphs(isolated_env: IsolatedEnv) -> None:
    Publisher(isolated_env.store, detect()).publish()
    assert any(set(line.strip()) == {"─"} for line in shown(200, "ls"))
    narrow = shown(80, "ls")
    assert not any("─" in line for line in narrow)
    assert any(line.startswith("  packs 1  units 2  files 2  size ") for line in narrow)
