"""Entry points of installed packages are found without ``importlib.metadata``, and as it finds them."""

from __future__ import annotations

import importlib.metadata
import os
import subprocess
import sys
from pathlib import Path

import pytest

from b10_transfer.config.plugins import ADAPTERS, STORES, Plugin, find_plugins


def declare(folder: Path, package: str, text: str | bytes) -> None:
    """Have a folder hold the metadata of a package with these entry points."""
    (folder / package).mkdir(parents=True)
    (folder / package / "entry_points.txt").write_bytes(text.encode() if isinstance(text, str) else text)


ENTRY_POINTS = """
# a comment
[console_scripts]
tool = other:main

[b10_transfer.adapters]
acme = acme_b10.cache:AcmeAdapter
second=acme_b10.cache : Second [extra]
# another comment

[b10_transfer.stores]
sqlite = acme_b10.store:open_store
"""


def test_entry_points_of_both_groups_are_found(tmp_path: Path) -> None:
    declare(tmp_path, "acme_b10-1.0.dist-info", ENTRY_POINTS)
    assert find_plugins([str(tmp_path)]) == {
        ADAPTERS: (
            Plugin("acme", "acme_b10.cache:AcmeAdapter", "acme_b10 1.0"),
            Plugin("second", "acme_b10.cache : Second [extra]", "acme_b10 1.0"),
        ),
        STORES: (Plugin("sqlite", "acme_b10.store:open_store", "acme_b10 1.0"),),
    }


@pytest.mark.parametrize("group", [ADAPTERS, STORES])
def test_they_are_those_that_importlib_finds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, group: str) -> None:
    declare(tmp_path, "acme_b10-1.0.dist-info", ENTRY_POINTS)
    monkeypatch.syspath_prepend(str(tmp_path))
    expected = {(found.name, found.value) for found in importlib.metadata.entry_points(group=group)}
    assert expected
    assert {(plugin.name, plugin.value) for plugin in find_plugins(sys.path)[group]} == expected


def test_first_copy_of_a_package_counts(tmp_path: Path) -> None:
    for folder, module in (("first", "new"), ("second", "old")):
        declare(tmp_path / folder, f"Acme-{module}.dist-info", f"[{STORES}]\nacme = {module}:open\n")
    found = find_plugins([str(tmp_path / "first"), str(tmp_path / "second")])
    assert [plugin.value for plugin in found[STORES]] == ["new:open"]


def test_package_that_is_developed_in_place_is_found(tmp_path: Path) -> None:
    declare(tmp_path, "acme.egg-info", f"[{STORES}]\nacme = acme:open\n")
    assert [plugin.package for plugin in find_plugins([str(tmp_path)])[STORES]] == ["acme"]


@pytest.mark.parametrize(
    "text", [b"", b"\xff\xfe[b10_transfer.stores]\n", b"[b10_transfer.stores]\nno value\n", b"\0" * 99]
)
def test_metadata_that_make_no_sense_add_nothing(tmp_path: Path, text: bytes) -> None:
    declare(tmp_path, "acme-1.0.dist-info", text)
    assert find_plugins([str(tmp_path)]) == {ADAPTERS: (), STORES: ()}


def test_folders_and_metadata_that_cannot_be_read_are_skipped(tmp_path: Path) -> None:
    (tmp_path / "archive.zip").write_bytes(b"")
    (tmp_path / "one").mkdir()
    (tmp_path / "one" / "file-1.0.egg-info").write_bytes(b"")
    os.mkdir(tmp_path / "one" / "empty-1.0.dist-info")
    declare(tmp_path / "one", "acme-1.0.dist-info", f"[{STORES}]\nacme = acme:open\n")
    folders = [str(tmp_path / name) for name in ("missing", "archive.zip", "one")]
    assert [plugin.name for plugin in find_plugins(folders)[STORES]] == ["acme"]


@pytest.mark.parametrize("value", ["", "acme", "acme:", ":open", "a b:c", "acme:open:more", "../acme:open"])
def test_value_that_is_no_entry_point_is_an_error(value: str) -> None:
    with pytest.raises(ValueError, match="is not module:attribute"):
        Plugin("acme", value, "acme 1.0").load()


def test_attribute_may_be_nested() -> None:
    assert Plugin("acme", "os:path.join [extra]", "acme 1.0").load() is os.path.join


def test_looking_for_plugins_does_not_import_importlib_metadata(tmp_path: Path) -> None:
    declare(tmp_path, "acme_b10-1.0.dist-info", ENTRY_POINTS)
    program = (
        "import sys; before = set(sys.modules)\n"
        "from b10_transfer.config.plugins import installed\n"
        "assert [plugin.name for plugin in installed.of('b10_transfer.stores')] == ['sqlite']\n"
        "print(sorted({'importlib.metadata', 'email', 'acme_b10'} & (set(sys.modules) - before)))\n"
    )
    environ = {**os.environ, "PYTHONPATH": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", program], env=environ, capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
