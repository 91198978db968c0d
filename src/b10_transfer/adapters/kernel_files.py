"""Files that a compiler writes in the same way in its own cache and in Inductor's, and when an object is finished.

Inductor points FlyDSL and QuACK at folders in its own cache, some versions only in its own process. So the same files
lie in both places, and both adapters take their patterns from here.

FlyDSL 0.5 writes ``<function>/<SHA-256>.pkl``. Up to 0.3 it wrote ``<function>_<digest of the sources>/<digest>.pkl``
(``flydsl/compiler/jit_function.py``). QuACK writes ``<fingerprint>/<key>.o`` (``quack/cache/jit.py``).
"""

from __future__ import annotations

from pathlib import Path

from .base import is_locked
from .layout import NAME, SHA256, Layout, Shape, stem_shape


def flydsl_shapes(folder: str = "") -> tuple[Shape, ...]:
    """FlyDSL's kernels, below a folder that is given with a slash at its end."""
    return (
        stem_shape(rf"{folder}{NAME}/{SHA256}\.pkl"),
        stem_shape(rf"{folder}{NAME}_[0-9a-f]{{8,64}}/[0-9a-f]{{16}}\.pkl"),
    )


def quack_shape(folder: str = "") -> Shape:
    """QuACK's kernels, below a folder that is given with a slash at its end."""
    return stem_shape(rf"{folder}{SHA256}/{SHA256}\.o")


FLYDSL_LAYOUT = Layout(*flydsl_shapes())
"""FlyDSL's cache. It is compared by identity: Inductor's adapter covers a cache of this layout in its own."""


def is_object_locked(file: Path) -> bool:
    """Whether a compiler holds ``<key>.lock``, under which it writes ``<key>.o``."""
    return is_locked(file.with_suffix(".lock"))
