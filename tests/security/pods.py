"""What the tests of hostile stores share: files that nobody may touch, and commands that must end in order."""

from __future__ import annotations

import atexit
import functools
import os
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

from tests.command import Answer, command

PACK_ID = "01a228e00000-0000000000000001"
PRECIOUS = (
    "id_rsa",
    "config.json",
    "model.safetensors",
    "environment.json",
    f"{PACK_ID}.tar.zst",
    PACK_ID,
    f"{PACK_ID}.pruned",
    "slot-00.00000001",
    "save-0123456789abcdef.00000001",
    f"{0:032x}.tmp",
    f"{0:032x}.now",
    "v1,default.claim",
    "20200101",
)
"""Names of other people's files: any, and all the forms that a store has."""


def make_victim(folder: Path) -> Path:
    """A folder of old files outside the store."""
    (folder / "packs").mkdir(parents=True)
    for name in PRECIOUS:
        for file in (folder / name, folder / "packs" / name):
            file.write_text("precious")
    set_old(folder)
    return folder


def set_old(folder: Path, seconds: float = 10 * 86400) -> None:
    """Give everything below a folder the age at which leftovers are removed."""
    then = time.time() - seconds
    for path in folder.rglob("*"):
        os.utime(path, (then, then), follow_symlinks=False)


def photograph(folder: Path) -> Mapping[str, tuple[object, ...]]:
    """Everything about the files and folders below a folder."""
    found: dict[str, tuple[object, ...]] = {}
    for path in [folder, *folder.rglob("*")]:
        status = path.lstat()
        content = path.read_bytes() if stat.S_ISREG(status.st_mode) else b""
        kind = (status.st_mode, status.st_uid, status.st_gid, status.st_nlink, status.st_ino)
        found[str(path)] = (*kind, status.st_mtime_ns, content)
    return found


@functools.cache
def scratch() -> Path:
    """A folder in ``/tmp`` for the examples of this process. It is removed when the process ends, also by SIGKILL."""
    folder = tempfile.mkdtemp(prefix="hostile-", dir="/tmp")
    Path(folder).chmod(0o755)
    # The end of its input is the end of this process. Its own session keeps signals to a group away from it.
    program = "import shutil, sys; sys.stdin.read(); shutil.rmtree(sys.argv[1], ignore_errors=True)"
    remover = subprocess.Popen([sys.executable, "-c", program, folder], stdin=subprocess.PIPE, start_new_session=True)
    atexit.register(remover.communicate)
    return Path(folder)


COMMANDS: tuple[tuple[str, ...], ...] = (
    ("ls", "--packs"),
    ("verify",),
    ("info",),
    ("explain",),
    ("doctor",),
    ("load",),
    ("save",),
    ("quarantine", "--since", "2020-01-01"),
    ("prune", "--keep", "0", "--grace", "0", "--yes"),
    ("prune", "--keep", "0", "--grace", "0", "--yes"),
    ("clear", "--store", "--all-environments", "--yes"),
)
"""The commands that look at a store or change it, those that delete last."""


def run_all(commands: tuple[tuple[str, ...], ...] = COMMANDS) -> dict[tuple[str, ...], Answer]:
    """Run commands one after another. Each must end with one of its exit codes; ``command`` raises what they raise."""
    answers = {}
    for arguments in commands:
        answer = answers[arguments] = command(*arguments)
        assert answer.exit_code in (0, 1, 3), (arguments, answer)
        assert "Traceback" not in answer.stdout + answer.stderr, (arguments, answer)
    return answers
