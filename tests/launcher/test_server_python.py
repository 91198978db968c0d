"""The command and the server may run in different Python environments: the key is the server's."""

from __future__ import annotations

import json
import signal
import sys
from pathlib import Path

from tests.launcher.pod import Pod


def other_python(folder: Path) -> str:
    """A Python in which torch has another version."""
    torch = folder / "packages" / "torch"
    torch.mkdir(parents=True)
    (torch / "__init__.py").touch()
    (torch / "version.py").write_text('__version__ = "2.99.0"\n')
    python = folder / "python3"
    python.write_text(f'#!/bin/sh\nPYTHONPATH={torch.parent} exec {sys.executable} "$@"\n')
    python.chmod(0o755)
    return str(python)


def test_artifacts_are_filed_under_the_servers_torch(pod: Pod, tmp_path: Path) -> None:
    python = other_python(tmp_path)
    started = pod.run([python, *pod.server[1:]])
    started.says("save: SUCCESS")
    started.send(signal.SIGTERM)
    assert started.wait() == 0
    assert f"the key is that of the server's Python, {python}" in started.log
    [description] = pod.store.rglob("environment.json")
    assert json.loads(description.read_text())["parts"]["torch"] == "2.99.0"
    pod.empty_cache()
    again = pod.run([python, *pod.server[1:]])
    again.says("triton: restored 2, used 2")
    again.send(signal.SIGTERM)
    assert again.wait() == 0


def test_server_of_the_same_python_is_not_mentioned(pod: Pod) -> None:
    assert "server's Python" not in pod.serve_and_end().log
