"""Finds the Python interpreter of the server: its torch decides the environment key."""

from __future__ import annotations

import logging
import os
import re
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from ..environment.frameworks import torch_build
from ..environment.interpreter import VARIABLE, ask
from ..errors import ConfigurationError

logger = logging.getLogger(__name__)

_KNOWN_SERVERS = ("vllm", "sglang")
_PYTHON = re.compile(r"(?:python|pypy)\d*(?:\.\d+)?t?")
_FIRST_LINE = re.compile(rb"#!\s*(\S+)(?:[ \t]+(\S+))?")
_SECOND_LINE = re.compile(rb"'''exec' \"?([^\"\n]+?)\"? \"\$0\"")
"""pip's scripts start so if the interpreter's path is too long for a first line: a shell runs this line, Python ignores
it."""


def use_interpreter_of(arguments: Sequence[str]) -> None:
    """Let this process's loads and saves use the key of the server's interpreter, if that is another one.

    It sets ``B10_PYTHON``, unless it is set. A program that is not recognised as a Python script changes nothing.

    Args:
        arguments: The server's command line.
    """
    if not os.environ.get(VARIABLE):
        _use(python_of(arguments))


def use_interpreter_of_known_server() -> None:
    """Do the same for a server that something else starts, if this process's own interpreter has no torch."""
    if not os.environ.get(VARIABLE) and not torch_build().version:
        _use(next(filter(None, (python_of([name]) for name in _KNOWN_SERVERS)), None))


def _use(found: str | None) -> None:
    if found is None or _is_this_one(found):
        return
    try:
        ask(found)
    except ConfigurationError as error:
        logger.warning("the server's Python is unknown, so the key is that of %s: %s", sys.executable, error)
        return
    logger.info("the key is that of the server's Python, %s", found)
    os.environ[VARIABLE] = found


def python_of(arguments: Sequence[str]) -> str | None:
    """Find the interpreter that a command line runs.

    Args:
        arguments: The command line. Its first argument is looked up as a shell does it.

    Returns:
        The path of the interpreter; None if the program is no Python script, or does not exist.
    """
    program = shutil.which(arguments[0]) if arguments else None
    if program is None:
        return None
    if _PYTHON.fullmatch(Path(program).name):
        return os.path.abspath(program)
    try:
        with open(program, "rb") as file:
            beginning = file.read(4096)
    except OSError:
        return None
    first = _FIRST_LINE.match(beginning)
    if first is None:
        return None
    named = os.fsdecode(first[1])
    if Path(named).name == "env" and first[2]:
        named = os.fsdecode(first[2])
    elif Path(named).name == "sh" and (second := _SECOND_LINE.search(beginning)):
        named = os.fsdecode(second[1])
    return shutil.which(named) if _PYTHON.fullmatch(Path(named).name) else None


def _is_this_one(python: str) -> bool:
    """Whether an interpreter is this process's, by another name in the same folder or by the same one."""
    same_folder = os.path.dirname(os.path.abspath(python)) == os.path.dirname(os.path.abspath(sys.executable))
    return same_folder and os.path.realpath(python) == os.path.realpath(sys.executable)
