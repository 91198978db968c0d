"""One start of a 24-layer transformer, for benchmarks/instant.py: ``KIND OUTPUT EXEC_TIME [uncovered]``; prints JSON.

With ``uncovered`` another call follows, of a length that nobody has compiled.
"""

from __future__ import annotations

import json
import logging
import sys
import time
from pathlib import Path

kind, output, began = sys.argv[1], Path(sys.argv[2]), float(sys.argv[3])
started = time.perf_counter()
import torch  # noqa: E402 - timed

imported = time.perf_counter()
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # this is run as a script
from benchmarks.transformer import LENGTH, VOCABULARY, Transformer  # noqa: E402

LAYERS = 24


def main() -> None:
    logging.basicConfig(level=logging.INFO, stream=sys.stderr)
    ready = time.perf_counter()
    if kind != "eager":
        from b10_transfer import load, save

        load(instant=kind in ("save", "instant"))
    loaded = time.perf_counter()
    torch.manual_seed(0)
    model = Transformer(LAYERS).eval()
    x = torch.randint(VOCABULARY, (1, LENGTH))
    built = time.perf_counter()
    compiled = model if kind == "eager" else torch.compile(model)
    put = time.perf_counter()
    with torch.no_grad():
        y = compiled(x)
    done = time.perf_counter()
    told = {
        "import_s": imported - started,
        "load_s": loaded - ready,
        "compile_s": put - built,
        "first_call_s": done - put,
        "to_first_result_s": time.time() - began,
        "traced": 0,
    }
    if kind == "save":
        torch.save(y, output)
        save()
    elif kind != "eager":
        told["traced"] = torch._dynamo.utils.counters["stats"]["unique_graphs"]
    told["apart"] = float((torch.load(output) - y).abs().max())
    if "uncovered" in sys.argv:
        x = torch.randint(VOCABULARY, (1, LENGTH // 2))
        with torch.no_grad():
            right = model(x)
            began_at = time.perf_counter()
            y = compiled(x)
            told["uncovered_call_s"] = time.perf_counter() - began_at
        told["apart"] = max(told["apart"], float((right - y).abs().max()))
    print(json.dumps(told))


if __name__ == "__main__":
    main()
