"""FlashInfer's settings for mixtures of experts: one file, in a place of its own."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from b10_transfer import OperationStatus, load, save
from b10_transfer.adapters import cache_roots, flashinfer_knobs
from b10_transfer.adapters.flashinfer import FlashInferAdapter
from b10_transfer.adapters.flashinfer_knobs import KNOBS as DEFAULT
from b10_transfer.adapters.flashinfer_knobs import FlashInferKnobsAdapter
from b10_transfer.config import Config
from tests.conftest import IsolatedEnv, ReadTree
from tests.shapes import FLASHINFER, KNOBS

VARIABLE = "FLASHINFER_MOE_EP_KNOB_CACHE"
ADAPTER = FlashInferKnobsAdapter()
ROOT = Path("/caches/flashinfer")


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flashinfer_knobs, "_installed_version", lambda: "0.7.4")


def located() -> Path | None:
    return ADAPTER.locate(Config.from_environment().reader)


def test_place_does_not_follow_flashinfers_workspace(
    isolated_env: IsolatedEnv, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FLASHINFER_WORKSPACE_BASE", str(isolated_env.home / "base"))
    assert located() == isolated_env.home / ".cache" / "flashinfer"
    monkeypatch.setenv(VARIABLE, "~/settings/knobs.json")
    assert located() == isolated_env.home / "settings"


@pytest.mark.parametrize("value", ["0", "off", " OFF ", "none", "disable", "disabled"])
def test_file_can_be_switched_off(
    isolated_env: IsolatedEnv, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, value: str
) -> None:
    monkeypatch.setenv(VARIABLE, value)
    assert located() is None
    assert caplog.records == []


@pytest.mark.parametrize(
    "value", ["knobs.json", "/data/config.json", "/data/knobs.txt", "/data/.knobs.json", "s3://b/knobs.json"]
)
def test_other_file_is_left_alone_and_named(
    isolated_env: IsolatedEnv, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, value: str
) -> None:
    monkeypatch.setenv(VARIABLE, value)
    assert located() is None
    assert f"{VARIABLE}={value}: FlashInfer's settings are not saved there" in caplog.text


@pytest.mark.parametrize(
    "path", ["config.json", "0.7.4/knobs.json", ".moe_ep_knob_cache.ab12", "knobs.json.tmp", "knob.py"]
)
def test_other_files_in_the_folder_do_not_travel(path: str) -> None:
    assert ADAPTER.unit_of(path) is None


@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize("base", ["", "base"])
def test_settings_travel_wherever_the_kernels_are(
    isolated_env: IsolatedEnv, monkeypatch: pytest.MonkeyPatch, base: str
) -> None:
    place = isolated_env.home / ".cache" / "flashinfer"
    isolated_env.fill(place, {DEFAULT: KNOBS})
    assert save().units == 1
    shutil.rmtree(place)
    if base:
        monkeypatch.setenv("FLASHINFER_WORKSPACE_BASE", str(isolated_env.home / base))
    assert load().units == 1
    assert json.loads((place / DEFAULT).read_bytes()) == json.loads(KNOBS)
    assert load(merge=True).status is OperationStatus.SKIPPED
    assert save().status is OperationStatus.SKIPPED


@pytest.mark.usefixtures("installed")
def test_settings_and_kernels_in_one_directory_are_restored_together(
    isolated_env: IsolatedEnv, read_tree: ReadTree
) -> None:
    place = isolated_env.home / ".cache" / "flashinfer"
    isolated_env.fill(place, FLASHINFER)
    saved = save()
    shutil.rmtree(place)
    loaded = load()
    assert (loaded.status, loaded.units) == (OperationStatus.SUCCESS, saved.units)
    assert {path for path in FLASHINFER if "cached_ops/mod/" not in path} <= read_tree(place).keys()


@pytest.mark.usefixtures("installed")
def test_settings_that_version_1_saved_are_restored_once(
    isolated_env: IsolatedEnv, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are a unit of FlashInfer's cache."""
    place = isolated_env.home / ".cache" / "flashinfer"
    isolated_env.fill(place, {DEFAULT: KNOBS})
    monkeypatch.setenv("B10_CACHES", "flashinfer")
    assert save().units == 1
    monkeypatch.delenv("B10_CACHES")
    shutil.rmtree(place)
    assert load().units == 1
    assert json.loads((place / DEFAULT).read_bytes()) == json.loads(KNOBS)
    assert load(merge=True).status is OperationStatus.SKIPPED
    assert {root.name for root in cache_roots(Config.from_environment()) if root.unit_of(DEFAULT)} >= {ADAPTER.name}


@pytest.mark.parametrize("adapter", [ADAPTER, FlashInferAdapter()], ids=lambda adapter: adapter.name)
def test_settings_are_bound_to_flashinfers_version(
    monkeypatch: pytest.MonkeyPatch, adapter: FlashInferAdapter | FlashInferKnobsAdapter
) -> None:
    monkeypatch.setattr(flashinfer_knobs, "_installed_version", lambda: "0.7.4")
    saved = adapter.to_portable(ROOT, DEFAULT, KNOBS, [DEFAULT])
    assert json.loads(adapter.to_local(ROOT, DEFAULT, saved)) == json.loads(KNOBS)
    monkeypatch.setattr(flashinfer_knobs, "_installed_version", lambda: "0.7.5")
    there = adapter.to_local(ROOT, DEFAULT, saved)
    assert json.loads(there) == {"version": 2, "entries": []}
    # It would take the place of the settings that another pod has found.
    with pytest.raises(ValueError, match="has no settings"):
        adapter.to_portable(ROOT, DEFAULT, there, [DEFAULT])


def test_settings_without_flashinfer_are_not_saved() -> None:
    with pytest.raises(ValueError, match="has no settings of the installed FlashInfer"):
        ADAPTER.to_portable(ROOT, DEFAULT, KNOBS, [DEFAULT])


@pytest.mark.parametrize("content", [b"", b"[]", b"{}", b'{"version": 2}', b'{"entries": []}', b"[" * 100_000])
def test_other_content_of_settings_is_refused(content: bytes) -> None:
    with pytest.raises(ValueError, match="not FlashInfer's settings"):
        ADAPTER.to_local(ROOT, DEFAULT, content)
