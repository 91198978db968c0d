"""``info`` lists the caches and stores that other packages add, and why one is ignored."""

from __future__ import annotations

from tests.command import command
from tests.conftest import IsolatedEnv

from .conftest import Packages


def test_stores_are_listed_with_their_packages(isolated_env: IsolatedEnv, packages: Packages) -> None:
    packages.add("acme", stores={"acme": "no_such_module:open_store", "s3": "acme:open_store"})
    packages.add("zebra", stores={"acme": "zebra:open_store"})
    found = {(one["name"], one["package"]): one["problem"] for one in command("info", "--json").json["additions"]}
    assert found == {
        ("acme", "acme 1.0"): "",
        ("s3", "acme 1.0"): "b10-transfer itself has such stores",
        ("acme", "zebra 1.0"): "acme 1.0 adds them as well",
    }
    shown = command("info").stdout
    assert "Added by other packages:" in shown
    assert "ignored: acme 1.0 adds them as well" in shown


def test_without_plugins_info_does_not_mention_them(isolated_env: IsolatedEnv) -> None:
    assert command("info", "--json").json["additions"] == []
    assert "other packages" not in command("info").stdout
