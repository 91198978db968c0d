"""One pod: functions whose results differ between processes, or depend on what a program has replaced.

``CHANGED=1`` replaces builtins, a module and autocast's dtype. ``PYTHONHASHSEED`` differs between pods. Prints JSON: by
case, whether the result was right and how many graphs were traced.
"""

from __future__ import annotations

import builtins
import json
import os
import sys
import types
from typing import Any

import torch
from torch import Tensor

from b10_transfer import load, save

CHANGED = os.environ["CHANGED"] == "1"
OPTIONS: Any = {"fallback_by_default": True}  # without a C++ compiler
NAMES = {"alpha", "beta", "gamma", "delta", "epsilon"}
FROZEN = frozenset(NAMES)
TABLE = {"names": NAMES}


class Plain:
    pass


OBJECT = Plain()


def first(names: Any) -> int:
    """A number for the first letter."""
    return ord(next(iter(names))[0])


def hash_of_text(x: Tensor) -> Tensor:
    return x * (hash("alpha") % 7 + 1)


def hash_of_tuple(x: Tensor) -> Tensor:
    return x * (hash(("alpha", 1)) % 7 + 1)


def hash_of_object(x: Tensor) -> Tensor:
    return x * (hash(OBJECT) // 16 % 7 + 1)


def hash_by_method(x: Tensor) -> Tensor:
    return x * ("alpha".__hash__() % 7 + 1)


def hash_of_number(x: Tensor) -> Tensor:
    return x * hash(3)


def set_iterated(x: Tensor) -> Tensor:
    for name in FROZEN:
        x = x * 2.0 + ord(name[0])
    return x


def set_called(x: Tensor) -> Tensor:
    return x * first(NAMES)


def set_listed(x: Tensor) -> Tensor:
    return x * first(list(TABLE["names"]))


def set_unpacked(x: Tensor) -> Tensor:
    return x * first([*NAMES])


def set_given(x: Tensor) -> Tensor:
    return x * max(*FROZEN, key=lambda _name: 0).count("a")


def set_extends(x: Tensor) -> Tensor:
    names: list[str] = []
    names.extend(NAMES)
    return x * first(names)


def set_joined(x: Tensor) -> Tensor:
    return x * first(",".join({"alpha", "beta", "gamma", "delta"}))


def set_written(x: Tensor) -> Tensor:
    """Python makes a set of three constants or more by adding all that one of the code holds to an empty one."""
    devices = {"cpu", "cuda", "xpu", "mps"}
    return x * 2 if x.device.type in devices else x * 3


def set_asked(x: Tensor) -> Tensor:
    return x * (len(NAMES) if "alpha" in NAMES and FROZEN == NAMES else 1.0)


def address_in_repr(x: Tensor) -> Tensor:
    return x * ord(repr(OBJECT)[-4])


def address_in_format(x: Tensor) -> Tensor:
    return x * ord(f"{OBJECT} {first}"[-4])


_builtins: Any = builtins
_builtins.b10_test_factor = 5.0 if CHANGED else 2.0
PYTHON_S_DIVMOD = divmod


def own_divmod(a: Any, b: Any) -> Any:
    return (5.0, 5.0) if a == 7.5 else PYTHON_S_DIVMOD(a, b)


if CHANGED:
    _builtins.divmod = own_divmod


def constant_among_builtins(x: Tensor) -> Any:
    return x * b10_test_factor  # type: ignore[name-defined]  # noqa: F821


def replaced_builtin(x: Tensor) -> Tensor:
    return x * divmod(7.5, 2)[0]


def module(value: float) -> None:
    """Put a module of the same name in the place of another."""
    made: Any = types.ModuleType("b10_test_settings")
    made.value = value
    sys.modules["b10_test_settings"] = made


def imported(x: Tensor) -> Any:
    import b10_test_settings as settings  # type: ignore[import-not-found]

    return x * settings.value


def imported_again(x: Tensor) -> Any:
    import b10_test_settings as settings

    return x + settings.value


def dtype_of_autocast(x: Tensor) -> Tensor:
    return x.to(torch.get_autocast_dtype("cpu"))


CASES = (
    *(hash_of_text, hash_of_tuple, hash_of_object, hash_by_method, hash_of_number),
    *(set_iterated, set_called, set_listed, set_unpacked, set_given, set_extends, set_joined),
    *(set_asked, set_written, address_in_repr, address_in_format, constant_among_builtins, replaced_builtin),
    *(imported, imported_again, dtype_of_autocast),
)


def main() -> None:
    load()
    told: dict[str, Any] = {}
    x = torch.arange(6.0)
    counters = torch._dynamo.utils.counters
    if CHANGED:
        torch.set_autocast_dtype("cpu", torch.float16)
    module(2.0)
    with torch.no_grad():
        for case in CASES:
            if CHANGED and case is imported_again:
                module(5.0)
            counters.clear()
            found, right = torch.compile(case, options=OPTIONS)(x), case(x)
            is_right = found.dtype == right.dtype and torch.equal(found, right)
            told[case.__name__] = {"right": is_right, "traced": counters["stats"]["unique_graphs"]}
    save()
    print(json.dumps(told))


if __name__ == "__main__":
    main()
