"""What torch's own caching mode does, without us: why instant starts do not use it. Prints what happened.

``torch_alone.py`` runs itself twice with ``TORCH_CACHING_PRECOMPILE=1`` and one cache directory.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile

import torch


class Settings:
    """A constant that differs between the process that saves and the one that loads."""

    scale = 1.0 if sys.argv[1:] == ["save"] else 3.0


def scaled(x: torch.Tensor) -> torch.Tensor:
    return x * Settings.scale


class Model(torch.nn.Module):
    """One activation, a function."""

    def __init__(self, activation: object) -> None:
        super().__init__()
        self.activation = activation

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.activation(x) + 1  # type: ignore[no-any-return,operator]


def main() -> None:
    if len(sys.argv) == 1:
        with tempfile.TemporaryDirectory() as folder:
            environment = os.environ | {"TORCH_CACHING_PRECOMPILE": "1", "TORCHINDUCTOR_CACHE_DIR": folder}
            for step in ("save", "load"):
                subprocess.run([sys.executable, __file__, step], env=environment, check=True, stderr=subprocess.DEVNULL)
        return
    x = torch.linspace(-1, 1, 4)
    model = Model(torch.sin if sys.argv[1] == "save" else torch.cos).eval()
    compiled = torch.compile(model, dynamic=False)
    with torch.no_grad():
        apart = float((compiled(x) - model(x)).abs().max())
        by_constant = float((torch.compile(scaled, dynamic=False)(x) - scaled(x)).abs().max())
    if sys.argv[1] == "save":
        torch.compiler.save_cache_artifacts()
        return
    print(f"another constant: off by {by_constant:.2f}")
    print(f"another activation: off by {apart:.2f}")
    try:
        with torch.no_grad():
            compiled(torch.linspace(-1, 1, 8))
        print("another shape: fine")
    except AssertionError as error:
        print(f"another shape: AssertionError: {error}")


if __name__ == "__main__":
    main()
