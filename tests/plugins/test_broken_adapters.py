"""A cache of another package that is broken is left out with one warning; every other cache is saved and restored."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path

import pytest

from b10_transfer import OperationStatus, load, save
from tests.command import command
from tests.conftest import IsolatedEnv, read_tree_of

from .conftest import Packages

ADAPTER = """
import sys
from pathlib import Path
from b10_transfer.adapters import Adapter, Layout, Unit, UnitKind, Variable, folder_shape

class Acme(Adapter):
    name = "acme"
    title = "Kernels of acme"
    units = "a folder"
    layout = Layout(folder_shape("[a-z]+", "kernel"))
    def locate(self, env):
        return env.path("ACME_CACHE_DIR") or Path.home() / ".cache" / "acme"
"""
FAULTS = {
    "module is missing": ("no_such_module:Acme", ""),
    "attribute is missing": ("acme:Missing", ""),
    "no entry point": ("acme", ""),
    "raises when imported": ("acme:Acme", "raise RuntimeError('no GPU')"),
    "exits when imported": ("acme:Acme", "sys.exit(3)"),
    "not an adapter": ("acme:Path", ""),
    "an instance": ("acme:acme", "acme = Acme()"),
    "abstract": ("acme:Acme", "del Acme.locate; Acme = type('Acme', (Adapter,), {'name': 'acme'})"),
    "another name": ("acme:Acme", "Acme.name = 'other'"),
    "no layout": ("acme:Acme", "del Acme.layout"),
    "wrong layout": ("acme:Acme", "Acme.layout = 'kernels'"),
    "wrong title": ("acme:Acme", "Acme.title = None"),
    "wrong variables": ("acme:Acme", "Acme.variables = ('ACME',)"),
    "wrong version": ("acme:Acme", "Acme.version = 1.0"),
    "locate raises": ("acme:Acme", "Acme.locate = lambda self, env: 1 / 0"),
    "locate returns text": ("acme:Acme", "Acme.locate = lambda self, env: '/tmp/acme'"),
    "locate returns a relative path": ("acme:Acme", "Acme.locate = lambda self, env: Path('acme')"),
    "locate returns the root": ("acme:Acme", "Acme.locate = lambda self, env: Path('/')"),
    "locate exits": ("acme:Acme", "Acme.locate = lambda self, env: sys.exit(1)"),
    "check_place raises": ("acme:Acme", "Acme.check_place = lambda self, env, path: 1 / 0"),
    "unit_of raises": ("acme:Acme", "Acme.unit_of = lambda self, path: 1 / 0"),
    "unit_of returns text": ("acme:Acme", "Acme.unit_of = lambda self, path: path"),
    "unit_of returns another place": (
        "acme:Acme",
        "Acme.unit_of = lambda self, path: Unit('../x', UnitKind.FOLDER)",
    ),
    "is_complete raises": ("acme:Acme", "Acme.is_complete = lambda self, root, unit, files: 1 / 0"),
    "skips_folder raises": ("acme:Acme", "Acme.skips_folder = lambda self, path: 1 / 0"),
    "written raises": ("acme:Acme", "Acme.written = lambda self, unit, files, is_mixed=False: 1 / 0"),
    "written returns a number": ("acme:Acme", "Acme.written = lambda self, unit, files, is_mixed=False: 1"),
}
KERNEL = {"KERNEL/launcher.so": b"machine code"}


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


def fill(pod: IsolatedEnv) -> None:
    pod.fill(pod.triton, KERNEL)
    pod.fill(pod.home / ".cache" / "acme", {"abc/kernel": b"code"})


@pytest.mark.parametrize("fault", FAULTS)
def test_broken_adapter_is_left_out_with_one_warning(
    isolated_env: IsolatedEnv, packages: Packages, caplog: pytest.LogCaptureFixture, fault: str
) -> None:
    value, line = FAULTS[fault]
    packages.add("acme_tools", adapters={"acme": value}, modules={"acme": f"{ADAPTER}\n{line}\n"})
    fill(isolated_env)
    saved = save()
    assert (saved.status, saved.units) == (OperationStatus.SUCCESS, 1), saved.reason
    shutil.rmtree(isolated_env.triton)
    loaded = load()
    assert (loaded.status, loaded.restored) == (OperationStatus.SUCCESS, ("triton/KERNEL",)), loaded.reason
    assert read_tree_of(isolated_env.triton) == KERNEL
    [warning] = warnings(caplog)
    assert "the cache acme of the package acme_tools 1.0 is left out" in warning
    [addition] = command("info", "--json").json["additions"]
    assert addition["problem"]
    assert command("doctor").exit_code == 0


@pytest.mark.parametrize(
    ("fault", "problem"),
    [
        ("another name", "its name is 'other', but its entry point is named 'acme'"),
        ("wrong version", "its version is 1.0, which is not a text"),
        ("wrong title", "its title is None, which is not a text"),
        ("wrong layout", "its layout is 'kernels', which is not a Layout"),
        ("wrong variables", "its variables is ('ACME',), which is not a tuple of Variable"),
    ],
)
def test_problem_of_an_attribute_says_what_is_expected(
    isolated_env: IsolatedEnv, packages: Packages, fault: str, problem: str
) -> None:
    value, line = FAULTS[fault]
    packages.add("acme_tools", adapters={"acme": value}, modules={"acme": f"{ADAPTER}\n{line}\n"})
    [addition] = command("info", "--json").json["additions"]
    assert addition["problem"] == f"ValueError: {problem}"


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("triton", "b10-transfer itself has a cache of this name"),
        ("inductor", "b10-transfer itself has a cache of this name"),
        ("Acme", "lower-case letters"),
        ("a" * 21, "at most 20"),
        ("../acme", "lower-case letters"),
    ],
)
def test_name_that_no_cache_can_have(
    isolated_env: IsolatedEnv, packages: Packages, caplog: pytest.LogCaptureFixture, name: str, reason: str
) -> None:
    packages.add("acme", adapters={name: "acme:Acme"}, modules={"acme": f"{ADAPTER}\nAcme.name = {name!r}\n"})
    fill(isolated_env)
    assert (save().status, load(merge=True).status) == (OperationStatus.SUCCESS, OperationStatus.SKIPPED)
    [warning] = warnings(caplog)
    assert "acme 1.0" in warning
    assert reason in warning


def test_second_package_with_a_name_is_left_out(
    isolated_env: IsolatedEnv, packages: Packages, caplog: pytest.LogCaptureFixture
) -> None:
    packages.add("acme", adapters={"acme": "acme:Acme"}, modules={"acme": ADAPTER})
    packages.add("zebra", adapters={"acme": "zebra:Acme"}, modules={"zebra": ADAPTER})
    fill(isolated_env)
    assert save().units == 2
    [warning] = warnings(caplog)
    assert "the cache acme of the package zebra 1.0 is left out: acme 1.0 adds a cache of this name, too" in warning


@pytest.mark.parametrize("caches", ["-acme", "triton"])
def test_adapter_of_a_cache_that_is_not_used_is_not_imported(
    isolated_env: IsolatedEnv,
    packages: Packages,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    caches: str,
) -> None:
    packages.add("acme", adapters={"acme": "no_such_module:Acme"})
    monkeypatch.setenv("B10_CACHES", caches)
    fill(isolated_env)
    assert save().units == 1
    assert warnings(caplog) == []


def test_variable_that_switches_a_cache_off(
    isolated_env: IsolatedEnv, packages: Packages, monkeypatch: pytest.MonkeyPatch
) -> None:
    packages.add("acme", adapters={"acme": "acme:Acme"}, modules={"acme": ADAPTER})
    monkeypatch.setenv("ACME_CACHE_DIR", "/dev/null/acme")
    fill(isolated_env)
    assert save().units == 1


def test_wrong_variable_affects_its_cache_alone(
    isolated_env: IsolatedEnv, packages: Packages, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    packages.add("acme", adapters={"acme": "acme:Acme"}, modules={"acme": ADAPTER})
    monkeypatch.setenv("ACME_CACHE_DIR", str(isolated_env.store / "v1"))
    fill(isolated_env)
    assert save().units == 1
