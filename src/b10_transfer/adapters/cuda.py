"""What the CUDA driver has compiled from PTX, for devices that a library holds no binary for.

Layout (drivers of CUDA 13.1, as system calls show it; NVIDIA documents none): ``index`` and ``<hex>/<hex>/<hash>``, one
file for each piece of PTX. On a miss the driver creates an entry under its final name and fills it; every look opens
``index`` first, for writing. Names follow the PTX, the device and the driver, so another driver's entries do not hit.

What ``index`` says of the entries is not known, so that one of one pod beside entries of another cannot be called
sound: **the whole cache is one unit**. A save publishes it anew, whole, once it has all the files of the stored one and
more; of two pods that compiled different things the first to save wins. An entry that was cut short by a killed process
cannot be told from a finished one; whether the driver can is for the driver.

The unit must have one name everywhere: its folder's. So the root is ``.nv``, the unit ``ComputeCache``, and a
``CUDA_CACHE_PATH`` that does not end so is left alone: what lies around it may be anything, a home directory say.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Collection
from pathlib import Path

from ..config.reader import EnvReader, Variable, resolve
from ..notices import notices
from .base import Adapter, Unit
from .layout import Layout, folder_shape

logger = logging.getLogger(__name__)

_UNIT = "ComputeCache"
_INDEX = f"{_UNIT}/index"


class CudaAdapter(Adapter):
    """``CUDA_CACHE_PATH`` or ``~/.nv/ComputeCache``; the root is the folder around it."""

    name = "cuda"
    title = "What the CUDA driver compiled from PTX"
    units = "the whole cache"
    variables = (
        Variable(
            "CUDA_CACHE_PATH",
            "`~/.nv/ComputeCache`",
            "a path that ends in `.nv/ComputeCache`; another is left alone",
            "Where the CUDA driver keeps what it compiled.",
        ),
    )

    layout = Layout(
        folder_shape(_UNIT, "index"),
        folder_shape(_UNIT, "[0-9a-f]/[0-9a-f]{2,64}"),
        folder_shape(_UNIT, "[0-9a-f]/[0-9a-f]/[0-9a-f]{2,64}"),
        left_here=("GLCache",),
    )

    def locate(self, env: EnvReader) -> Path | None:
        name = "CUDA_CACHE_PATH"
        text = env.text(name)
        folder, last = os.path.split(os.path.normpath(text or os.path.join("~", ".nv", _UNIT)))
        if last == _UNIT and os.path.basename(folder) == ".nv":
            return resolve(name, folder)
        notices.log(
            logger,
            logging.WARNING,
            f"{name}={text}: the CUDA driver's cache is not saved there. Give it a path that ends in .nv/{_UNIT}",
        )
        return None

    def is_complete(self, root: Path, unit: Unit, files: Collection[str]) -> bool:
        return _INDEX in files and len(files) > 1
