"""One pod of the matrix of routes: compile a function for each route to a constant, kind of constant and place.

``routes.py MODULES [--change] [--save]``: each call is compared with eager. ``--change`` then exchanges each constant
in place and calls again. Prints JSON: by case, how many graphs were traced and whether each result was right.
"""

from __future__ import annotations

import argparse
import importlib
import json
import logging
import os
import sys
import types
from typing import Any

import torch

from b10_transfer import load, save

loaded = load()
parser = argparse.ArgumentParser()
parser.add_argument("modules")
parser.add_argument("--change", action="store_true")
parser.add_argument("--save", action="store_true")
parser.add_argument("--kinds", default="")
parser.add_argument("--routes", default="")
options = parser.parse_args()
sys.path[:0] = [options.modules]
from generate import PLACES, ROUTES  # type: ignore[import-not-found]  # noqa: E402
from values import CONSTANTS, EDITION  # type: ignore[import-not-found]  # noqa: E402

X = torch.tensor([1.0, -2.0, 0.5, 4.0])
OPTIONS: Any = {"fallback_by_default": True}
"""Inductor then calls torch's own kernels, and runs no C++ compiler: these cases are about traces."""


def case(kind: str, route: str, place: str) -> tuple[Any, Any]:
    """What is compiled, and the module whose class holds the constant."""
    if place == "sequential":
        part = getattr(importlib.import_module(f"modules_{kind}"), f"sequential_{route}")
        return torch.nn.Sequential(part(), part()), part()
    made = getattr(importlib.import_module(f"own_{kind}"), f"{place}_{route}")
    if isinstance(made, types.FunctionType):
        return made, None
    model = made()
    return model, getattr(model, "model", model)


def is_right(compiled: Any, eager: Any) -> bool:
    right, found = eager(X.clone()), compiled(X.clone())
    return (
        right.dtype == found.dtype
        and torch.equal(right.isnan(), found.isnan())
        and torch.equal(right.nan_to_num(), found.nan_to_num())
    )


def run(kind: str, route: str, place: str) -> dict[str, Any]:
    eager, holder = case(kind, route, place)
    counters = torch._dynamo.utils.counters
    counters.clear()
    compiled = torch.compile(eager, dynamic=False, options=OPTIONS)
    told: dict[str, Any] = {"right": is_right(compiled, eager), "traced": counters["stats"]["unique_graphs"]}
    if options.change:
        change = getattr(importlib.import_module(f"changes_{kind}"), f"change_{route}")
        before, new = CONSTANTS[kind][EDITION], CONSTANTS[kind][1 - EDITION]
        wrap = staticmethod if kind == "function" and ROUTES[route][1].endswith(IN_A_CLASS) else (lambda value: value)
        change(wrap(new), holder)
        told["right_after_change"] = is_right(compiled, eager)
        change(wrap(before), holder)
    return told


IN_A_CLASS = ("Config.scale = new", "Inner.scale = new", "Base.inherited = new", "own = new")


ONE_PLACE = ("zero", "bool_or_int")
"""Kinds that differ from others only in how they compare."""


def main() -> None:
    logging.basicConfig(level=os.environ.get("LEVEL", "INFO"), stream=sys.stderr)
    logging.getLogger("torch").setLevel(logging.ERROR)
    torch._dynamo.config.recompile_limit = torch._dynamo.config.accumulated_recompile_limit = 10_000
    outcomes = {}
    with torch.no_grad():
        for kind in options.kinds.split(",") if options.kinds else CONSTANTS:
            for route in options.routes.split(",") if options.routes else ROUTES:
                for place in PLACES[:1] if kind in ONE_PLACE else PLACES:
                    name = f"{route} {kind} {place}"
                    logging.info("case %s", name)
                    try:
                        outcomes[name] = run(kind, route, place)
                    except Exception as error:
                        logging.exception(name)
                        outcomes[name] = {"error": f"{type(error).__name__}: {error}"}
    saved = save().status.name if options.save else ""
    print(json.dumps({"instant": loaded.instant, "saved": saved, "cases": outcomes}))


if __name__ == "__main__":
    main()
