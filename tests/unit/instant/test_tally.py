"""What the report of use says about instant starts."""

from __future__ import annotations

from typing import Any

import pytest

pytest.importorskip("torch")

from b10_transfer.instant.tally import Tally, lines

pytestmark = pytest.mark.torch


def test_graph_counts_as_used_once_it_was_called_and_then_stands_for_itself() -> None:
    tally = Tally("Model")
    scope: dict[str, Any] = {}
    for name in ("__compiled_fn_1", "__compiled_fn_2"):
        scope[name] = tally.noting_first_call(scope, name, lambda x: x + 1)
    assert lines([tally]) == ["Model: instant, 0 of 2 graphs used"]
    first = scope["__compiled_fn_1"]
    assert [scope["__compiled_fn_1"](1), first(2), scope["__compiled_fn_1"](3)] == [2, 3, 4]
    assert scope["__compiled_fn_1"] is not first
    assert lines([tally]) == ["Model: instant, 1 of 2 graphs used"]


def test_functions_of_one_name_have_one_line_with_each_reason_once() -> None:
    blocks = [Tally("Block"), Tally("Block"), Tally("Head")]
    for block in blocks[:2]:
        block.reasons["settings.SCALE was 1.0, is 3.0"] = None
    assert lines(blocks) == [
        "Block: warm, because settings.SCALE was 1.0, is 3.0; to fix: give all replicas the same value, or save in one "
        "that has this value",
        "Head: warm, because the store had no trace of it",
    ]
    blocks[0].noting_first_call({}, "__compiled_fn_1", abs)
    assert lines(blocks[:2]) == [
        "Block: instant, 0 of 1 graph used; also traced, because settings.SCALE was 1.0, is 3.0; to fix: give all "
        "replicas the same value, or save in one that has this value"
    ]


def test_line_says_what_to_do_about_each_reason_once() -> None:
    tally = Tally("Model")
    for name in ("__bool__ (a.py)", "__str__ (b.py)"):
        tally.reasons[f"{name} ran while it was traced, and its result may be part of the trace"] = None
    tally.reasons["torch cannot serialize it"] = None
    [line] = lines([tally])
    assert line.startswith("Model: warm, because __bool__ (a.py) ran while")
    assert line.count("to fix") == 1
    assert line.endswith("; to fix: compute it before the model is called, and keep the result as an attribute")
