"""What this process has open below a folder: unlike a count, it does not change when garbage of another test goes."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path


def opened_below(folder: Path) -> list[str]:
    """Paths of the open files and folders that lie in a folder, and the folder itself if it is open."""
    links = []
    for descriptor in os.listdir("/proc/self/fd"):
        with suppress(FileNotFoundError):
            links.append(os.readlink(f"/proc/self/fd/{descriptor}"))
    return [link for link in links if Path(link).is_relative_to(folder)]
