"""Which modules and files are torch's or Python's own, to whose versions a trace is bound, and which are installed."""

from __future__ import annotations

import functools
import os
import sys
from pathlib import Path

import torch

_RELEASES = tuple(os.path.dirname(str(module.__file__)) + os.sep for module in (torch, os))


_INSTALLED = {"site-packages", "dist-packages"}
"""Folders that installed packages lie in."""


@functools.cache
def is_of_a_release(module: str | None) -> bool:
    """Whether a module is torch's or Python's own."""
    if module in sys.builtin_module_names:
        return True
    return is_file_of_a_release(getattr(sys.modules.get(str(module)), "__file__", None) or "")


def is_file_of_a_release(file: str) -> bool:
    return file.startswith((*_RELEASES, "<frozen ")) and not (file.startswith(_RELEASES[1]) and "-packages" in file)


def is_file_of_a_package(file: str) -> bool:
    """Whether a file lies in a folder of installed packages."""
    return not _INSTALLED.isdisjoint(Path(file).parts)
