"""FlashInfer's settings for mixtures of experts.

``FLASHINFER_MOE_EP_KNOB_CACHE`` (FlashInfer 0.7.2, ``moe_ep/…/knob_cache.py``) names one file, or is ``0`` or ``off``.
By default the file is ``~/.cache/flashinfer/moe_ep_knob_cache.json``, wherever ``FLASHINFER_WORKSPACE_BASE`` points.
Each entry is for one device and shape. FlashInfer rewrites the file whole and renames it into place. A saved file also
has FlashInfer's version; another version gets no settings.

A file without ``knob`` in its name is not saved, because its folder may have files of other programs.

Packs from before 1.0.0 have the default file among FlashInfer's kernels. A load still restores such a unit there
(:mod:`.flashinfer`).
"""

from __future__ import annotations

import json
import logging
import os
import re
from collections.abc import Collection
from pathlib import Path

from ..config.reader import EnvReader, Variable, real_path, resolve
from ..environment.interpreter import interpreter
from ..notices import notices
from .base import Adapter, Unit, json_object
from .layout import Layout, stem_shape

logger = logging.getLogger(__name__)

KNOBS = "moe_ep_knob_cache.json"
_NAME = "FLASHINFER_MOE_EP_KNOB_CACHE"
_OFF = ("0", "off", "none", "disable", "disabled")
_FILE = r"(?:[A-Za-z0-9_+-][\w.+-]*)?knob[\w.+-]*\.json"
_VERSION = "flashinfer"
"""The key of FlashInfer's version in saved settings."""
_NO_KNOBS = "not FlashInfer's settings for mixtures of experts"


class FlashInferKnobsAdapter(Adapter):
    """The folder of the file that ``FLASHINFER_MOE_EP_KNOB_CACHE`` names, or ``~/.cache/flashinfer``."""

    name = "flashinfer_knobs"
    title = "FlashInfer's settings for mixtures of experts"
    units = "the file"
    variables = (
        Variable(
            _NAME,
            f"`~/.cache/flashinfer/{KNOBS}`",
            "an absolute path of a file with `knob` in its name, which ends in `.json`; another is left alone. Its "
            "folder must not be one with another use, for example `/tmp`. `0` or `off`: FlashInfer keeps nothing",
            "FlashInfer's settings for mixtures of experts.",
        ),
    )
    most_rewritten_bytes = 4 * 1024 * 1024
    layout = Layout(stem_shape(_FILE), left_here=(r"\.moe_ep_knob_cache\.\w+",))

    def locate(self, env: EnvReader) -> Path | None:
        text = env.text(_NAME)
        if text is None:
            return real_path("~/.cache/flashinfer")
        if text.strip().lower() in _OFF:
            return None
        folder, name = os.path.split(os.path.expanduser(text))
        if os.path.isabs(folder) and re.fullmatch(_FILE, name, re.ASCII):
            return resolve(_NAME, folder)
        notices.log(
            logger,
            logging.WARNING,
            f"{_NAME}={text}: FlashInfer's settings are not saved there. Give it an absolute path of a file with "
            f"'knob' in its name, which ends in .json, for example /cache/flashinfer/{KNOBS}",
        )
        return None

    def may_be_replaced(self, unit: Unit, files: Collection[str] = ()) -> bool:
        return True

    def depends_on_host(self, unit: Unit, files: Collection[str]) -> bool:
        return False

    def is_rewritten(self, path: str) -> bool:
        return True

    def to_portable(self, root: Path, path: str, data: bytes, files: Collection[str]) -> bytes:
        return portable_knobs(data)

    def to_local(self, root: Path, path: str, data: bytes) -> bytes:
        return local_knobs(data)


def portable_knobs(data: bytes) -> bytes:
    """Settings with FlashInfer's version. Raises ValueError if there are none of the installed FlashInfer."""
    content, version = _knobs(data), _installed_version()
    if version is None or not content["entries"]:
        raise ValueError("it has no settings of the installed FlashInfer")
    return json.dumps({_VERSION: version, **content}).encode()


def local_knobs(data: bytes) -> bytes:
    """Settings as FlashInfer writes them. Raises ValueError if they are malformed."""
    content = _knobs(data)
    if content.pop(_VERSION, None) != _installed_version():
        content["entries"] = []  # settings of another version's kernels
    return json.dumps(content, indent=1).encode()


def _knobs(data: bytes) -> dict[str, object]:
    content = json_object(data, _NO_KNOBS)
    if not isinstance(content.get("entries"), list) or "version" not in content:
        raise ValueError(_NO_KNOBS)
    return content


def _installed_version() -> str | None:
    """FlashInfer's version, from its files."""
    return interpreter().search_module_file("flashinfer", "_build_meta.py", r"^__version__ = ['\"]([^'\"]+)['\"]")
