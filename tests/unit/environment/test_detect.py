"""The whole key, and that it is found without torch yet equals what torch says."""

from __future__ import annotations

import json
import logging
import platform
import subprocess
import sys

import pytest

from b10_transfer.environment import detect
from b10_transfer.environment.frameworks import TorchBuild
from b10_transfer.version import __version__

PARTS = [
    "torch",
    "triton",
    "python",
    "machine",
    "libc",
    "cpu features",
    "accelerator",
    "device",
    "compute capability",
    "toolkit",
]


def run(program: str) -> dict[str, str]:
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    found: dict[str, str] = json.loads(result.stdout)
    return found


def test_key_has_every_part_that_must_be_equal() -> None:
    environment = detect()
    assert list(environment.parts) == PARTS
    assert environment.parts["machine"] == platform.machine()
    assert environment.parts["python"] == sys.implementation.cache_tag
    assert environment.parts["cpu features"]
    assert environment.parts["libc"]


def test_driver_host_and_version_are_recorded_but_not_compared() -> None:
    environment = detect()
    assert environment.recorded.keys() == {"driver", "hostname", "b10-transfer", "interpreter"}
    assert environment.recorded["b10-transfer"] == __version__
    assert not environment.recorded.keys() & environment.parts.keys()


def test_key_is_the_same_in_another_process() -> None:
    program = "import json; from b10_transfer.environment import detect; print(json.dumps(dict(detect().parts)))"
    assert run(program) == detect().parts


def test_torch_is_not_imported_for_the_key_nor_for_the_public_functions() -> None:
    program = """
import json, sys
import b10_transfer
from b10_transfer.environment import detect
from b10_transfer.environment.frameworks import TorchBuild
b10_transfer.load, b10_transfer.save, detect()
print(json.dumps({name: "" for name in ("torch", "triton", "numpy") if name in sys.modules}))
"""
    assert run(program) == {}


@pytest.mark.torch
def test_key_equals_that_of_an_imported_torch() -> None:
    said = run("import json; from b10_transfer.environment.imported_torch import parts; print(json.dumps(parts()))")
    assert said["torch"]
    found = detect().parts
    assert {name: found[name] for name in said} == said


def test_torch_below_the_supported_floor_is_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules["b10_transfer.environment.detect"], "torch_build", lambda: TorchBuild("2.5.1+cpu"))
    [remark] = [remark for remark in detect().remarks if "2.5.1" in remark.seen]
    assert remark.level == logging.WARNING
    assert "2.6" in remark.seen
