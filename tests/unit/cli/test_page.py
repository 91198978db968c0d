"""docs/cli.md says what there is."""

from __future__ import annotations

import json
import re
from dataclasses import fields
from pathlib import Path

import pytest

from b10_transfer.cli.main import COMMANDS
from b10_transfer.config.per_pod import PER_POD_VARIABLES
from b10_transfer.inspection.checks import Diagnosis
from b10_transfer.inspection.explain import Explanation
from b10_transfer.inspection.info import LocalCache, PodInfo
from b10_transfer.inspection.statistics import Statistics, Sums
from b10_transfer.maintenance.clear import ClearedCache, ClearedEnvironment
from b10_transfer.maintenance.prune import PrunedPack, Pruning
from b10_transfer.repository.catalogue import Inventory, StoredEnvironment, StoredPack

PAGE = (Path(__file__).parents[3] / "docs" / "cli.md").read_text()
EXAMPLES = [json.loads(block) for block in re.findall(r"```json\n(.*?)```", PAGE, re.DOTALL)]
LS, INFO, EXPLAIN, DOCTOR, CACHES, ENVIRONMENTS, STATS, PRUNE = EXAMPLES


@pytest.mark.parametrize(
    ("example", "shape"),
    [
        (LS, Inventory),
        (LS["environments"][0], StoredEnvironment),
        (LS["environments"][0]["packs"][0], StoredPack),
        (INFO, PodInfo),
        (INFO["caches"][0], LocalCache),
        (EXPLAIN, Explanation),
        (DOCTOR, Diagnosis),
        (CACHES["caches"][0], ClearedCache),
        (ENVIRONMENTS["environments"][0], ClearedEnvironment),
        (STATS, Statistics),
        (STATS["loads"], Sums),
        (PRUNE, Pruning),
        (PRUNE["packs"][0], PrunedPack),
    ],
)
def test_example_has_the_printed_fields(example: dict[str, object], shape: type) -> None:
    assert set(example) == {field.name for field in fields(shape)}


@pytest.mark.parametrize("name", PER_POD_VARIABLES)
def test_every_per_pod_variable_is_named(name: str) -> None:
    assert f"`{name}`" in PAGE


@pytest.mark.parametrize("name", COMMANDS)
def test_every_subcommand_is_named(name: str) -> None:
    assert f"`{name}" in PAGE
