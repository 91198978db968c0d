"""The code blocks of docs/rollouts.md run as they are, with a stand-in server at another port."""

from __future__ import annotations

import re
import signal
import sys
from pathlib import Path

from tests.launcher.pod import COMMAND, Pod

_PAGE = Path(__file__).parents[2] / "docs" / "rollouts.md"
_KUBECTL = """\
[ "$1" = exec ] || exit 0
while [ "$1" != -- ]; do shift; done
shift
"$@"
"""
"""Runs the command of ``kubectl exec`` in this pod."""


def blocks() -> dict[str, str]:
    """The shell scripts of the page, by the first words of each."""
    return {text.partition(" -")[0]: text for text in re.findall(r"```sh\n(.*?)```", _PAGE.read_text(), re.DOTALL)}


def program(folder: Path, name: str, script: str) -> None:
    (folder / name).write_text(f"#!/bin/sh\n{script}\n")
    (folder / name).chmod(0o755)


def test_each_block_does_as_the_page_says(pod: Pod) -> None:
    found = blocks()
    names = ["b10-compile-cache warm", "curl", "kubectl delete job llama-warm", "kubectl exec deploy/llama-canary"]
    assert list(found) == [*names, "b10-compile-cache run", "b10-compile-cache prune"]
    scripts = re.findall(r"```sh\n(.*?)```", _PAGE.read_text(), re.DOTALL)
    canary = next(script for script in scripts if "--on-compile" in script)
    replica = next(script for script in scripts if "--require-hit" in script)
    bin_folder = pod.path / "programs"
    bin_folder.mkdir()
    program(bin_folder, "vllm", f"exec '{sys.executable}' '{pod.program}' \"$@\"")
    program(bin_folder, "kubectl", _KUBECTL)
    # As curl does it; the stand-in server has no completions.
    get = 'import sys, urllib.request as r; r.urlopen(sys.argv[-1].replace("completions", "models"))'
    program(bin_folder, "curl", f"exec '{sys.executable}' -c '{get}' \"$@\"")
    program(pod.home, "requests.sh", found["curl"])
    path = f"{bin_folder}:{Path(COMMAND).parent}:{pod.variables['PATH']}"

    def run(script: str, end: bool = False, **variables: str) -> int:
        begun = len(pod.noted("serves"))
        started = pod.start(["sh", "-ec", script.replace("8000", str(pod.port))], PATH=path, **variables)
        if end:
            pod.waits_for("serves", begun + 1)
            started.says(" compiled, load ")
            [command] = [pid for pid, line in pod.processes().items() if f"{COMMAND} run" in line]
            pod.send(command, signal.SIGTERM)
        return started.wait()

    assert run(replica) == 3
    assert run(found["kubectl exec deploy/llama-canary"]) == 3
    assert run(found["b10-compile-cache warm"]) == 0
    assert pod.stored() == ["KERNEL0", "KERNEL1"]
    assert run(found["kubectl delete job llama-warm"]) == 0
    assert run(found["kubectl exec deploy/llama-canary"]) == 0
    pod.empty_cache()
    assert run(replica, end=True) == 0
    pod.empty_cache()
    assert run(canary, FAKE_COMPILES="3") == 4
    assert run(found["b10-compile-cache prune"]) == 0
