"""What torch's public ways to keep compiled functions do, without us: why instant starts build on none of them.

``torch_public.py`` runs itself twice, the second time with other constants, and prints what happened
(docs/decisions/011-torchs-public-ways.md).
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
import torch._dynamo.utils as dynamo_utils

STEP, FOLDER = (*sys.argv[1:], "", "")[:2]
SCALE = 1.0 if STEP == "save" else 3.0


class Settings:
    """A constant of a class."""

    scale = SCALE


def activation(x: torch.Tensor) -> torch.Tensor:
    return torch.sin(x) if STEP == "save" else torch.cos(x)


def constant(x: torch.Tensor) -> torch.Tensor:
    return x * SCALE


def constant_of_a_class(x: torch.Tensor) -> torch.Tensor:
    return x * Settings.scale


def function(x: torch.Tensor) -> torch.Tensor:
    return activation(x) + 1


FUNCTIONS: tuple[Any, ...] = (constant, constant_of_a_class, function)


def broken(x: torch.Tensor) -> torch.Tensor:
    x = x + 1
    torch._dynamo.graph_break()
    return x * 2


def every(guards: Sequence[object]) -> list[bool]:
    return [True] * len(guards)


def outcome(call: Callable[[], object]) -> str:
    """The result of a call, or the first line of its error."""
    try:
        return str(call())
    except Exception as error:  # noqa: BLE001 - it is what is shown
        return f"{type(error).__name__}: {str(error).strip().splitlines()[0]}"


def save_one(compiled: Any, x: torch.Tensor, name: str) -> str:
    compiled.aot_compile(((x,), {})).save_compiled_function(Path(FOLDER, name))
    return "saved"


def load_one(name: str, x: torch.Tensor, expected: torch.Tensor) -> str:
    with Path(FOLDER, name).open("rb") as file:
        loaded: Any = torch.compiler.load_compiled_function(file, f_globals=globals())
    return f"off by {float((loaded(x) - expected).abs().max()):.2f}"


def save(x: torch.Tensor) -> None:
    for each in FUNCTIONS:
        save_one(torch.compile(each, fullgraph=True), x, each.__name__)
        guarded = torch.compile(each, fullgraph=True, options={"guard_filter_fn": every})
        name = f"{each.__name__}_guarded"
        print(f"aot_compile with every guard, {each.__name__}:", outcome(lambda: save_one(guarded, x, name)))  # noqa: B023
    print("aot_compile, a graph break:", outcome(lambda: save_one(torch.compile(broken), x, "broken")))
    torch.compile(constant)(x)
    artifacts = torch.compiler.save_cache_artifacts()
    assert artifacts is not None
    Path(FOLDER, "mega").write_bytes(artifacts[0])


def load(x: torch.Tensor) -> None:
    for each in FUNCTIONS:
        print(f"aot_compile, another {each.__name__}:", outcome(lambda: load_one(each.__name__, x, each(x))))  # noqa: B023
    longer = torch.linspace(-1, 1, 8)
    print("aot_compile, another size:", outcome(lambda: load_one("function", longer, function(longer))))
    torch.compiler.load_cache_artifacts(Path(FOLDER, "mega").read_bytes())
    torch.compile(constant)(x)
    print("save_cache_artifacts, graphs traced after the load:", dynamo_utils.counters["stats"]["unique_graphs"])


def main() -> None:
    if STEP:
        torch._dynamo.config.enable_aot_compile = True
        (save if STEP == "save" else load)(torch.linspace(-1, 1, 4))
        return
    print("torch", torch.__version__, flush=True)
    with tempfile.TemporaryDirectory() as folder:
        for step in ("save", "load"):
            environment = os.environ | {"TORCHINDUCTOR_CACHE_DIR": f"{folder}/{step}"}
            subprocess.run(
                [sys.executable, __file__, step, folder], env=environment, check=True, stderr=subprocess.DEVNULL
            )


if __name__ == "__main__":
    main()
