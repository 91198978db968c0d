"""The file in which a pack is built before it is published."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import BinaryIO

from ..errors import LocalCacheError
from ..stores.folders import make_folders


@contextmanager
def spool(work_dir: Path) -> Iterator[BinaryIO]:
    """An unnamed file in the local working directory; gone with its descriptor, whatever happens."""
    with ExitStack() as cleanup:
        try:
            make_folders(work_dir)
            file = cleanup.enter_context(tempfile.TemporaryFile(dir=work_dir, prefix="b10-transfer-"))
        except OSError as error:
            raise _error(work_dir, error) from error
        yield file


@contextmanager
def building_errors(work_dir: Path) -> Iterator[None]:
    """Turns an OSError of building a pack there into a LocalCacheError."""
    try:
        yield
    except OSError as error:
        raise _error(work_dir, error) from error


def _error(work_dir: Path, error: OSError) -> LocalCacheError:
    reason = error.strerror or str(error)
    return LocalCacheError(
        "build the pack in",
        str(work_dir),
        f"{reason}. Point LOCAL_WORK_DIR at a folder that has room and can be written",
    )
