"""Values of a pod that compilers put into their keys: recorded beside a pack, and compared when it is restored.

Nothing depends on them. They only help to explain why restored artifacts are not used. Earlier versions of this package
ignore them in a pack.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass

from ..adapters import CacheRoot
from ..adapters.key_facts import THREADS, TORCH
from ..config.reader import EnvReader
from ..environment import Environment
from ..errors import ConfigurationError, printable
from ..notices import notices
from ..repository.union import Union

logger = logging.getLogger(__name__)

_OF_A_CPU = {THREADS, TORCH}
"""Nothing that runs on a GPU depends on them."""
_MOST_CHARACTERS = 300
_MOST_DIFFERENCE = 2
"""The largest ratio of two numbers of threads that is no reason to worry."""


@dataclass(frozen=True)
class KeyDifference:
    """A value in which this pod differs from the one that saved."""

    cache: str
    name: str
    saved: str
    here: str

    def __str__(self) -> str:
        return f"the keys of {self.cache} hold the {self.name}: {self.saved} on the pod that saved, {self.here} here"

    @property
    def is_another_size(self) -> bool:
        """Whether it is about threads, and one number is more than twice the other."""
        if self.name != THREADS or not (self.saved.isdecimal() and self.here.isdecimal()):
            return False
        fewer, more = sorted((int(self.saved), int(self.here)))
        return more > _MOST_DIFFERENCE * fewer


def facts_of(roots: Iterable[CacheRoot], environment: Environment, env: EnvReader) -> dict[str, str]:
    """The values of this pod, by the name of the cache, a slash, and the name of the value.

    Args:
        roots: Caches.
        environment: This pod's environment.
        env: The variables.
    """
    found: dict[str, str] = {}
    for root in roots:
        # A working directory that was removed, or a wrong B10_PYTHON.
        with suppress(OSError, ConfigurationError):
            for name, value in root.adapter.key_facts(env, root.path).items():
                if name not in _OF_A_CPU or environment.parts.get("accelerator") == "cpu":
                    found[f"{root.name}/{name}"] = value[:_MOST_CHARACTERS]
    return found


def differences(union: Union, names: Collection[str], facts: Mapping[str, str]) -> tuple[KeyDifference, ...]:
    """The values in which this pod differs from those that saved, of several packs as in the latest.

    Args:
        union: Packs of the store, which may hold any text.
        names: Units.
        facts: This pod's, by :func:`facts_of`.
    """
    units = union.units
    caches: dict[str, set[str]] = {}
    for name in names:
        if name in units:
            caches.setdefault(units[name][0].id, set()).add(name.partition("/")[0])
    saved: dict[str, str] = {}
    for pack in union.packs:  # the oldest first
        for name, text in pack.index.recorded.items():
            if name.partition("/")[0] in caches.get(pack.id, ()):
                saved[name] = printable(text[:_MOST_CHARACTERS])
    found = []
    for name, here in facts.items():
        cache, _, value = name.partition("/")
        if (before := saved.get(name, here)) != here:
            found.append(KeyDifference(cache, value, before, here))
    return tuple(found)


def warn_of_threads(found: Iterable[KeyDifference]) -> None:
    """Log once if restored kernels for CPUs were compiled for a very different number of threads."""
    for difference in found:
        if difference.is_another_size:
            message = (
                f"{difference.cache}: the restored kernels for CPUs were compiled for {difference.saved} threads, and "
                f"this pod has {difference.here}. torch compiles them again or, before 2.13, uses no other number. "
                "Give all pods the same OMP_NUM_THREADS, or separate them by B10_NAMESPACE"
            )
            notices.log(logger, logging.WARNING, message)
            return
