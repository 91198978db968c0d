"""Variables that enter vLLM's hash with values of one pod."""

from __future__ import annotations

import pytest

from b10_transfer.config.per_pod import PER_POD_VARIABLES, per_pod_variables

TESTED = [
    "VLLM_ENGINE_READY_TIMEOUT_S",
    "VLLM_LOOPBACK_IP",
    "VLLM_NIXL_SIDE_CHANNEL_PORT",
    "VLLM_XGRAMMAR_CACHE_MB",
    "VLLM_LORA_RESOLVER_CACHE_DIR",
]
"""Seen to change the hash of a running vLLM 0.32.0."""
IGNORED_BY_VLLM = ["VLLM_CACHE_ROOT", "VLLM_PORT", "VLLM_HOST_IP", "VLLM_NIXL_SIDE_CHANNEL_HOST", "LOCAL_RANK", "HOME"]


@pytest.mark.parametrize("name", TESTED)
def test_variable_that_enters_the_hash_is_named(name: str) -> None:
    assert per_pod_variables({name: "1", "PATH": "/bin"}) == [name]


@pytest.mark.parametrize("name", IGNORED_BY_VLLM)
def test_variable_that_vllm_does_not_hash_is_not_named(name: str) -> None:
    assert per_pod_variables({name: "1"}) == []


def test_empty_value_counts_as_unset() -> None:
    assert per_pod_variables(dict.fromkeys(PER_POD_VARIABLES, "")) == []


def test_every_variable_that_is_set_is_named_once() -> None:
    assert per_pod_variables(dict.fromkeys(PER_POD_VARIABLES, "1")) == list(PER_POD_VARIABLES)
    assert len(set(PER_POD_VARIABLES)) == len(PER_POD_VARIABLES)
