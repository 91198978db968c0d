"""A Debian of another suite in a folder, for the Pythons that this machine lacks."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from .cells import PROJECT, Result

PACKAGES = "python3,python3-venv,python3-dev,gcc,g++,libc6-dev,make,zstd,ca-certificates"
NETWORK = ("/etc/resolv.conf", "/etc/hosts", "/etc/pip.conf", "/etc/ssl/certs/ca-certificates.crt")
"""What pip needs to reach the registry as on this machine."""
MIRROR = "http://deb.debian.org/debian"


def try_debian(suite: str) -> Result:
    """Try the Python of a Debian suite. Needs root and ``debootstrap``; takes a minute more than another cell.

    Args:
        suite: For example ``trixie`` or ``sid``.
    """
    with tempfile.TemporaryDirectory(prefix="b10-debian-") as made:
        root = Path(made)
        subprocess.run(
            ["debootstrap", "--variant=minbase", f"--include={PACKAGES}", suite, made, _mirror()],
            check=True,
            stdout=subprocess.DEVNULL,
        )
        for path in map(Path, NETWORK):
            if path.exists():
                (root / path.relative_to("/")).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(path, root / path.relative_to("/"))
        project = root / "project"
        subprocess.run(["git", "clone", "--quiet", str(PROJECT), str(project)], check=True)
        shutil.copytree(PROJECT / "dist", project / "dist")
        # The folder itself, so that it is a mount as a pod's root is, and what Python, terminals and `doctor` look at.
        subprocess.run(["mount", "--bind", made, made], check=True)
        mounts = [("proc", "proc"), ("tmpfs", "dev/shm"), ("devpts", "dev/pts")]
        for kind, place in mounts:
            (root / place).mkdir(exist_ok=True)
            subprocess.run(["mount", "-t", kind, kind, str(root / place)], check=True)
        try:
            command = ["chroot", made, "/bin/sh", "-c"]
            program = "cd /project && python3 -m tests.versions --python /usr/bin/python3 --json"
            done = subprocess.run([*command, program], check=False, stdout=subprocess.PIPE, text=True)
        finally:
            for place in [*(place for _, place in reversed(mounts)), "."]:
                subprocess.run(["umount", "--lazy", str(root / place)], check=True)
    *lines, last = done.stdout.splitlines()
    result = Result(**json.loads(last))
    if not result.is_good:
        print("\n".join(lines), file=sys.stderr)
    return result


def _mirror() -> str:
    """The mirror that this machine uses."""
    for path in [Path("/etc/apt/sources.list"), *sorted(Path("/etc/apt/sources.list.d").glob("*"))]:
        lines = path.read_text().splitlines() if path.is_file() else []
        for words in (line.split() for line in lines):
            if len(words) > 1 and words[0] in ("deb", "URIs:"):
                return next(word for word in words if "://" in word).rstrip("/")
    return MIRROR
