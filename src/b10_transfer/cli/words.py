"""The words that a shell completes: ids of packs, namespaces, names of caches.

A shell waits for them, so they come from listings alone, and an error gives no words. What they need is imported only
then.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from ..repository.catalogue import Catalogue

_DEADLINE_S = 3.0
_MOST = 1000


def packs(context: click.Context, _parameter: click.Parameter, incomplete: str) -> list[str]:
    """Ids of the packs in the store that begin so."""

    def found(catalogue: Catalogue) -> Iterator[str]:
        for namespace in catalogue.namespaces():
            for environment_id in catalogue.environments(namespace):
                yield from sorted(catalogue.repository(namespace, environment_id).look().packs, reverse=True)

    return _completed(context, incomplete, found)


def namespaces(context: click.Context, _parameter: click.Parameter, incomplete: str) -> list[str]:
    """Namespaces in the store that begin so."""
    return _completed(context, incomplete, lambda catalogue: iter(catalogue.namespaces()))


def caches(_context: click.Context, _parameter: click.Parameter, incomplete: str) -> list[str]:
    """Names of caches that begin so."""
    from ..adapters import locate_caches
    from ..config import Config
    from ..errors import CacheError

    with suppress(CacheError), _silence():
        located = locate_caches(Config.from_environment())
        names = {*(root.name for root in located.roots), *located.refused}
        return sorted(name for name in names if name.startswith(incomplete))
    return []


def _completed(context: click.Context, incomplete: str, find: Callable[[Catalogue], Iterator[str]]) -> list[str]:
    from ..concurrency.deadline import Deadline
    from ..config import Config
    from ..errors import CacheError
    from ..inspection.bounded import bounded, open_store
    from ..repository.catalogue import Catalogue

    def work(deadline: Deadline) -> list[str]:
        config = Config.from_environment(store=context.params.get("store") or None)
        words: list[str] = []
        with open_store(config, deadline) as store:
            for word in find(Catalogue(store, config, deadline)):
                if word.startswith(incomplete) and len(words) < _MOST:
                    words.append(word)
        return words

    with suppress(CacheError), _silence():
        return bounded("complete", work, deadline_s=_DEADLINE_S)
    return []


@contextmanager
def _silence() -> Iterator[None]:
    """Let no log line come between a shell and its words."""
    logging.disable(logging.CRITICAL)
    try:
        yield
    finally:
        logging.disable(logging.NOTSET)
