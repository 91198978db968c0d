"""Metrics of ``run``: a real scrape, the file, and the examples that use them."""

from __future__ import annotations

import json
import re
import shutil
import signal
import socket
import subprocess
import urllib.request
from pathlib import Path

import pytest
import yaml

from tests.launcher.pod import COMMAND, Pod, free_port, wait_until

TOP = Path(__file__).parents[2]
OBSERVABILITY = TOP / "examples" / "observability"
NAME = re.compile(r"b10_compile_cache_\w+")


def promtool(*arguments: str, text: str | None = None) -> None:
    program = shutil.which("promtool")
    if program is None:
        pytest.skip("promtool is not installed")
    done = subprocess.run([program, *arguments], input=text, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr


def test_scrape_file_and_report_agree_and_the_examples_use_what_there_is(pod: Pod) -> None:
    pod.serve_and_end()
    pod.empty_cache()
    port, file, report = free_port(), pod.path / "metrics.prom", pod.path / "report.json"
    options = ["--metrics-port", str(port), "--metrics-file", str(file), "--report", str(report)]
    started = pod.start([COMMAND, "run", *options, "--", *pod.server], FAKE_COMPILES="3")
    started.says("save: SUCCESS")
    wait_until(lambda: 'operation="save",status="success"} 1.0' in file.read_text(), "the metrics of the save")
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
        scraped = answer.read().decode()
    assert scraped == file.read_text()
    for sample in (
        'b10_compile_cache_operations_total{operation="load",status="success"} 1.0',
        'b10_compile_cache_units{cache="triton",state="restored"} 2.0',
        'b10_compile_cache_units{cache="triton",state="compiled"} 1.0',
        'b10_compile_cache_verdict{verdict="HIT"} 1.0',
        "b10_compile_cache_saved_units_total 1.0",
        'b10_compile_cache_packs{state="usable"} 1.0',
        'b10_compile_cache_packs{state="recalled"} 0.0',
        "b10_compile_cache_packs_used 1.0",
        'b10_compile_cache_store_requests_total{result="throttled"} 0.0',
    ):
        assert sample in scraped.splitlines()
    started.send(signal.SIGTERM)
    assert started.wait() == 0
    summary = json.loads(report.read_text())
    assert (summary["exit_code"], summary["load"]["units"], summary["saves"]["units"]) == (0, 2, 1)
    assert summary["usage"]["verdict"] == "HIT"
    assert sorted(path.name for path in pod.path.glob("*.tmp")) == []
    exported = set(NAME.findall(scraped))
    page = (TOP / "docs" / "cli.md").read_text()
    used = [(OBSERVABILITY / name).read_text() for name in ("alerts.yaml", "dashboard.json")]
    for text in (page.partition("## Metrics and reports")[2].partition("\n## ")[0], *used):
        assert set(NAME.findall(text)) <= exported
    assert {name for name in exported if not name.endswith("_created")} <= set(NAME.findall(page)) | {
        name.removesuffix("_total") for name in NAME.findall(page)
    }
    promtool("check", "metrics", text=scraped)


def test_alert_rules_are_sound() -> None:
    rules = yaml.safe_load((OBSERVABILITY / "alerts.yaml").read_text())["groups"][0]["rules"]
    assert len(rules) == 3
    promtool("check", "rules", str(OBSERVABILITY / "alerts.yaml"))


def test_metrics_that_cannot_be_shown_do_not_keep_the_server_from_starting(pod: Pod) -> None:
    options = ["--metrics-port", str(pod.port), "--metrics-file", "/no/such/folder/file", "--report", "/no/such/report"]
    program = ["sh", "-c", "exit 7"]
    with socket.socket() as taken:
        taken.bind(("0.0.0.0", pod.port))
        taken.listen()
        started = pod.start([COMMAND, "run", *options, "--", *program])
        assert started.wait() == 7
    for message in ("metrics are not served at port", "the metrics file /no/such", "the report /no/such/report cannot"):
        assert message in started.log
    pod.is_deserted()


def test_metrics_and_report_are_complete_although_no_server_was_started(pod: Pod) -> None:
    file, report = pod.path / "metrics.prom", pod.path / "report.json"
    options = ["--metrics-file", str(file), "--report", str(report)]
    started = pod.start([COMMAND, "run", *options, "--", "/no/such/program"])
    assert started.wait() == 127
    assert json.loads(report.read_text())["exit_code"] == 127
    assert 'operation="load",status="does_not_exist"} 1.0' in file.read_text()
