"""One pod: load, compile many small models, compare each call with eager, save. Prints JSON, one entry a case.

``matrix.py CASE...`` runs those cases; ``--changed`` what another process would find changed.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import sys
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from b10_transfer import load, save

loaded = load()
import models as m  # type: ignore[import-not-found]  # noqa: E402 - beside this file, or a changed copy of it

no_grad = torch.no_grad
Call = tuple[tuple[Any, ...], dict[str, Any]]
Case = Callable[[], tuple[Any, list[Call]]]
CASES: dict[str, Case] = {}
CHANGED: dict[str, Case] = {}
OPTIONS: dict[str, dict[str, Any]] = {}
TRAINING = {"training"}
CONTEXT: dict[str, Callable[[], AbstractContextManager[Any]]] = {"grad": nullcontext, "inference": torch.inference_mode}


def call(*arguments: Any, **keywords: Any) -> Call:
    return arguments, keywords


def case(name: str, what: Any, *calls: Call, registry: dict[str, Case] = CASES, **options: Any) -> None:
    def build() -> tuple[Any, list[Call]]:
        torch.manual_seed(0)
        made = what()
        return made.eval() if isinstance(made, nn.Module) and name not in TRAINING else made, list(calls)

    registry[name] = build
    if registry is CASES:
        OPTIONS[name] = options


def changed(name: str, what: Any, *calls: Call) -> None:
    case(name, what, *calls, registry=CHANGED)


def x(*shape: int) -> Tensor:
    return torch.linspace(-1, 1, int(torch.tensor(shape).prod())).reshape(shape)


def with_attributes(make: Any, **attributes: Any) -> Any:
    def build() -> Any:
        made = make()
        for name, value in attributes.items():
            setattr(made, name, value)
        return made

    return build


def with_global(function: Any, **values: Any) -> Any:
    def build() -> Any:
        for name, value in values.items():
            setattr(m, name, value)
        return function

    return build


def hooked(factor: float) -> Any:
    def build() -> Any:
        made = m.MLP()
        made.net[0].register_forward_hook(lambda _m, _i, output: output * factor)
        return made

    return build


case("mlp", m.MLP, call(x(4, 8)))
case("conv", m.ConvNet, call(x(2, 3, 8, 8)))
case("residual", m.Residual, call(x(4, 8)), mode="default")
case("attention", m.Attention, call(x(2, 4, 8)), call(x(2, 4, 8), torch.ones(4, 4).tril().bool()))
case("block", m.Block, call(x(2, 4, 8)), fullgraph=True)
case("recurrent", m.Recurrent, call(x(2, 3, 8)))
case("tied", m.Tied, call(torch.arange(6).reshape(2, 3)))
case("buffers", m.Counting, call(x(3)), call(x(3)))
case("dropout", m.Dropped, call(x(4, 8)))
case("graph breaks", m.Broken, call(x(4, 8)))
case("data dependent", m.DataDependent, call(x(5)), call(x(5) + 1))
case("structured", m.Structured, call(x(4), scale=2.0), call(x(4), extra={"bias": x(4)}))
case("hyper", m.Hyper, call(x(4)))
case("decorated", m.Decorated, call(x(4)))
case("globals", lambda: m.uses_globals, call(x(4)))
case("helper", lambda: m.uses_helper, call(x(4)))
case("exchanged", lambda: m.uses_exchanged, call(x(4)))
case("nested", lambda: m.nested, call(x(4)))
case("closure", lambda: m.closure_of(2.0), call(x(4)))
case("threads", lambda: m.threads, call(x(4)))
case("lists", lambda: m.listy, call([x(3), x(4)], 2))
case("sequential", lambda: nn.Sequential(nn.Linear(8, 8), nn.ReLU()), call(x(4, 8)))
case("hooks", hooked(2.0), call(x(4, 8)))
case("shapes", m.Residual, call(x(4, 8)), call(x(6, 8)), call(x(9, 8)))
case("dynamic", m.Residual, call(x(4, 8)), call(x(5, 8)), dynamic=True)
case("static", m.Residual, call(x(4, 8)), call(x(5, 8)), dynamic=False)
case("dtypes", lambda: m.nested, call(x(4)), call(x(4).double()))
case("grad", m.MLP, call(x(4, 8)))
case("inference", m.Block, call(x(2, 4, 8)))
case("lambdas", lambda: m.Same.first[0], call(x(3)))
case("thread", m.MLP, call(x(4, 8)))
case("second of two", lambda: m.MLP(gain=4.0), call(x(4, 8)))
case("eager backend", m.MLP, call(x(4, 8)), backend="eager")
case("reduce-overhead", m.MLP, call(x(4, 8)), mode="reduce-overhead")

changed("mlp", with_attributes(m.MLP, gain=3.0), call(x(4, 8)))
changed("conv", m.ConvNet, call(x(2, 3, 8, 8).to(memory_format=torch.channels_last)))
changed("training", m.ConvNet, call(x(2, 3, 8, 8)))
changed("residual", m.Residual, call(x(7, 8)), call(x(7, 8).double().float()))
changed("attention", m.Attention, call(x(2, 4, 8), torch.zeros(4, 4)))
changed("block", with_attributes(m.Block, mlp=nn.Linear(8, 8)), call(x(2, 4, 8)))
changed("recurrent", m.Recurrent, call(x(2, 5, 8)))
changed("tied", with_attributes(m.Tied, head=nn.Linear(8, 10, bias=False)), call(torch.arange(6).reshape(2, 3)))
changed("graph breaks", m.Broken, call(x(3, 8)), call(x(5, 8)))
changed("data dependent", m.DataDependent, call(x(5) - 1))
changed("structured", m.Structured, call(x(4), scale=5.0), call(x(4), extra={"bias": x(1)}))
changed("hyper", with_attributes(m.Hyper, name="minus", options={"deep": [1, 7]}), call(x(4)))
changed("globals", with_global(m.uses_globals, TABLE={"gain": 7.0}, SCALE=3.0), call(x(4)))
changed("helper", with_global(m.uses_helper, helper=m.other_helper), call(x(4)))
changed("exchanged", with_global(m.uses_exchanged, EXCHANGED=torch.cos), call(x(4)))
changed("closure", lambda: m.closure_of(5.0), call(x(4)))
changed("lists", lambda: m.listy, call([x(3)], 2), call([x(3), x(4)], 3))
changed("sequential", lambda: nn.Sequential(nn.Linear(8, 8), nn.Tanh()), call(x(4, 8)))
changed("hooks", hooked(5.0), call(x(4, 8)))
changed("dtypes", lambda: m.nested, call(x(4).half()))
changed("grad", with_attributes(m.MLP, function=torch.cos), call(x(4, 8)))
changed("thread", with_attributes(m.MLP, activation=torch.nn.functional.silu), call(x(4, 8)))
changed("inference", m.Block, call(x(2, 6, 8)))
changed("lambdas", lambda: m.Same.first[1], call(x(3)))
changed("dropout", with_attributes(m.Dropped, training=False), call(x(4, 8).requires_grad_()))


def copied(calls: list[Call]) -> list[Call]:
    return [torch.utils._pytree.tree_map_only(Tensor, Tensor.clone, made) for made in calls]


def run(name: str, registry: dict[str, Case]) -> dict[str, Any]:
    counters = torch._dynamo.utils.counters
    context = CONTEXT.get(name, no_grad)
    eager, calls = registry[name]()
    told: dict[str, Any] = {"apart": [], "first_s": []}
    traced = counters["stats"]["unique_graphs"]
    with context():
        expected = [eager(*arguments, **keywords) for arguments, keywords in copied(calls)]
    made, _ = registry[name]()
    counters["frames"].clear()
    compiled = torch.compile(made, **OPTIONS.get(name, {}))

    def act() -> None:
        with context():
            for (arguments, keywords), right in zip(copied(calls), expected, strict=True):
                began = time.perf_counter()
                found = compiled(*arguments, **keywords)  # type: ignore[no-untyped-call]
                told["first_s"].append(round(time.perf_counter() - began, 4))
                told["apart"].append(apart(found, right))

    if name == "thread":
        runner = threading.Thread(target=act)
        runner.start()
        runner.join()
    else:
        act()
    told["traced"] = counters["stats"]["unique_graphs"] - traced
    told["frames"] = counters["frames"]["total"]
    told["graphs_found"], told["graphs_missed"] = (
        counters["aot_autograd"][f"autograd_cache_{e}"] for e in ("hit", "miss")
    )
    return told


def apart(found: Any, right: Any) -> str:
    """Empty if two results are the same."""
    try:
        coarse = isinstance(found, Tensor) and found.dtype is torch.half
        torch.testing.assert_close(found, right, rtol=2e-3 if coarse else 1e-4, atol=1e-3 if coarse else 1e-5)
    except (AssertionError, TypeError) as error:
        if isinstance(found, dict) and {k: v for k, v in found.items() if isinstance(v, str)}:
            plain = [{k: v for k, v in each.items() if not isinstance(v, str)} for each in (found, right)]
            return apart(*plain)
        return str(error) or "apart"
    return ""


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--changed", action="store_true")
    parser.add_argument("--threads", type=int)
    parser.add_argument("cases", nargs="*")
    options = parser.parse_args()
    logging.basicConfig(level=os.environ.get("LEVEL", "INFO"), stream=sys.stderr)
    torch.set_num_threads(options.threads or 1)
    registry = CHANGED if options.changed else CASES
    outcomes = {}
    for name in options.cases or registry:
        torch._dynamo.utils.counters.clear()
        torch.manual_seed(0)
        try:
            outcomes[name] = run(name, registry)
        except Exception as error:
            logging.exception(name)
            outcomes[name] = {"error": f"{type(error).__name__}: {error}"}
    saved = save()
    told = {"loaded": loaded.status.name, "instant": loaded.instant, "saved": saved.status.name}
    print(json.dumps(told | {"units": saved.units, "cases": outcomes}))


if __name__ == "__main__":
    main()
