"""The example package of docs/extending.md in an environment of its own, and small packages for this process."""

from __future__ import annotations

import importlib
import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from b10_transfer.adapters.plugins import plugin_adapters
from b10_transfer.config.plugins import ADAPTERS, STORES, installed

PAGE = Path(__file__).parents[2] / "docs" / "extending.md"
FILES: dict[str, str] = dict(re.findall(r"(?ms)^`([\w./-]+)`\n\n```\w+\n(.*?)^```$", PAGE.read_text()))
"""The files that the page shows, by their paths."""


@dataclass(frozen=True)
class Installed:
    """An environment with the example package."""

    python: Path
    project: Path
    """The source of the package, with its tests."""

    def run(self, *arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
        command = [str(self.python), *arguments]
        return subprocess.run(command, env={**os.environ, **environ}, capture_output=True, text=True, timeout=240)

    def program(self, source: str, **environ: str) -> Any:
        """What a program prints, as JSON."""
        done = self.run("-c", source, **environ)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)


@pytest.fixture(scope="session")
def example(tmp_path_factory: pytest.TempPathFactory) -> Installed:
    folder = tmp_path_factory.mktemp("extending")
    project = folder / "project"
    for path, text in FILES.items():
        (project / path).parent.mkdir(parents=True, exist_ok=True)
        (project / path).write_text(text)
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder / "venv"], check=True)
    python = folder / "venv" / "bin" / "python"
    # The packages of the tests' own environment, with those that are installed editable.
    [site_packages] = (folder / "venv" / "lib").glob("python*/site-packages")
    (site_packages / "outer.pth").write_text(f"import site; site.addsitedir({sysconfig.get_paths()['purelib']!r})\n")
    pip = [sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet", "--no-index"]
    subprocess.run([*pip, "--no-deps", "--no-build-isolation", str(project)], check=True, timeout=240)
    return Installed(python, project)


class Packages:
    """Packages that this process can import, each with its metadata."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def add(
        self,
        name: str,
        *,
        stores: Mapping[str, str] | None = None,
        adapters: Mapping[str, str] | None = None,
        modules: Mapping[str, str] | None = None,
    ) -> None:
        """Install version 1.0 of a package with these entry points and modules."""
        metadata = self._folder / f"{name}-1.0.dist-info"
        metadata.mkdir()
        groups = {STORES: stores or {}, ADAPTERS: adapters or {}}
        lines = [
            f"[{group}]\n" + "".join(f"{key} = {value}\n" for key, value in found.items())
            for group, found in groups.items()
        ]
        (metadata / "entry_points.txt").write_text("\n".join(lines))
        for module, source in (modules or {}).items():
            (self._folder / f"{module}.py").write_text(source)
        importlib.invalidate_caches()
        forget()

    def remove(self, name: str) -> None:
        """Uninstall a package, if it is installed. Its imported modules stay."""
        shutil.rmtree(self._folder / f"{name}-1.0.dist-info", ignore_errors=True)
        forget()


def forget() -> None:
    """Have this process look for plugins again."""
    installed.forget()
    plugin_adapters.forget()


@pytest.fixture
def packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Packages]:
    folder = tmp_path / "packages"
    folder.mkdir()
    monkeypatch.syspath_prepend(str(folder))
    before = set(sys.modules)
    forget()
    yield Packages(folder)
    forget()
    for name in set(sys.modules) - before:
        if str(getattr(sys.modules[name], "__file__", "")).startswith(str(folder)):
            del sys.modules[name]
