"""vLLM's facts about model classes.

Layout (vLLM 0.32, ``vllm/model_executor/models/registry.py``): ``VLLM_CACHE_ROOT/modelinfos/<module>-<class>.json``
with ``hash``, of the module's source, and ``modelinfo``, the features of the class. It is written under another name
and renamed. At each start without such a file, vLLM imports the class in a process of its own, which takes about 10 s.

The hash covers that one source, and no class that it inherits from. So a saved file also has vLLM's version. Another
version of vLLM gets a file with a hash that fits nothing, and writes it again. Files about models of plugins are not
saved, because nothing here knows the version of a plugin.
"""

from __future__ import annotations

import json
from collections.abc import Collection
from pathlib import Path

from ..config.reader import EnvReader
from ..environment.interpreter import interpreter
from .base import Adapter, Unit, json_object
from .layout import Layout, stem_shape
from .vllm_root import VLLM_CACHE_ROOT, vllm_cache_root

_NO_INFO = "not what vLLM writes about a model class"
_VERSION = "vllm"
"""The key of vLLM's version in a saved file."""


class VllmModelInfosAdapter(Adapter):
    """``VLLM_CACHE_ROOT/modelinfos``."""

    name = "vllm_modelinfos"
    title = "vLLM's facts about model classes; auxiliary: saved only together with artifacts"
    units = "a file, valid for one version of vLLM"
    variables = (VLLM_CACHE_ROOT,)
    accompanies = True

    layout = Layout(stem_shape(r"vllm-[\w.-]+\.json"), left_here=(r"[^/]+\.json",))

    def locate(self, env: EnvReader) -> Path:
        return vllm_cache_root(env) / "modelinfos"

    def may_be_replaced(self, unit: Unit, files: Collection[str] = ()) -> bool:
        return True

    def depends_on_host(self, unit: Unit, files: Collection[str]) -> bool:
        return False

    def is_rewritten(self, path: str) -> bool:
        return True

    def to_portable(self, root: Path, path: str, data: bytes, files: Collection[str]) -> bytes:
        if (version := _installed_version()) is None:
            raise ValueError("no vLLM is installed for this Python")
        return json.dumps({_VERSION: version, **_read(data)}).encode()

    def to_local(self, root: Path, path: str, data: bytes) -> bytes:
        content = _read(data)
        if content.pop(_VERSION, None) != _installed_version():
            content["hash"] = ""
        return json.dumps(content).encode()


def _read(data: bytes) -> dict[str, object]:
    content = json_object(data, _NO_INFO)
    if not {"hash", "modelinfo"} <= content.keys():
        raise ValueError(_NO_INFO)
    return content


def _installed_version() -> str | None:
    """vLLM's version, from its files. The version of a build between two releases includes the commit."""
    return interpreter().search_module_file("vllm", "_version.py", r"^__version__ = .*?['\"]([^'\"]+)['\"]")
