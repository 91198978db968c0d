"""Directories that hold other things than a cache, wherever a variable points."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping

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
_CLOSED = (
    "/bin /boot /dev /etc /lib /lib32 /lib64 /proc /run/secrets /sbin /sys /usr /var/log /var/mail /var/run/secrets "
    "/var/spool"
)
_OPEN = ("/dev/shm", "/usr/src")
"""Directories in closed ones that may hold caches. Containers often have their program in /usr/src."""
_CREDENTIALS = (
    "~/.aws ~/.azure ~/.config/gcloud ~/.config/gh ~/.config/rclone ~/.docker ~/.git-credentials ~/.gnupg ~/.kube "
    "~/.local/share/keyrings ~/.netrc ~/.oci ~/.password-store ~/.pypirc ~/.ssh"
)
CREDENTIAL_VARIABLES = (
    *("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE", "AZURE_CONFIG_DIR", "B10_SIGNING_KEY", "CLOUDSDK_CONFIG"),
    *("DOCKER_CONFIG", "GNUPGHOME", "GOOGLE_APPLICATION_CREDENTIALS", "HF_TOKEN_PATH", "KUBECONFIG", "NETRC"),
)
"""Variables that say where credentials are. Only extra caches depend on them."""
_HUB_TREES = "~/.cache/huggingface ~/.cache/modelscope ~/.cache/torch/hub ~/.ollama"
_IN_HF_HOME = "accelerate assets datasets hub modules spaces stored_tokens token xet"
_HUB_FOLDERS = ("models--", "datasets--", "spaces--")
"""How names of folders in Hugging Face's hub begin."""
_CLOSED_NAMES = re.compile(
    rf"(?:^|/)(?:(?P<hub>{'|'.join(_HUB_FOLDERS)}|\.cache/huggingface(?:/|$))"
    r"|\.(?:aws|azure|docker|git-credentials|gnupg|kube|netrc|ssh)(?:/|$))"
)


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


def closed_places(env: EnvReader) -> Mapping[str, str]:
    """What directories and files are, by their paths with links resolved, of which no part may be in an extra cache.

    A compiler's cache may be below some of them: only files with the names of artifacts leave it.
    """
    places = {str(real_path(path)): "a directory of the system" for path in _CLOSED.split()}
    places |= {str(real_path(path)): "a place of credentials" for path in _CREDENTIALS.split()}
    places |= {str(real_path(path)): "a model hub" for path in _HUB_TREES.split()}
    for variable in CREDENTIAL_VARIABLES:
        for path in (env.text(variable) or "").split(":"):
            if path.startswith(("/", "~")):  # not a key itself
                places[str(real_path(path))] = "a place of credentials"
    return places | {str(real_path(path)): "a model hub" for path in _hubs_of_variables(env)}


def _hubs_of_variables(env: EnvReader) -> Iterator[str]:
    """Where models are. A directory that the user has named for a hub may have other folders than the hub's."""
    if shared := env.text("XDG_CACHE_HOME"):
        yield from (f"{shared}/huggingface", f"{shared}/torch/hub")
    for variable in HUB_VARIABLES:
        if path := env.text(variable):
            below = {"HF_HOME": _IN_HF_HOME, "TORCH_HOME": "hub"}.get(variable)
            yield from (f"{path}/{name}" for name in below.split()) if below else (path,)


def closed_by_name(path: str) -> str:
    """What a path leads into, by the names in it: a model of a hub, or credentials; empty if it is neither."""
    found = _CLOSED_NAMES.search(path)
    return "" if found is None else "part of a model hub" if found["hub"] else "a place of credentials"


def use_at(path: str, places: Mapping[str, str]) -> str | None:
    """What a path is that is one of some places, or below one; None if it is neither."""
    place = path
    while place not in places:
        if place == "/" or (place in _OPEN and place != path):
            return None
        place = os.path.dirname(place)
    return places[path] if path == place else f"in {place}, {places[place]}"


def _at(env: EnvReader, variable: str, use: str) -> dict[str, str]:
    path = env.text(variable)
    return {str(real_path(path)): use} if path else {}
