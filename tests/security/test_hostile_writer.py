"""A writer of a directory store without a key, who also makes links, pipes, sparse files and folders.

``make hammer`` sets ``B10_HOSTILE_STEPS`` to 10,000.
"""

from __future__ import annotations

import os
import shutil
import stat
import time
from pathlib import Path

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import precondition, rule

from tests.security.hostile_writer import ANY, MOST_COPIED_BYTES, NAMES, PLACES, HostileWriter, steps

STEPS = int(os.environ.get("B10_HOSTILE_STEPS", "400"))


class HostileWriterOfADirectory(HostileWriter):
    @property
    def store(self) -> Path:
        return self.folder / "store"

    def make_store(self) -> str:
        return str(self.store)

    def names(self) -> list[str]:
        """Without links, pipes and folders: those are no objects."""
        return [path.relative_to(self.store).as_posix() for path in sorted(self.store.rglob("*")) if is_regular(path)]

    def read(self, name: str) -> bytes | None:
        path = self.store / name
        return path.read_bytes() if path.stat().st_size < MOST_COPIED_BYTES else None

    def put(self, name: str, content: bytes) -> None:
        path = self.store / name
        folder = self.store
        for part in path.parent.relative_to(self.store).parts:
            folder /= part
            if not os.path.lexists(folder):
                folder.mkdir()
            elif folder.is_symlink() or not folder.is_dir():
                return
        if os.path.lexists(path) and not is_regular(path):
            return
        path.unlink(missing_ok=True)
        path.write_bytes(content)

    def delete(self, name: str) -> None:
        (self.store / name).unlink()

    @rule(place=st.sampled_from(PLACES), name=st.sampled_from(NAMES), kind=st.integers(0, 4), choice=ANY)
    def attacker_creates_what_no_bucket_has(self, place: str, name: str, kind: int, choice: int) -> None:
        path = self.store / self.environment() / place / name if choice % 5 else self.store / ".staging" / name
        if path.parent.is_dir() and not path.parent.is_symlink() and not os.path.lexists(path):
            self.make(path, kind, choice)

    @precondition(lambda self: self.is_destructive)
    @rule(choice=ANY, how=st.integers(0, 2))
    def attacker_tampers_with_a_file(self, choice: int, how: int) -> None:
        if names := self.names():
            self.was_destructive = True
            path, other = (self.store / names[(choice + more) % len(names)] for more in (0, 1))
            if how == 0:
                os.truncate(path, 1 << 40)
            elif how == 1:
                path.rename(other)
            else:
                os.utime(path, (choice, choice))

    @precondition(lambda self: self.is_destructive)
    @rule(choice=ANY, by=st.sampled_from(["nothing", "link", "file", "pipe", "link to itself"]))
    def attacker_replaces_a_folder(self, choice: int, by: str) -> None:
        folders = [path for path in sorted(self.store.rglob("*")) if path.is_dir() and not path.is_symlink()]
        if folders:
            self.was_destructive = True
            folder = folders[choice % len(folders)]
            shutil.rmtree(folder)
            if by == "link":
                folder.symlink_to(self.victim)
            elif by == "link to itself":
                folder.symlink_to(folder.name)
            elif by == "file":
                folder.write_bytes(b"")
            elif by == "pipe":
                os.mkfifo(folder)

    @precondition(lambda self: self.is_destructive)
    @rule(choice=ANY)
    def attacker_swaps_folders(self, choice: int) -> None:
        found = sorted((self.store / self.environment()).glob("*"))
        folders = [path for path in found if path.is_dir() and not path.is_symlink()]
        if len(folders) > 1:
            self.was_destructive = True
            one, other = folders[choice % len(folders)], folders[(choice + 1) % len(folders)]
            one.rename(self.folder / "swap")
            other.rename(one)
            (self.folder / "swap").rename(other)

    def make(self, path: Path, kind: int, choice: int) -> None:
        if kind == 0:
            os.mkfifo(path)
        elif kind == 1:
            path.symlink_to(self.victim / "id_rsa")
        elif kind == 2:
            path.mkdir()
        else:
            path.write_bytes(b"")
            if kind == 3:
                os.truncate(path, 1 << 40)
            then = time.time() - 10 * 86400 if choice % 2 else time.time() + 10 * 86400
            os.utime(path, (then, then))


def is_regular(path: Path) -> bool:
    return stat.S_ISREG(path.lstat().st_mode)


TestHostileWriter = HostileWriterOfADirectory.TestCase
TestHostileWriter.settings = steps(STEPS)
if STEPS > 1000:
    TestHostileWriter = pytest.mark.timeout(3600)(TestHostileWriter)
