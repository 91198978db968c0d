"""The Python interpreter whose torch and Triton the environment key names: the server's.

It is this process's own, unless ``B10_PYTHON`` names another one: the command may be installed apart from the server,
with pipx or ``uv tool``.
"""

from __future__ import annotations

import functools
import importlib.util
import json
import os
import re
import subprocess
import sys
from importlib.machinery import PathFinder
from pathlib import Path
from typing import NamedTuple

from ..errors import ConfigurationError

VARIABLE = "B10_PYTHON"
_TIMEOUT_S = 10.0
"""A start of Python takes 20 ms; from a cold network file system it takes seconds."""
_QUESTION = "import json, sys; print(json.dumps([sys.implementation.cache_tag, [path for path in sys.path if path]]))"


class Interpreter(NamedTuple):
    """One Python interpreter, as far as the key depends on it."""

    executable: str
    cache_tag: str
    """Its kind and version, for example ``cpython-311``."""
    folders: tuple[str, ...] | None = None
    """Where it looks for modules. None: as this process does."""

    def read_module_file(self, module: str, file: str) -> str | None:
        """Read a file of a top-level package without importing it. Returns None if there is none."""
        for folder in self._package_folders(module):
            path = Path(folder, file)
            if path.is_file():
                return path.read_text(encoding="utf-8")
        return None

    def search_module_file(self, module: str, file: str, pattern: str) -> str | None:
        """The first group of a pattern, whose ``^`` is the start of a line, in such a file; None if it is not there."""
        source = self.read_module_file(module, file)
        found = source and re.search(pattern, source, re.MULTILINE)
        return found.group(1) if found else None

    def package_folder(self, module: str) -> str:
        """The folder of a top-level package, without importing it; empty if there is none."""
        return next(iter(self._package_folders(module)), "")

    def _package_folders(self, module: str) -> list[str]:
        try:
            # For a top-level name neither of them imports anything.
            if self.folders is None:
                spec = importlib.util.find_spec(module)
            else:
                spec = PathFinder.find_spec(module, list(self.folders))
        except (ImportError, ValueError):
            return []
        return list((spec and spec.submodule_search_locations) or ())


def interpreter() -> Interpreter:
    """Return the interpreter that ``B10_PYTHON`` names, else this process's.

    Raises:
        ConfigurationError: ``B10_PYTHON`` names no Python that runs.
    """
    chosen = os.environ.get(VARIABLE)
    return ask(chosen) if chosen else Interpreter(sys.executable, sys.implementation.cache_tag or "")


def startable_python() -> str | None:
    """An interpreter that starts as this process's own; None if there is none.

    In an embedded interpreter ``sys.executable`` is another program.
    """
    candidates = [
        sys.executable,
        os.path.join(sys.prefix, "bin", "python3"),
        os.path.join(sys.base_prefix, "bin", "python3"),
    ]
    for candidate in candidates:
        if candidate and re.match(r"python|pypy", os.path.basename(candidate)) and os.access(candidate, os.X_OK):
            return candidate
    return None


@functools.lru_cache(maxsize=8)
def ask(executable: str) -> Interpreter:
    """Ask another interpreter where it finds modules. Starts it once per process.

    Args:
        executable: Its path.

    Raises:
        ConfigurationError: It does not run, or is no Python.
    """
    try:
        done = subprocess.run(
            [executable, "-c", _QUESTION],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_TIMEOUT_S,
            check=True,
            text=True,
        )
        cache_tag, folders = json.loads(done.stdout.splitlines()[-1])
        return Interpreter(executable, str(cache_tag or ""), tuple(map(str, folders)))
    except (OSError, subprocess.SubprocessError, ValueError, IndexError, TypeError) as error:
        rule = f"it must be a Python interpreter that runs ({str(error) or type(error).__name__})"
        raise ConfigurationError(VARIABLE, executable, rule) from error
