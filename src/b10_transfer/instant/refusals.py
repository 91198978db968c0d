"""Functions of which no trace could be kept: remembered beside the traces, so that other replicas do not try again.

To record and to describe a trace costs a third of a warm start. A refusal names what it depends on. It counts only
where all of that is the same; elsewhere the function is recorded again.
"""

from __future__ import annotations

import hashlib
import importlib.util
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from ..version import __version__
from .code import digest_of_all
from .releases import is_file_of_a_package, is_file_of_a_release

MOST = 8
"""Refusals of one key that are kept. Replicas in which one of them counts write no more."""
_OWN = __name__.partition(".")[0]


@dataclass(frozen=True)
class Refusal:
    """Why no trace of a function could be kept, and what this depends on."""

    reasons: tuple[str, ...]
    depends: Mapping[str, str]

    @property
    def name(self) -> str:
        """The same in all replicas of one program, wherever its code lies."""
        return digest_of_all(["refusal", sorted(self.depends.items())])[:32]

    def holds(self, owner: object) -> bool:
        """Whether this process would be refused, too."""
        names = [name.removeprefix(_MODULE) for name in self.depends if name.startswith(_MODULE)]
        return dict(self.depends) == {**_general(owner), **_digests(names)}


@dataclass
class Attempt:
    """A function of which no trace has been kept so far."""

    general: Mapping[str, str]
    """The entries of :attr:`Refusal.depends` that name no module."""
    reasons: dict[str, None] = field(default_factory=dict)
    files: set[str] = field(default_factory=set)
    """Of the code that was traced, or that ran meanwhile."""
    is_lasting: bool = True
    """No reason may be another one in the next process."""
    modules: frozenset[str] = field(default_factory=lambda: frozenset(_modules_of_the_program()))
    """Of the program: those that were imported when ``torch.compile`` was called."""

    @classmethod
    def begin(cls, owner: object) -> Attempt:
        """Call it when ``torch.compile`` is called, for the model as it is then."""
        return cls(_general(owner))

    def note(self, reason: str, *, is_lasting: bool) -> None:
        self.reasons[reason] = None
        self.is_lasting = self.is_lasting and is_lasting

    def refusal(self) -> Refusal | None:
        """None if nothing was refused, or if the reasons cannot be bound to the program's files."""
        if not self.is_lasting or not self.reasons:
            return None
        by_file = {getattr(module, "__file__", None): name for name, module in list(sys.modules.items())}
        files = {file for file in self.files if not file.startswith("<") and not is_file_of_a_release(file)}
        if not files <= by_file.keys():
            return None
        needed = _digests(by_file[file] for file in files)
        if "" in needed.values():
            return None
        others = {name: digest for name, digest in _digests(self.modules).items() if digest}
        return Refusal(tuple(self.reasons), {**self.general, **others, **needed})


_MODULE = "module "


def _general(owner: object) -> dict[str, str]:
    return {"version": __version__, "model": digest_of_all(_parts_of(owner))}


def _parts_of(owner: object) -> list[object]:
    """The types of everything that a model consists of."""
    if not isinstance(owner, torch.nn.Module):
        return [_name_of(type(owner))]
    found: list[object] = []
    for name, module in owner.named_modules():
        parts: dict[str, Any] = {**vars(module), **module._parameters, **module._buffers}
        found.append((name, sorted((key, _name_of(type(value))) for key, value in parts.items())))
    return found


def _name_of(kind: type) -> str:
    return f"{kind.__module__}.{kind.__qualname__}"


def _modules_of_the_program() -> Iterable[str]:
    """The modules that no package installed, torch and Python included."""
    for name, module in list(sys.modules.items()):
        file = getattr(module, "__file__", None)
        if not isinstance(file, str) or not file.endswith(".py") or name.partition(".")[0] == _OWN:
            continue
        if not is_file_of_a_release(file) and not is_file_of_a_package(file):
            yield name


def _digests(modules: Iterable[str]) -> dict[str, str]:
    """The digest of each module's file, by the module's name; empty if it has none."""
    return {_MODULE + name: _digest(name) for name in modules}


_known: dict[str, str] = {}


def _digest(module: str) -> str:
    if module not in _known:
        file = getattr(sys.modules.get(module), "__file__", None) or _file_of(module)
        try:
            _known[module] = hashlib.sha256(Path(file).read_bytes()).hexdigest()
        except (OSError, ValueError):
            return ""
    return _known[module]


def _file_of(module: str) -> str:
    """The file of a module that is not imported yet. No package is imported to find it."""
    parent = module.rpartition(".")[0]
    if parent and parent not in sys.modules:
        return ""
    try:
        spec = importlib.util.find_spec(module)
    except (ImportError, ValueError):
        return ""
    return (spec and spec.origin) or ""
