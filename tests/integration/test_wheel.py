"""What pip builds: with a C compiler, and without one."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from zipfile import ZipFile

import pytest

PROJECT = Path(__file__).resolve().parents[2]
NATIVE = "b10_transfer/local/bulk/_native.abi3.so"


@pytest.mark.parametrize("compiler", ["cc", "false"])
def test_wheel_has_everything_and_works(tmp_path: Path, compiler: str) -> None:
    source = tmp_path / "source"
    source.mkdir()
    for name in ("pyproject.toml", "setup.py", "MANIFEST.in", "README.md", "LICENSE", "CHANGELOG.md"):
        shutil.copy(PROJECT / name, source)
    shutil.copytree(PROJECT / "src", source / "src", ignore=shutil.ignore_patterns("*.so", "*.egg-info", "__pycache__"))
    build = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    command = [*build, "--wheel-dir", str(tmp_path), str(source)]
    done = subprocess.run(command, env={**os.environ, "CC": compiler}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    [wheel] = tmp_path.glob("*.whl")
    with ZipFile(wheel) as archive:
        names = set(archive.namelist())
        archive.extractall(tmp_path / "installed")
    assert (NATIVE in names) == (compiler == "cc")
    assert "-cp310-abi3-linux_" in wheel.name
    modules = {str(path.relative_to(PROJECT / "src")) for path in (PROJECT / "src" / "b10_transfer").rglob("*.py")}
    assert modules | {"b10_transfer/py.typed", "b10_transfer/local/bulk/_native.pyi"} <= names
    assert not [name for name in names if name.startswith("tests")]
    assert any(name.endswith(".data/data/share/man/man1/b10-compile-cache.1") for name in names)
    program = "import b10_transfer.local.bulk as b; print(b.is_native, b.__file__)"
    environ = {**os.environ, "PYTHONPATH": str(tmp_path / "installed")}
    told = subprocess.run([sys.executable, "-c", program], env=environ, check=True, capture_output=True, text=True)
    assert told.stdout.split()[0] == str(compiler == "cc")
    assert str(tmp_path) in told.stdout
