"""torch's and Triton's versions, read from their files without importing them."""

from __future__ import annotations

import ast
import re
from typing import NamedTuple

from .interpreter import interpreter

OLDEST_TORCH = (2, 6)
"""The oldest release in docs/compatibility.md."""


class TorchBuild(NamedTuple):
    """What torch was built for. A value that torch does not have is empty; all are empty without torch."""

    version: str = ""
    """With the local tag: ``2.13.0+cu130``."""
    cuda: str = ""
    hip: str = ""
    xpu: str = ""

    def is_before(self, release: tuple[int, int]) -> bool:
        """Whether this is an older release, for example than ``(2, 6)``. False if the version has another form."""
        found = re.match(r"(\d+)\.(\d+)", self.version)
        return found is not None and (int(found[1]), int(found[2])) < release


def torch_build() -> TorchBuild:
    """Read ``torch/version.py`` of the server's Python, a file of plain assignments (torch 2.0 to 2.15)."""
    source = interpreter().read_module_file("torch", "version.py")
    if source is None:
        return TorchBuild()
    values = {}
    for node in ast.parse(source).body:
        if isinstance(node, ast.Assign):
            names, value = node.targets, node.value
        elif isinstance(node, ast.AnnAssign) and node.value is not None:
            names, value = [node.target], node.value
        else:
            continue
        if isinstance(value, ast.Constant):
            values.update({name.id: value.value or "" for name in names if isinstance(name, ast.Name)})
    return TorchBuild(
        version=str(values.get("__version__", "")),
        cuda=str(values.get("cuda", "")),
        hip=str(values.get("hip", "")),
        xpu=str(values.get("xpu", "")),
    )


def triton_version() -> str:
    """Read Triton's ``__version__`` from its source; empty if it is not installed.

    Package metadata does not help: the package has several names (``triton``, ``pytorch-triton``,
    ``pytorch-triton-rocm``).
    """
    pattern = r"^__version__\s*=\s*['\"]([^'\"]+)['\"]"
    return interpreter().search_module_file("triton", "__init__.py", pattern) or ""
