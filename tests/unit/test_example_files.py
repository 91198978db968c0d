"""The files that people copy: each parses, names what exists, and the documentation's links lead somewhere."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from b10_transfer.adapters import ADAPTERS
from b10_transfer.cli.main import COMMANDS
from b10_transfer.config import VARIABLES
from b10_transfer.config.launcher import LAUNCHER_VARIABLES

TOP = Path(__file__).parents[2]
EXAMPLES = TOP / "examples"
MANIFESTS = sorted((EXAMPLES / "kubernetes").glob("*.yaml"))
CONFIGS = sorted(EXAMPLES.glob("truss_*/*.yaml"))
PAGES = sorted([*TOP.glob("*.md"), *(TOP / "docs").rglob("*.md"), *EXAMPLES.rglob("*.md")])
DOCUMENTED = {
    variable.name
    for variable in (*VARIABLES, *LAUNCHER_VARIABLES, *(v for adapter in ADAPTERS for v in adapter.variables))
} | {"B10_SERVER_URL"}
"""Those that a user sets, and the one that `warm` gives to exercises."""


def name_of(path: Path) -> str:
    return path.relative_to(TOP).as_posix()


def pod_of(manifest: dict[str, Any]) -> dict[str, Any]:
    """The pod of a Deployment, a Job or a CronJob; empty for another object."""
    spec = manifest.get("spec", {})
    found: dict[str, Any] = spec.get("jobTemplate", {"spec": spec})["spec"].get("template", {}).get("spec", {})
    return found


def containers(manifest: dict[str, Any]) -> Iterator[dict[str, Any]]:
    pod = pod_of(manifest)
    yield from pod.get("initContainers", [])
    yield from pod.get("containers", [])


def loaded(path: Path) -> list[dict[str, Any]]:
    return [document for document in yaml.safe_load_all(path.read_text()) if document]


def test_there_are_manifests_for_each_way() -> None:
    assert {path.name for path in MANIFESTS} == {
        "store.yaml",
        "run.yaml",
        "init-container.yaml",
        "sidecar.yaml",
        "read-only.yaml",
        "warm-job.yaml",
        "prune-cronjob.yaml",
    }


@pytest.mark.parametrize("path", MANIFESTS, ids=name_of)
def test_manifest_defines_the_names_it_uses(path: Path) -> None:
    for manifest in loaded(path):
        content = "data" if manifest["kind"] == "ConfigMap" else "spec"
        assert {"apiVersion", "kind", "metadata", content} <= manifest.keys()
        if manifest["kind"] == "Deployment":
            labels = manifest["spec"]["template"]["metadata"]["labels"]
            assert manifest["spec"]["selector"]["matchLabels"] == labels
        volumes = {volume["name"] for volume in pod_of(manifest).get("volumes", [])}
        for container in containers(manifest):
            assert {mount["name"] for mount in container.get("volumeMounts", [])} <= volumes


@pytest.mark.parametrize("path", MANIFESTS, ids=name_of)
def test_containers_that_share_caches_agree_on_where_they_are(path: Path) -> None:
    for manifest in loaded(path):
        places = [
            {
                entry["name"]: entry["value"]
                for entry in container.get("env", [])
                if not entry["name"].startswith(("B10_", "NVIDIA"))
            }
            for container in containers(manifest)
        ]
        assert all(place == places[0] for place in places)


@pytest.mark.parametrize("path", [*MANIFESTS, *CONFIGS, EXAMPLES / "kubernetes" / "Dockerfile"], ids=name_of)
def test_variables_and_subcommands_exist(path: Path) -> None:
    text = path.read_text()
    assert set(re.findall(r"\bB10_[A-Z_]+", text)) <= DOCUMENTED
    for subcommand in re.findall(r"\bb10-compile-cache[ ,\"]+([a-z]+)", text):
        assert subcommand in COMMANDS


def test_image_starts_the_server_through_the_command() -> None:
    [line] = re.findall(r"(?m)^ENTRYPOINT (.+)$", (EXAMPLES / "kubernetes" / "Dockerfile").read_text())
    assert json.loads(line)[:3] == ["b10-compile-cache", "run", "--"]


@pytest.mark.parametrize("path", CONFIGS, ids=name_of)
def test_truss_configuration_parses(path: Path) -> None:
    [config] = loaded(path)
    assert config["model_name"]
    assert config["environment_variables"]["B10_NAMESPACE"]


@pytest.mark.parametrize("path", sorted((EXAMPLES / "truss_vllm").glob("*.yaml")), ids=name_of)
def test_truss_with_a_server_runs_the_command(path: Path) -> None:
    [config] = loaded(path)
    server = config["docker_server"]
    assert {
        "start_command",
        "readiness_endpoint",
        "liveness_endpoint",
        "predict_endpoint",
        "server_port",
    } <= server.keys()
    assert re.search(r"b10-compile-cache (run -- |& exec )vllm serve /models/llama", server["start_command"])
    assert f"--port {server['server_port']}" in server["start_command"]
    assert any("pip install" in command and "b10-transfer" in command for command in config["build_commands"])
    assert all(value is None for value in config["secrets"].values())


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as they are made of them."""
    headings = re.findall(r"(?m)^#+ (.+)$", page.read_text())
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        if "://" in target:
            continue
        path, _, anchor = target.partition("#")
        linked = (page.parent / path).resolve() if path else page
        assert linked.exists(), f"{target} is not there"
        if anchor:
            assert anchor in anchors(linked), f"{target} has no such heading"


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_variables_that_a_page_names_exist(page: Path) -> None:
    others = {"B10_TEST_EVERYTHING", "B10_TEST_BUCKET", "B10_TEST_COMPILE_MODE"}
    found = set(re.findall(r"\bB10_[A-Z_]+[A-Z]\b", page.read_text()))
    assert {name for name in found if not name.endswith("_CAP")} - others <= DOCUMENTED
