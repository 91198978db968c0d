"""Helion's kernels and tuning.

Layout (Helion 1.5.1, ``helion/autotuner/local_cache.py``): ``<key>.best_config``, the fastest configuration, whose key
covers the kernel's source, the device and the toolkit; ``triton/<device>/`` and ``cute/<device>/``, at which Helion
points Triton and CuTe DSL in its own process unless their variables are set. Triton's group files hold absolute paths,
as everywhere (:mod:`.triton`). Helion's keys of CuTe kernels leave out the cache's path.

``backward/helion_bwd_<MD5>.py`` does not travel: Helion generates its text in every process, and only compares it.
"""

from __future__ import annotations

from pathlib import Path

from ..config.reader import EnvReader, Variable
from .inductor import InductorAdapter
from .layout import NAME, SHA256, Layout, folder_shape, stem_shape
from .triton import KERNEL, KERNEL_FILE


class HelionAdapter(InductorAdapter):
    """``HELION_CACHE_DIR`` or ``helion`` in Inductor's cache directory."""

    name = "helion"
    title = "Helion's tuning, and the Triton and CuTe kernels in its directory"
    units = "a configuration's file, a kernel's folder"
    variables = (
        Variable("HELION_CACHE_DIR", "`helion` in `TORCHINDUCTOR_CACHE_DIR`", "a path", "Helion's kernels and tuning."),
    )
    layout = Layout(
        stem_shape(rf"{SHA256}\.best_config"),
        folder_shape(rf"triton/{NAME}/(?:{KERNEL})", KERNEL_FILE),
        stem_shape(rf"cute/{NAME}/cute_dsl_[A-Za-z0-9]{{26,64}}", r"\.(?:mlir|json)"),
        left_here=("backward",),
    )

    def locate(self, env: EnvReader) -> Path:
        return env.literal_path("HELION_CACHE_DIR") or super().locate(env) / "helion"

    def check_place(self, env: EnvReader, path: Path) -> None:
        if env.text("HELION_CACHE_DIR") is None:
            super().check_place(env, path)
