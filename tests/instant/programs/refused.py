"""One function whose trace is kept, and one whose trace is refused, because its code runs while it is traced.

Prints as JSON: whether the results are right, how many graphs were traced and found in AOTAutograd's cache, and the
outcome of the save. ``SHIFT`` is a constant of a function that both call; with ``PLAIN=1`` the other one has no code
that runs.
"""

from __future__ import annotations

import importlib
import json
import logging
import os
import sys
from pathlib import Path
from typing import Any

import torch
import torch._dynamo.utils as dynamo_utils

import b10_transfer

HELPER = f"""
import enum

def shift(x):
    return x + {os.environ["SHIFT"]}

class Mode(enum.Enum):
    FAST = 1
"""
RUNS = """
    def __bool__(self):
        return True
"""
Path("helper.py").write_text(HELPER + (RUNS if os.environ["PLAIN"] == "0" else ""))
sys.path.insert(0, os.getcwd())
helper: Any = importlib.import_module("helper")


def kept(x: torch.Tensor) -> torch.Tensor:
    shifted: torch.Tensor = helper.shift(x)
    return shifted * 2.0


def refused(x: torch.Tensor) -> torch.Tensor:
    shifted: torch.Tensor = helper.shift(x)
    return shifted * 3.0 if helper.Mode.FAST else x


logging.basicConfig(level=logging.INFO)
report = b10_transfer.load()
x = torch.randn(8)
right = all(
    torch.equal(torch.compile(function, options={"fallback_by_default": True})(x), function(x))
    for function in (kept, refused)
)
saved = b10_transfer.save()
counters = dynamo_utils.counters
print(
    json.dumps(
        {
            "instant": report.instant,
            "right": right,
            "traced": counters["stats"].get("unique_graphs", 0),
            "found": counters["aot_autograd"].get("autograd_cache_hit", 0),
            "missed": counters["aot_autograd"].get("autograd_cache_miss", 0),
            "saved": saved.status.name,
            "reason": saved.reason,
            "report": b10_transfer.cache_report().instant,
        }
    )
)
