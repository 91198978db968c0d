"""A real extension of PyTorch is restored to another path, with newer sources of the same content."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.torch

PROGRAM = Path(__file__).parent / "programs" / "load_extension.py"
SOURCE = """\
#define PY_SSIZE_T_CLEAN
#include <Python.h>
static PyObject *answer(PyObject *self, PyObject *none) { return PyLong_FromLong(42); }
static PyMethodDef methods[] = {{"answer", answer, METH_NOARGS, nullptr}, {nullptr, nullptr, 0, nullptr}};
static PyModuleDef module = {PyModuleDef_HEAD_INIT, "mod", nullptr, -1, methods};
PyMODINIT_FUNC PyInit_mod() { return PyModule_Create(&module); }
"""


def test_second_pod_builds_no_extension(tmp_path: Path) -> None:
    if shutil.which("c++") is None:
        message = "needs c++"
        pytest.fail(message) if os.environ.get("B10_TEST_EVERYTHING") else pytest.skip(message)
    source = tmp_path / "mod.cpp"
    source.write_text(SOURCE)

    def run(pod: str, operation: str) -> dict[str, Any]:
        variables = {"B10_STORE": str(tmp_path / "store"), "HOME": str(tmp_path / pod), "TMPDIR": str(tmp_path)}
        variables |= {"TORCH_EXTENSIONS_DIR": str(tmp_path / pod / "extensions"), "LOCAL_WORK_DIR": str(tmp_path)}
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}"
        command = [sys.executable, str(PROGRAM), str(source), operation]
        environment = os.environ | variables | {"PATH": path}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=240)
        assert done.returncode == 0, done.stderr
        outcome: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
        assert outcome["status"] == "SUCCESS", outcome
        assert outcome["answer"] == 42
        return outcome

    run("first", "save")
    os.utime(source)
    run("second", "load")
    built, restored = (tmp_path / pod / "extensions" / "mod" / "mod.so" for pod in ("first", "second"))
    assert restored.read_bytes() == built.read_bytes()
    assert restored.stat().st_mtime_ns == source.stat().st_mtime_ns, "ninja has linked it anew"
