"""``b10-compile-cache completion`` prints a script with which a shell completes the command."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from b10_transfer.environment import detect
from tests.command import Publisher, command
from tests.conftest import IsolatedEnv

# As bash does after some words and a tabulator.
_PRESS_TAB = """
source /dev/stdin
COMP_WORDS=({words}) COMP_CWORD={last}
{function} {command}
printf '%s\\n' "${{COMPREPLY[@]}}"
"""


needs_bash = pytest.mark.skipif(
    shutil.which("bash") is None and not os.environ.get("B10_TEST_EVERYTHING"), reason="needs bash, which completes"
)


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


@needs_bash
def test_bash_completes_commands_and_options() -> None:
    assert completed("b10-compile-cache", "lo") == {"load"}
    assert "--older-than" in completed("b10-compile-cache", "prune", "--o")


@needs_bash
def test_bash_completes_packs_namespaces_and_caches(isolated_env: IsolatedEnv, monkeypatch: pytest.MonkeyPatch) -> None:
    first = Publisher(isolated_env.store, detect(), "llama").publish().name.removesuffix(".tar.zst")
    other = Publisher(isolated_env.home / "other", detect(), "qwen").publish().name.removesuffix(".tar.zst")
    assert completed("b10-compile-cache", "recall", first[:4]) == {first}
    assert completed("b10-compile-cache", "reinstate", "--store", str(isolated_env.home / "other"), "") == {other}
    assert completed("b10-compile-cache", "recall", "zz") == set()
    for subcommand in ("ls", "prune", "verify", "save", "explain", "recall"):
        assert completed("b10-compile-cache", subcommand, "--namespace", "") == {"llama"}
    assert completed("b10-compile-cache", "clear", "--cache", "tri") == {"triton"}
    monkeypatch.setenv("B10_STORE", str(isolated_env.home / "missing" / "store"))
    assert completed("b10-compile-cache", "recall", "") == set()


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_script_of_each_shell_asks_the_command_for_words(shell: str) -> None:
    answer = command("completion", shell)
    assert answer.exit_code == 0
    assert f"_B10_COMPILE_CACHE_COMPLETE={shell}_complete" in answer.stdout


def test_shell_that_is_not_known_is_wrong_usage() -> None:
    assert command("completion", "csh").exit_code == 2
