"""Writes the modules of the matrix of routes: ``generate.py FOLDER``.

A route is a way in which code reaches a constant. For each kind of constant a module ``settings_<kind>`` holds it in
every way. A frame reads it from three places: a function of the compiled module itself, a function of another
module that is inlined, and a module inside ``nn.Sequential``. ``change_<route>`` exchanges the constant in a running
process.
"""

from __future__ import annotations

import sys
from pathlib import Path

from values import CONSTANTS  # type: ignore[import-not-found]  # beside this file

ROUTES = {
    "module_attribute": ("S.SCALE", "S.SCALE = new"),
    "nested_module": ("S.nested.SCALE", "S.nested.SCALE = new"),
    "class_attribute": ("S.Config.scale", "S.Config.scale = new"),
    "nested_class": ("S.Config.Inner.scale", "S.Config.Inner.scale = new"),
    "instance": ("S.HOLDER.scale", "S.HOLDER.scale = new"),
    "dict": ('S.TABLE["scale"]', 'S.TABLE["scale"] = new'),
    "list": ("S.LIST[1]", "S.LIST[1] = new"),
    "tuple": ("S.TUPLE[1]", "S.TUPLE = (None, new)"),
    "named_tuple": ("S.PAIR.scale", "S.PAIR = S.Pair(None, new)"),
    "frozen_dataclass": ("S.FROZEN.scale", "S.FROZEN = S.Frozen(new)"),
    "namespace": ("S.SPACE.scale", "S.SPACE.scale = new"),
    "enumeration": ("S.Mode.A.value[0]", "S.Mode.A._value_ = (new,)"),
    "default": ("S.by_default()", "S.by_default.__defaults__ = (new,)"),
    "keyword_default": ("S.by_keyword()", 'S.by_keyword.__kwdefaults__["scale"] = new'),
    "function_attribute": ("S.by_attribute()", "S.by_attribute.scale = new"),
    "closure": ("S.CLOSED()", "S.CLOSED.__closure__[0].cell_contents = new"),
    "partial": ("S.PARTIAL()", "S.PARTIAL = S.functools.partial(S.same, new)"),
    "property": ("S.HOLDER.by_property", "S.HOLDER.hidden = new"),
    "static_method": ("S.Config.static()", "S.Config.static.__defaults__ = (new,)"),
    "class_method": ("S.Config.of_class()", "S.Config.scale = new"),
    "inherited": ("S.DERIVED.inherited", "S.Base.inherited = new"),
    "built_in_the_frame": ("S.Built().scale", "S.Config.scale = new"),
    "own_class": ("self.own", "type(self).own = new"),
}
"""How a frame reads the constant of a settings module ``S``, and how it is exchanged."""
PLACES = ("own", "inlined", "sequential")

SETTINGS = """
import dataclasses
import enum
import functools
import types
from typing import Any, NamedTuple

import nested_{kind} as nested
from values import CONSTANTS, EDITION

SCALE = CONSTANTS["{kind}"][EDITION]


class Config:
    scale = SCALE if not isinstance(SCALE, types.FunctionType) else staticmethod(SCALE)

    class Inner:
        scale = SCALE if not isinstance(SCALE, types.FunctionType) else staticmethod(SCALE)

    @staticmethod
    def static(scale=SCALE):
        return scale

    @classmethod
    def of_class(cls):
        return cls.scale


class Built(Config):
    pass


class Base:
    inherited = SCALE if not isinstance(SCALE, types.FunctionType) else staticmethod(SCALE)


class Derived(Base):
    pass


class Holder:
    def __init__(self):
        self.scale = self.hidden = SCALE

    @property
    def by_property(self):
        return self.hidden


class Pair(NamedTuple):
    other: Any
    scale: Any


@dataclasses.dataclass(frozen=True)
class Frozen:
    scale: Any


class Mode(enum.Enum):
    A = (SCALE,)


HOLDER, DERIVED = Holder(), Derived()
TABLE = {{"other": None, "scale": SCALE}}
LIST = [None, SCALE]
TUPLE = (None, SCALE)
PAIR = Pair(None, SCALE)
FROZEN = Frozen(SCALE)
SPACE = types.SimpleNamespace(scale=SCALE)


def same(scale):
    return scale


def by_default(scale=SCALE):
    return scale


def by_keyword(*, scale=SCALE):
    return scale


def by_attribute():
    return by_attribute.scale


by_attribute.scale = SCALE


def make(scale):
    def closed():
        return scale

    return closed


CLOSED = make(SCALE)
PARTIAL = functools.partial(same, SCALE)
"""
NESTED = """
from values import CONSTANTS, EDITION

SCALE = CONSTANTS["{kind}"][EDITION]
"""
FUNCTION = """
def {name}(x):
    return use_{kind}(x, {read})
"""
MODULE = """
class {name}(torch.nn.Module):
    own = S.SCALE if "{kind}" != "function" else staticmethod(S.SCALE)

    def forward(self, x):
        return use_{kind}(x, {read})
"""
HEAD = "import settings_{kind} as S\nimport torch\nfrom values import use_{kind}\n"


def main(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for kind in CONSTANTS:
        own, inlined, modules, changes = ([HEAD.format(kind=kind)] for _ in range(4))
        own.append(f"import library_{kind}\n")
        for route, (read, change) in ROUTES.items():
            names = {"kind": kind, "read": read}
            if route == "own_class":
                own.append(MODULE.format(name=f"own_{route}", **names))
                inlined.append(MODULE.format(name=f"Model_{route}", **names))
                own.append(
                    f"\nclass inlined_{route}(torch.nn.Module):\n    def __init__(self):\n        super().__init__()\n"
                    f"        self.model = library_{kind}.Model_{route}()\n\n"
                    "    def forward(self, x):\n        return self.model(x)\n"
                )
            else:
                own.append(FUNCTION.format(name=f"own_{route}", **names))
                inlined.append(FUNCTION.format(name=f"inlined_{route}", **names))
                own.append(f"\ndef inlined_{route}(x):\n    return library_{kind}.inlined_{route}(x)\n")
            modules.append(MODULE.format(name=f"sequential_{route}", **names))
            changes.append(f"\ndef change_{route}(new, self):\n    {change}\n")
        files = {"own": own, "library": inlined, "modules": modules, "changes": changes}
        for name, parts in files.items():
            (folder / f"{name}_{kind}.py").write_text("\n".join(parts))
        (folder / f"settings_{kind}.py").write_text(SETTINGS.format(kind=kind))
        (folder / f"nested_{kind}.py").write_text(NESTED.format(kind=kind))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
