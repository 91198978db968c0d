"""The CUDA driver's cache: PTX that it compiled for devices for which a library has no binary.

Layout (drivers of CUDA 13.1, from system calls; NVIDIA documents none): ``index`` and ``<hex>/<hex>/<hash>``, one file
for each piece of PTX. On a miss the driver creates an entry under its final name and fills it. Each lookup first opens
``index`` for writing. Names depend on the PTX, the device and the driver, so entries of another driver do not hit.

The content of ``index`` is not documented, so an index of one pod may not match the entries of another. Therefore
**the whole cache is one unit**. A save publishes it again if it has all files of the stored one and more. If two pods
compiled different code, the first to save wins. Nothing here distinguishes an entry of a killed process from a finished
one; the driver has to.

The unit must have one name everywhere, which is its folder's. So the root is ``.nv`` and the unit ``ComputeCache``.
Another ``CUDA_CACHE_PATH`` is left alone, because its parent may be any directory, for example a home directory.
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
    title = "Kernels that the CUDA driver compiled from PTX"
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
