"""Empties cache roots for a while: their content is moved into a folder in each of them, and put back later.

The folder is in the root, because a root may be a mount point. Its name is never that of an artifact. If the process
that moved the content was killed, :func:`put_back_left` of another process puts it back.
"""

from __future__ import annotations

import fcntl
import logging
import os
import shutil
from collections.abc import Collection, Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from ..adapters import CacheRoot
from ..errors import LocalCacheError, explained
from .ownership import FOLDER, check_private

logger = logging.getLogger(__name__)

ASIDE = ".b10-aside"
_OURS = ".b10-"
"""Locks and staging stay where they are."""


@contextmanager
def moved_aside(roots: Iterable[CacheRoot]) -> Iterator[None]:
    """Empty some cache roots in this context. At its end their new content is deleted, and the old one is put back.

    Raises LocalCacheError if a root cannot be emptied; then all are as before.
    """
    with ExitStack() as cleanup:
        for path, kept in _outermost(roots).items():
            if os.path.isdir(path):
                try:
                    cleanup.enter_context(_emptied(path, kept))
                except OSError as error:
                    raise LocalCacheError("empty", str(path), explained(error)) from error
            else:
                cleanup.callback(_remove, path)
        yield


def put_back_left(roots: Iterable[CacheRoot]) -> None:
    """Put back the content that a killed process has moved aside. What the roots hold now stays, too."""
    for path in _outermost(roots):
        with suppress(FileNotFoundError, NotADirectoryError), _locked(path / ASIDE) as is_left:
            if is_left:
                logger.warning("%s holds what a killed process has moved aside: it is put back", path / ASIDE)
                _merge(path / ASIDE, path)


def _outermost(roots: Iterable[CacheRoot]) -> dict[Path, set[str]]:
    """The roots that lie in no other, and the names in them that lead to a store or another folder that stays.

    Without roots that other users could have written to.
    """
    kept: dict[Path, set[str]] = {}
    for root in roots:
        with suppress(LocalCacheError):
            check_private(root)
            names = {path.relative_to(root.path).parts[0] for path in root.nested}
            names |= {path.partition("/")[0] for path, _use in root.reserved}
            kept[root.path] = kept.get(root.path, set()) | names
    return {path: kept[path] for path in sorted(kept) if not kept.keys() & set(path.parents)}


@contextmanager
def _emptied(path: Path, kept: Collection[str]) -> Iterator[None]:
    aside = path / ASIDE
    with suppress(FileExistsError):  # another process moves its content there, or has left it
        aside.mkdir(mode=0o700)
    with _locked(aside) as is_free:
        if not is_free:
            raise BlockingIOError(0, "another process has moved its content aside")
        try:
            for name in _content(path, kept):
                os.rename(path / name, aside / name)
            yield
        finally:
            for name in _content(path, kept):
                _remove(path / name)
            _merge(aside, path)


@contextmanager
def _locked(folder: Path) -> Iterator[bool]:
    """Lock a folder, as long as its content is that of a live process; yields False if another process has done so."""
    descriptor = os.open(folder, FOLDER)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True
    finally:
        os.close(descriptor)


def _content(path: Path, kept: Collection[str]) -> list[str]:
    return [name for name in os.listdir(path) if not name.startswith(_OURS) and name not in kept]


def _merge(source: Path, target: Path) -> None:
    """Move the entries of one folder to another, and remove the first. Entries that are in both are kept as they are
    in the second."""
    for name in os.listdir(source):
        old, new = source / name, target / name
        if not os.path.lexists(new):
            os.rename(old, new)
        elif old.is_dir() and new.is_dir() and not old.is_symlink() and not new.is_symlink():
            _merge(old, new)
        else:
            _remove(old)
    source.rmdir()


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
