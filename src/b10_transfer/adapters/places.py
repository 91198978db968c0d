"""Directories that hold other things than a cache, wherever a variable points."""

from __future__ import annotations

import os
from collections.abc import Mapping

from ..config.reader import EnvReader, real_path

_SYSTEM = (
    "/ /bin /boot /cache /cache/model /dev /dev/shm /etc /home /lib /lib64 /media /mnt /opt /proc /root /run /sbin "
    "/srv /sys /tmp /usr /usr/lib /usr/local /usr/share /var /var/cache /var/lib /var/run /var/tmp /workspace"
)
_OF_THE_USER = "~/.aws ~/.azure ~/.cache ~/.config ~/.docker ~/.gnupg ~/.kube ~/.local ~/.local/share ~/.ssh"
_HUBS = "~/.cache/huggingface ~/.cache/huggingface/hub ~/.cache/modelscope ~/.cache/torch ~/.cache/torch/hub ~/.ollama"
HUB_VARIABLES = (
    *("HF_HOME", "HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "TRANSFORMERS_CACHE", "HF_DATASETS_CACHE"),
    *("MODELSCOPE_CACHE", "TORCH_HOME"),
)
"""Variables that say where models are."""
SHARED_VARIABLES = ("XDG_CACHE_HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME")
"""Variables that name directories of many programs."""
_HUB_FOLDERS = ("models--", "datasets--", "spaces--")
"""How names of folders in Hugging Face's hub begin."""


def other_uses(env: EnvReader) -> Mapping[str, str]:
    """What directories are, by their paths with links resolved, that no compiler should have for its cache."""
    uses = {str(real_path(path)): "a directory of the system" for path in _SYSTEM.split()}
    for variable in SHARED_VARIABLES:
        uses |= _at(env, variable, "a directory that many programs share")
    uses |= {str(real_path(path)): "a directory that many programs share" for path in _OF_THE_USER.split()}
    uses |= {str(real_path(path)): "a model hub" for path in _HUBS.split()}
    for variable in HUB_VARIABLES:
        uses |= _at(env, variable, "a model hub")
    home = str(real_path("~"))
    uses[home] = "the home directory"
    while (home := os.path.dirname(home)) != "/":
        uses[home] = "a directory that holds home directories"
    return uses


def lies_in_a_hub(path: str) -> bool:
    """Whether a path leads into a model of Hugging Face's hub."""
    return any(part.startswith(_HUB_FOLDERS) for part in path.split("/"))


def _at(env: EnvReader, variable: str, use: str) -> dict[str, str]:
    path = env.text(variable)
    return {str(real_path(path)): use} if path else {}
