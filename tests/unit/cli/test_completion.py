"""``b10-compile-cache completion`` prints a script with which a shell completes the command."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.command import command

# As bash does after some words and a tabulator.
_PRESS_TAB = """
source /dev/stdin
COMP_WORDS=({words}) COMP_CWORD={last}
{function} {command}
printf '%s\\n' "${{COMPREPLY[@]}}"
"""


def completed(*words: str) -> set[str]:
    """What bash offers for the last of these words."""
    script = command("completion", "bash").stdout
    [binding] = [line for line in script.splitlines() if line.strip().startswith("complete ")]
    function = binding.split("-F ")[1].split()[0]
    press = _PRESS_TAB.format(
        command=words[0], words=" ".join(map(repr, words)), last=len(words) - 1, function=function
    )
    beside_python = str(Path(sys.executable).parent)
    done = subprocess.run(
        ["bash", "-c", press],
        input=script,
        env=os.environ | {"PATH": f"{beside_python}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        check=True,
    )
    return set(done.stdout.split())


@pytest.mark.skipif(
    shutil.which("bash") is None and not os.environ.get("B10_TEST_EVERYTHING"), reason="needs bash, which completes"
)
def test_bash_completes_commands_and_options() -> None:
    assert completed("b10-compile-cache", "lo") == {"load"}
    assert "--older-than" in completed("b10-compile-cache", "prune", "--o")


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_script_of_each_shell_asks_the_command_for_words(shell: str) -> None:
    answer = command("completion", shell)
    assert answer.exit_code == 0
    assert f"_B10_COMPILE_CACHE_COMPLETE={shell}_complete" in answer.stdout


def test_shell_that_is_not_known_is_wrong_usage() -> None:
    assert command("completion", "csh").exit_code == 2
